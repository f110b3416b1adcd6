"""The engine, which runs exported models with onnxruntime.

It needs only NumPy, Pillow and onnxruntime of what kerasmed depends on. Other programs can
therefore use it after ``pip install --no-deps kerasmed``.
"""

from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.denoiser import OnnxDenoiser
from kerasmed.inference.upscaler import OnnxUpscaler

__all__ = ["OnnxClassifier", "OnnxDenoiser", "OnnxUpscaler"]
