"""The engine: exported models through onnxruntime.

Of all that kerasmed depends on it needs NumPy, Pillow and onnxruntime alone, so that other programs
can take it in by ``pip install --no-deps kerasmed``.
"""

import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import onnxruntime

from kerasmed.data.readers import check_images, read_image, read_images_of
from kerasmed.errors import InputError, MachineError, ModelFileError
from kerasmed.hardware import cpu_cores, cpu_multiplies, has_cuda_driver, thread_limit

# Of the metadata of a file; a file of a later format may mean something else by what it says.
FORMAT = 1

OUTPUTS = ("probabilities", "features")

# One image, or where it lies; an array of many stands for itself.
Image = np.ndarray | Path | str

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Provider:
    """One way in which onnxruntime computes.

    Attributes:
        name: onnxruntime's own.
        remedy: what to install where it does not run.
        options: what it is opened with.
    """

    name: str
    remedy: str
    options: dict[str, str]


_GPU = "install onnxruntime-gpu with the CUDA 12 libraries (extra `gpu`)"
PROVIDERS: dict[str, _Provider] = {
    "cpu": _Provider("CPUExecutionProvider", "install onnxruntime", {}),
    "cuda": _Provider(
        "CUDAExecutionProvider",
        _GPU,
        # The default search runs anew for every shape, for seconds.
        {"cudnn_conv_algo_search": "HEURISTIC"},
    ),
    "tensorrt": _Provider("TensorrtExecutionProvider", f"{_GPU}, and TensorRT 10", {}),
    "openvino": _Provider(
        "OpenVINOExecutionProvider",
        "install onnxruntime-openvino in place of onnxruntime and onnxruntime-gpu",
        {},
    ),
    "coreml": _Provider("CoreMLExecutionProvider", "install onnxruntime on macOS", {}),
}


class OnnxClassifier:
    """A self-contained classifier file. May be used by several threads at once.

    Args:
        path: a file that ``kerasmed export`` wrote.
        provider: a key of PROVIDERS, or "auto" for CUDA where a driver is present, else the CPU.
        threads: cores that a CPU run may use; all if None. One batch is spread over them; of
            several batches each core takes its own, in a second session that is opened then.
        batch_size: images run at once. A shorter batch is padded, so that an image's result does
            not depend on how many others there are; under "auto" (8 on a CPU, else 16) only to the
            next power of two, so that one image costs no more than one; results then agree within
            1e-5.
        precision: "given", or "auto" for the one of ``X.onnx``, ``X.int8.onnx`` and ``X.fp16.onnx``
            beside each other that suits the machine: int8 on a CPU that multiplies 8-bit integers
            (VNNI, AMX), fp16 on CUDA.
        grey_range: values shown black and white, of files of more than 8 bits that do not say
            themselves; for a model whose training images said so all.

    Attributes:
        path: of the file that was opened.
        class_names: names of the classes, in the order of the probabilities.
        input_size: height and width that images must have.
        metadata: all that the file says of itself.
        provider: the onnxruntime provider that really runs.
        formats: how it reads files, as its training images were read; of several frames or slices
            each is an image.

    Raises:
        InputError: a range for a model that has one.
        ModelFileError: no such file, not ONNX, not a kerasmed classifier, or of a later kerasmed.
        MachineError: the provider that was asked for does not run here.
    """

    def __init__(
        self,
        path: Path | str,
        provider: str = "auto",
        threads: int | None = None,
        batch_size: int | Literal["auto"] = "auto",
        precision: Literal["given", "auto"] = "given",
        grey_range: tuple[float, float] | None = None,
    ):
        _check_options(threads, batch_size, precision)
        self.path = Path(path)
        self._session, self.provider = open_session(self.path, provider, threads)
        self.metadata = read_metadata(self._session, self.path, "classifier")
        if precision == "auto" and (suited := _suited(self.path, self.provider)) != self.path:
            session, _ = open_session(suited, provider, threads)
            metadata = read_metadata(session, suited, "classifier")
            if _is_of(suited, metadata):
                self.path, self._session, self.metadata = suited, session, metadata
        _check_graph(self._session, self.path, self.metadata)
        on_cpu = self.provider == PROVIDERS["cpu"].name
        self._workers = (threads or cpu_cores()) if on_cpu else 1
        self._session_for_many: onnxruntime.InferenceSession | None = None
        self._opening = Lock()
        self._file, self._state = self.path.resolve(), _state_of(self.path)
        self._closed = False
        self.class_names: list[str] = self.metadata["class_names"]
        self.input_size: int = self.metadata["input_size"]
        self.formats = _formats(self.metadata.get("formats", {}), grey_range, self.path)
        self._batch_size = (8 if on_cpu else 16) if batch_size == "auto" else batch_size
        self._pads_fully = batch_size != "auto"

    def __enter__(self) -> "OnnxClassifier":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        # No error where it was closed before.
        self.__dict__.pop("_session", None)
        self.__dict__.pop("_session_for_many", None)

    def warm_up(self) -> None:
        """Run full batches of black images, so that the first real ones do not wait."""
        black = np.zeros((self._batch_size, self.input_size, self.input_size, 3), np.uint8)
        self.predict(black)
        self._run(self._open_for_many(), black, ("probabilities",))

    def predict(self, images: np.ndarray | Iterable[Image]) -> np.ndarray:
        """Probability of each class for each image: float32 (batch, classes); see ``outputs``."""
        return self.outputs(images, ("probabilities",))["probabilities"]

    def features(self, images: np.ndarray | Iterable[Image]) -> np.ndarray:
        """Pooled embedding of each image: float32 (batch, d); see ``outputs``."""
        return self.outputs(images, ("features",))["features"]

    def outputs(
        self, images: np.ndarray | Iterable[Image], names: tuple[str, ...] = OUTPUTS
    ) -> dict[str, np.ndarray]:
        """Probabilities and features of images, in their order.

        Args:
            images: uint8 (batch, input_size, input_size, 3), 0 to 255; or single images of that
                size or paths of image files, any number, from any iterable.
            names: which of OUTPUTS.

        Returns:
            ``probabilities`` float32 (batch, classes), rows summing to 1, and ``features``
            float32 (batch, d).

        Raises:
            InputError: images of another dtype, rank or size, or none.
            DataError: a file that is not a readable image.
        """
        parts = list(self.stream(images, names))
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def stream(
        self, images: np.ndarray | Iterable[Image], names: tuple[str, ...] = OUTPUTS
    ) -> Iterator[dict[str, np.ndarray]]:
        """As ``outputs``, but batch after batch, in bounded memory; the next are read meanwhile."""
        if self._closed:
            raise InputError(
                f"{self.path} was closed at the end of its `with`: expected an open model; open it "
                "again."
            )
        offered = [each.name for each in self._session.get_outputs()]
        if not names or not set(names) <= set(offered):
            raise InputError(f"Outputs: expected some of {offered}, received {list(names)}.")
        batches = self._batches(images)
        first, second = next(batches), next(batches, None)
        if second is None:
            yield self._run(self._session, first, names)
            return
        session = self._open_for_many()
        running: deque[Future[dict[str, np.ndarray]]] = deque()
        with ThreadPoolExecutor(self._workers) as pool:
            for batch in chain((first, second), batches):
                running.append(pool.submit(self._run, session, batch, names))
                if len(running) > self._workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()

    def _open_for_many(self) -> onnxruntime.InferenceSession:
        """Of one thread, since a core with a batch of its own waits for no other."""
        if self._workers == 1:
            return self._session
        with self._opening:
            if self._session_for_many is None:
                if _state_of(self._file) != self._state:
                    raise ModelFileError(
                        f"{self.path} has changed since it was opened: expected the file of then, "
                        "of which several batches open a second session; open it again."
                    )
                self._session_for_many, _ = open_session(self._file, "cpu", threads=1)
        return self._session_for_many

    def _run(
        self, session: onnxruntime.InferenceSession, batch: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        found = session.run(names, {"images": self._padded(batch)})
        return {n: each[: len(batch)] for n, each in zip(names, found, strict=True)}

    def read(self, paths: Iterable[Path | str]) -> np.ndarray:
        """Image files at this model's size: uint8 (batch, input_size, input_size, 3).

        Raises:
            DataError: a file is not a readable image.
            InputError: no path was given.
        """
        return np.concatenate(list(self._batches(paths)))

    def read_one(self, path: Path) -> np.ndarray:
        """An image file as its training images were read: uint8 (input_size, input_size, 3).

        Raises:
            DataError: the file is not a readable image, or holds several.
        """
        return read_image(path, self.input_size, self.formats)

    def read_all(self, path: Path) -> Iterator[tuple[int | None, np.ndarray]]:
        """Each image of a file, as ``read_one``, with the number of its slice or frame, or None."""
        return read_images_of(path, self.input_size, self.formats)

    def _batches(self, images: np.ndarray | Iterable[Image]) -> Iterator[np.ndarray]:
        if isinstance(images, np.ndarray):
            check_images(images, self.input_size)
            for start in range(0, len(images), self._batch_size):
                yield images[start : start + self._batch_size]
            return
        if isinstance(images, str | Path) or not isinstance(images, Iterable):
            raise InputError(
                "Images: expected an array or an iterable of images or paths, received "
                f"{type(images).__name__}; put a single one into a list."
            )
        each = (self._one(image) for image in images)
        first = next(each, None)
        if first is None:
            raise InputError("Images: expected at least one image or path, received none.")
        from_first = chain([first], each)
        while batch := list(islice(from_first, self._batch_size)):
            yield np.stack(batch)

    def _one(self, image: Image) -> np.ndarray:
        if isinstance(image, str | Path):
            return self.read_one(Path(image))
        if not isinstance(image, np.ndarray):
            raise InputError(
                f"Images: expected paths or uint8 arrays, received {type(image).__name__}."
            )
        check_images(image[None], self.input_size)
        return image

    def _padded(self, batch: np.ndarray) -> np.ndarray:
        wanted = self._batch_size
        if not self._pads_fully:
            wanted = min(wanted, 1 << (len(batch) - 1).bit_length())
        if len(batch) == wanted:
            return batch
        return np.concatenate([batch, np.zeros((wanted - len(batch), *batch.shape[1:]), np.uint8)])


class OnnxDenoiser:
    """An exported denoiser: ``denoiser(x_t, timesteps, labels) -> x_0``, all float32 or int32.

    Raises:
        ModelFileError: no such file, not ONNX, not a kerasmed denoiser, or of a later kerasmed.
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
        InputError: no provider of that name.
        ModelFileError: the file is missing or is not ONNX.
        MachineError: the provider that was asked for is not the one that runs.
    """
    if provider not in ("auto", *PROVIDERS):
        raise InputError(
            f"Provider: expected one of auto, {', '.join(PROVIDERS)}; received {provider!r}."
        )
    if not path.is_file():
        raise ModelFileError(f"No model file at {path}: expected an ONNX file; correct the path.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # With 0 onnxruntime takes a thread for each physical core of the host.
    options.intra_op_num_threads = threads or thread_limit() or 0
    available = onnxruntime.get_available_providers()
    chosen = provider
    if provider == "auto":
        has_cuda = has_cuda_driver() and PROVIDERS["cuda"].name in available
        chosen = "cuda" if has_cuda else "cpu"
    if chosen in ("cuda", "tensorrt") and hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(StringIO()):  # it prints what it does not find
            onnxruntime.preload_dlls()
    wanted = [PROVIDERS[name] for name in dict.fromkeys((chosen, "cpu"))]
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=[(each.name, each.options) for each in wanted if each.name in available],
        )
    except Exception as error:  # onnxruntime has no public base of its exceptions.
        raise ModelFileError(
            f"{path} is not a model that onnxruntime {onnxruntime.__version__} can load: expected "
            f"an ONNX file, received: {' '.join(str(error).split())[:200]}; export it again."
        ) from None
    running = session.get_providers()[0]
    if provider != "auto" and running != PROVIDERS[provider].name:
        raise MachineError(
            f"Provider {provider} was asked for but {running} runs: onnxruntime offers "
            f"{available}; {PROVIDERS[provider].remedy}, or use cpu."
        )
    _log.info("%s runs on %s", path.name, running)
    return session, running


def provider_key(name: str) -> str:
    """The key of PROVIDERS of onnxruntime's own name."""
    return next(key for key, each in PROVIDERS.items() if each.name == name)


def precision_path(path: Path, precision: Literal["fp32", "fp16", "int8"]) -> Path:
    """Where the same model lies in a precision: ``X.onnx``, ``X.fp16.onnx`` or ``X.int8.onnx``."""
    stem = path.name.removesuffix(".onnx").removesuffix(".int8").removesuffix(".fp16")
    return path.with_name(f"{stem}.onnx" if precision == "fp32" else f"{stem}.{precision}.onnx")


def _formats(
    stored: dict[str, Any], grey_range: tuple[float, float] | None, path: Path
) -> dict[str, Any]:
    """How a model reads files, from its metadata."""
    formats = dict(stored)
    for name in ("dicom", "nifti"):
        formats[name] = {**stored.get(name, {}), "frames": "split"}
    if grey_range is None:
        return formats
    if "grey_range" in stored:
        raise InputError(
            f"{path} was trained with the grey range {stored['grey_range']}: expected no other, "
            f"received {list(grey_range)}; leave it out."
        )
    if not grey_range[0] < grey_range[1]:
        raise InputError(f"Grey range: expected LOW below HIGH, received {list(grey_range)}.")
    return {**formats, "grey_range": list(grey_range)}


def _check_options(threads: Any, batch_size: Any, precision: Any) -> None:
    if threads is not None and not (isinstance(threads, int) and threads >= 1):
        raise InputError(f"Threads: expected 1 and more, or None for all, received {threads!r}.")
    if batch_size != "auto" and not (isinstance(batch_size, int) and batch_size >= 1):
        raise InputError(f'Batch size: expected "auto" or 1 and more, received {batch_size!r}.')
    if precision not in ("given", "auto"):
        raise InputError(
            f'Precision: expected "given" or "auto", received {precision!r}; for the int8 file '
            "give its path."
        )


def _check_graph(
    session: onnxruntime.InferenceSession, path: Path, metadata: dict[str, Any]
) -> None:
    """Refuse a file that says something else of itself than its graph does."""
    names, size = metadata["class_names"], metadata["input_size"]
    image = {each.name: each for each in session.get_inputs()}.get("images")
    shape = image.shape[1:] if image is not None else None
    said = {each.name: each.shape for each in session.get_outputs()}
    width = said["probabilities"][-1] if said.get("probabilities") else None
    if shape != [size, size, 3] or (isinstance(width, int) and width != len(names)):
        raise ModelFileError(
            f"{path}: expected images of {size} pixels and {len(names)} classes, as its metadata "
            f"say, received a graph of images {shape} and probabilities {width}; export it again."
        )


def _state_of(path: Path) -> tuple[int, ...] | None:
    """What tells whether the file at a path is still the same; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _is_of(path: Path, metadata: dict[str, Any]) -> bool:
    """Whether a file was made from the float32 one beside it, if there is one."""
    source = precision_path(path, "fp32")
    if not source.is_file():
        return True
    with source.open("rb") as stream:
        same = metadata.get("float32_sha256") == hashlib.file_digest(stream, "sha256").hexdigest()
    if not same:
        _log.warning("%s was not made from %s and is left out; export it again", path, source.name)
    return same


def _suited(path: Path, running: str) -> Path:
    """The file beside this one in the precision that suits what runs, or this one."""
    precision: Literal["fp16", "int8"] = "fp16"
    if running == PROVIDERS["cpu"].name:
        if not cpu_multiplies("avx512_vnni", "avx_vnni", "amx_int8"):
            return path
        precision = "int8"
    elif running not in (PROVIDERS["cuda"].name, PROVIDERS["tensorrt"].name):
        return path
    beside = precision_path(path, precision)
    return beside if beside.is_file() else path


def read_metadata(session: onnxruntime.InferenceSession, path: Path, kind: str) -> dict[str, Any]:
    """What a kerasmed file says of itself.

    Raises:
        ModelFileError: the file is not one of ours, of another kind, or of a later kerasmed.
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
    if not isinstance(metadata.get("format", 1), int) or metadata.get("format", 1) > FORMAT:
        raise ModelFileError(
            f"{path} is of kerasmed {metadata.get('kerasmed_version')}: expected format {FORMAT} "
            f"or below, received {metadata['format']}; update kerasmed."
        )
    missing = {key for key, is_right in _REQUIRED[kind].items() if not is_right(metadata.get(key))}
    if missing:
        raise ModelFileError(
            f"{path}: expected metadata for {', '.join(sorted(_REQUIRED[kind]))}, received none "
            f"that can be used for {', '.join(sorted(missing))}; export it again."
        )
    return metadata


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(v, str) for v in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# What each kind of file must say of itself, and how that is told from something else.
_REQUIRED: dict[str, dict[str, Callable[[Any], bool]]] = {
    "classifier": {"class_names": _are_names, "input_size": _is_size},
    "denoiser": {
        "image_size": _is_size,
        "pixel_mean": lambda value: isinstance(value, list) and all(map(_is_number, value)),
        "pixel_scale": _is_number,
    },
}
