"""Callbacks for ``fit`` of a ``DiffusionModel``; those of Keras work too."""

from kerasmed.diffusion.checkpoints import Checkpoints
from kerasmed.diffusion.preview import Preview

__all__ = ["Checkpoints", "Preview"]
