"""The engine: exported models through onnxruntime, without TensorFlow and without Keras."""

import ctypes
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from kerasmed.data.readers import check_images, read_image
from kerasmed.errors import InputError, MachineError, ModelFileError

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxClassifier:
    """A self-contained classifier file.

    Args:
        path: a file that ``kerasmed export`` wrote.
        provider: "cpu", "cuda", or "auto" for CUDA where a driver is present.
        threads: threads of onnxruntime; its own choice if None.
        batch_size: images run at once; the last batch is padded to it, so that an image's result
            does not depend on how many others there are.

    Attributes:
        class_names: names of the classes, in the order of the probabilities.
        input_size: height and width that images must have.
        metadata: all that the file says of itself.
        provider: the onnxruntime provider that really runs.

    Raises:
        ModelFileError: no such file, not ONNX, or not a kerasmed classifier.
        MachineError: the provider that was asked for does not run here.
    """

    def __init__(
        self,
        path: Path | str,
        provider: str = "auto",
        threads: int | None = None,
        batch_size: int = 32,
    ):
        self.path = Path(path)
        self._session, self.provider = open_session(self.path, provider, threads)
        self.metadata = read_metadata(self._session, self.path, "classifier")
        self.class_names: list[str] = self.metadata["class_names"]
        self.input_size: int = self.metadata["input_size"]
        self.batch_size = batch_size

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Probabilities and features of images.

        Args:
            images: uint8 (batch, input_size, input_size, 3), 0 to 255.

        Returns:
            ``probabilities`` float32 (batch, classes), rows summing to 1, and ``features``
            float32 (batch, d).

        Raises:
            InputError: images of another dtype, rank or size.
        """
        check_images(images, self.input_size)
        probabilities, features = [], []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            padding = np.zeros((self.batch_size - len(batch), *batch.shape[1:]), np.uint8)
            padded = np.concatenate([batch, padding])
            found = self._session.run(["probabilities", "features"], {"images": padded})
            probabilities.append(found[0][: len(batch)])
            features.append(found[1][: len(batch)])
        return {
            "probabilities": np.concatenate(probabilities),
            "features": np.concatenate(features),
        }

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probability of each class for each image; see ``outputs``."""
        return self.outputs(images)["probabilities"]

    def features(self, images: np.ndarray) -> np.ndarray:
        """Pooled embedding of each image; see ``outputs``."""
        return self.outputs(images)["features"]

    def read(self, paths: Iterable[Path | str]) -> np.ndarray:
        """Image files at this model's size: uint8 (batch, input_size, input_size, 3).

        Raises:
            DataError: a file is not a readable image.
            InputError: no path was given.
        """
        images = [read_image(Path(path), self.input_size) for path in paths]
        if not images:
            raise InputError("Images: expected at least one path, received none; name some.")
        return np.stack(images)


class OnnxDenoiser:
    """An exported denoiser: ``denoiser(x_t, timesteps, labels) -> x_0``, all float32 or int32.

    Raises:
        ModelFileError: no such file, not ONNX, or not a kerasmed denoiser.
        MachineError: the provider that was asked for does not run here.
    """

    def __init__(self, path: Path | str, provider: str = "auto"):
        self._session, self.provider = open_session(Path(path), provider)
        self.metadata = read_metadata(self._session, Path(path), "denoiser")

    def __call__(self, x_t: np.ndarray, timesteps: np.ndarray, labels: np.ndarray) -> np.ndarray:
        feeds = {"noisy_images": x_t, "timesteps": timesteps, "labels": labels}
        return self._session.run(["clean_images"], feeds)[0]


def open_session(
    path: Path, provider: str = "auto", threads: int | None = None
) -> tuple[onnxruntime.InferenceSession, str]:
    """An onnxruntime session, and the provider that really runs it.

    Raises:
        ModelFileError: the file is missing or is not ONNX.
        MachineError: the provider that was asked for is not the one that runs.
    """
    if provider not in ("auto", *PROVIDERS):
        raise InputError(
            f"Provider: expected one of auto, {', '.join(PROVIDERS)}; received {provider!r}."
        )
    if not path.is_file():
        raise ModelFileError(f"No model file at {path}: expected an ONNX file; mend the path.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    use_cuda = provider == "cuda" or (provider == "auto" and has_cuda_driver())
    if use_cuda and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    cuda = (PROVIDERS["cuda"], {"cudnn_conv_algo_search": "HEURISTIC"})
    providers: list[Any] = [cuda, PROVIDERS["cpu"]] if use_cuda else [PROVIDERS["cpu"]]
    available = onnxruntime.get_available_providers()
    if use_cuda and PROVIDERS["cuda"] not in available:
        providers = [PROVIDERS["cpu"]]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has no public base of its exceptions.
        raise ModelFileError(
            f"{path} is not a model that onnxruntime {onnxruntime.__version__} can load: expected "
            f"an ONNX file, received: {' '.join(str(error).split())[:200]}; export it again."
        ) from None
    running = session.get_providers()[0]
    if provider != "auto" and running != PROVIDERS[provider]:
        raise MachineError(
            f"Provider {provider} was asked for but {running} runs: onnxruntime offers "
            f"{available}; "
            "install onnxruntime-gpu with the CUDA 12 libraries (extra `gpu`), or use cpu."
        )
    return session, running


def has_cuda_driver() -> bool:
    """Whether an NVIDIA driver is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def read_metadata(session: onnxruntime.InferenceSession, path: Path, kind: str) -> dict[str, Any]:
    """What a kerasmed file says of itself.

    Raises:
        ModelFileError: the file is not one of ours, or of another kind.
    """
    stored = session.get_modelmeta().custom_metadata_map
    prefix = "kerasmed."
    try:
        metadata = {
            key.removeprefix(prefix): json.loads(value)
            for key, value in stored.items()
            if key.startswith(prefix)
        }
    except ValueError:
        metadata = {}
    if metadata.get("kind") != kind:
        raise ModelFileError(
            f"{path} is ONNX but not a kerasmed {kind}: expected metadata kerasmed.kind={kind}, "
            f"received {metadata.get('kind', 'none')}; use a file that kerasmed wrote."
        )
    return metadata
