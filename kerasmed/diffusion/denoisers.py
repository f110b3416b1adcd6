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
    import keras

    from kerasmed.diffusion.unet import keras_denoiser, pixels_of

    model = keras.saving.load_model(path, compile=False)
    return keras_denoiser(model), pixels_of(model)
