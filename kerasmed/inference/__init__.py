"""The engine: exported models through onnxruntime.

Of all that kerasmed depends on it needs NumPy, Pillow and onnxruntime alone, so that other programs
can take it in by ``pip install --no-deps kerasmed``.
"""

from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.denoiser import OnnxDenoiser

__all__ = ["OnnxClassifier", "OnnxDenoiser"]
