"""Denoisers from files, run by onnxruntime or by Keras."""

from pathlib import Path

from kerasmed.diffusion.generate import Denoiser
from kerasmed.inference.denoiser import OnnxDenoiser
from kerasmed.inference.pixels import PixelRange
from kerasmed.runtime.backend import load_keras


def open_denoiser(path: Path) -> tuple[Denoiser, PixelRange]:
    """The denoiser of a file, run by onnxruntime (.onnx) or by Keras, and its pixel range."""
    if path.suffix == ".onnx":
        session = OnnxDenoiser(path)
        return session, PixelRange(
            tuple(session.metadata["pixel_mean"]), session.metadata["pixel_scale"]
        )
    load_keras()
    from kerasmed.diffusion.model import load_diffusion_model

    model = load_diffusion_model(path)
    return model.denoiser(), model.pixel_range
