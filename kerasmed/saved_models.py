"""Loading a saved model, with every Keras object of kerasmed registered."""

from pathlib import Path

import keras

from kerasmed.classify.model import ImageClassifier
from kerasmed.diffusion.model import DiffusionModel
from kerasmed.diffusion.upscaler import Upscaler
from kerasmed.runtime.backend import load_saved_model

__all__ = ["DiffusionModel", "ImageClassifier", "Upscaler", "load_model"]


def load_model(path: str | Path, compile: bool = True) -> keras.Model:
    """The model of a `.keras` file, ready to draw, predict or be trained further.

    It does what ``keras.saving.load_model`` does once kerasmed's classes are imported. A model that
    was saved compiled goes on training exactly as if it had never been saved.

    Args:
        path: a file that ``save`` wrote, or ``denoiser.keras`` or ``model.keras`` of a study.
        compile: whether to restore the optimiser too, if the file has one.

    Raises:
        ModelFileError: no such file, or no model of this version of kerasmed.

    Example:
        >>> import kerasmed as km
        >>> ddpm = km.load_model("denoiser.keras")
        >>> len(ddpm.sample(per_class=2, steps=3, verbose=0))
        4
    """
    return load_saved_model(path, DiffusionModel, ImageClassifier, Upscaler, compile=compile)
