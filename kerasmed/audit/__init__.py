"""Is a synthetic set faithful and private, and are networks trained with it any good?"""
