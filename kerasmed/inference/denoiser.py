"""An exported denoiser, run by onnxruntime."""

from pathlib import Path

import numpy as np

from kerasmed.inference.metadata import read_metadata
from kerasmed.inference.session import open_session


class OnnxDenoiser:
    """An exported denoiser: ``denoiser(x_t, timesteps, labels) -> x_0``, all float32 or int32.

    Args:
        path: a file that ``kerasmed export`` wrote.
        provider: see ``OnnxClassifier``.

    Attributes:
        metadata: everything that the file states about itself.
        provider: the onnxruntime provider that really runs.

    Raises:
        ModelFileError: there is no such file, or it is not ONNX, not a kerasmed denoiser, or from a
            later version of kerasmed.
        MachineError: the chosen provider does not run on this machine.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> denoiser = km.OnnxDenoiser("denoiser.onnx")
        >>> size = denoiser.metadata["image_size"]
        >>> noise = np.random.default_rng(0).standard_normal((2, size, size, 3), np.float32)
        >>> denoiser(noise, np.int32([999, 999]), np.int32([0, 1])).shape == noise.shape
        True
    """

    def __init__(self, path: Path | str, provider: str = "auto"):
        self._session, self.provider = open_session(Path(path), provider)
        self.metadata = read_metadata(self._session, Path(path), "denoiser")

    def __call__(self, x_t: np.ndarray, timesteps: np.ndarray, labels: np.ndarray) -> np.ndarray:
        feeds = {"noisy_images": x_t, "timesteps": timesteps, "labels": labels}
        return self._session.run(["clean_images"], feeds)[0]
