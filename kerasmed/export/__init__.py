"""Keras models as self-contained ONNX files, in several precisions, each checked."""
