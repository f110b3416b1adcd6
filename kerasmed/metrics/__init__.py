"""Measures: NumPy arrays in, plain results out."""
