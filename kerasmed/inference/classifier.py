"""A self-contained classifier file, run by onnxruntime."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
import onnxruntime

from kerasmed.data.readers import check_images, read_image, read_images_of
from kerasmed.errors import InputError, ModelFileError
from kerasmed.inference.metadata import OUTPUTS, check_graph, read_metadata, resolved_formats
from kerasmed.inference.precisions import fastest_precision, is_made_from
from kerasmed.inference.session import PROVIDERS, open_session
from kerasmed.runtime.hardware import cpu_cores

# An image, or the path of its file.
Image = np.ndarray | Path | str


class OnnxClassifier:
    """A self-contained classifier file. Several threads may use it at once.

    Args:
        path: a file that ``kerasmed export`` wrote.
        provider: a key of PROVIDERS, or "auto" for CUDA where a driver is present, else the CPU.
        threads: cores that a CPU run may use; all if None. A single batch is spread over them. Of
            several batches each core takes its own, in a second session that is opened for them.
        batch_size: images run at once. A shorter batch is padded, so an image's result does not
            depend on how many others there are. With "auto" (8 on a CPU, else 16) it is padded
            only to the next power of two, so a single image costs no more than one; results then
            agree within 1e-5.
        precision: "given" for the file at ``path``. "auto" for the one of ``X.onnx``,
            ``X.int8.onnx`` and ``X.fp16.onnx`` in its folder that suits the machine: int8 on a CPU
            that multiplies 8-bit integers (VNNI, AMX), fp16 on CUDA.
        grey_range: the values shown black and white, for files of more than 8 bits that do not
            state their own. Only for a model without a grey range, whose training images all
            stated theirs.

    Attributes:
        path: path of the file that was opened.
        class_names: names of the classes, in the order of the probabilities.
        input_size: height and width that images must have.
        metadata: everything that the file states about itself.
        provider: the onnxruntime provider that really runs.
        formats: how it reads files: as its training images were read, with each frame or slice of
            a file as an image.

    Raises:
        InputError: an option with another value, or a grey range for a model that has one.
        ModelFileError: there is no such file, or it is not ONNX, not a kerasmed classifier, or from
            a later version of kerasmed.
        MachineError: the chosen provider does not run on this machine.

    Example:
        >>> import kerasmed as km
        >>> model = km.OnnxClassifier("cnn.onnx")
        >>> model.class_names
        ['clear', 'ground_glass']
        >>> model.predict(["scan.png"]).shape
        (1, 2)
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
        if (
            precision == "auto"
            and (faster := fastest_precision(self.path, self.provider)) != self.path
        ):
            session, _ = open_session(faster, provider, threads)
            metadata = read_metadata(session, faster, "classifier")
            if is_made_from(faster, metadata):
                self.path, self._session, self.metadata = faster, session, metadata
        check_graph(self._session, self.path, self.metadata)
        on_cpu = self.provider == PROVIDERS["cpu"].name
        self._workers = (threads or cpu_cores()) if on_cpu else 1
        self._session_for_many: onnxruntime.InferenceSession | None = None
        self._opening = Lock()
        self._file, self._state = self.path.resolve(), _state_of(self.path)
        self._closed = False
        self.class_names: list[str] = self.metadata["class_names"]
        self.input_size: int = self.metadata["input_size"]
        self.formats = resolved_formats(self.metadata.get("formats", {}), grey_range, self.path)
        self._batch_size = (8 if on_cpu else 16) if batch_size == "auto" else batch_size
        self._pads_fully = batch_size != "auto"

    def __enter__(self) -> "OnnxClassifier":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        # Closing twice is no error.
        self.__dict__.pop("_session", None)
        self.__dict__.pop("_session_for_many", None)

    def warm_up(self) -> None:
        """Run full batches of black images, so that the first real images do not wait."""
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
            images: uint8 (batch, input_size, input_size, 3), 0 to 255; or any iterable of single
                images of that size or paths of image files.
            names: which of OUTPUTS.

        Returns:
            ``probabilities`` float32 (batch, classes), rows summing to 1, and ``features``
            float32 (batch, d).

        Raises:
            InputError: images of another dtype, rank or size, or no images.
            DataError: a file that is not a readable image.
        """
        batches = list(self.stream(images, names))
        return {name: np.concatenate([batch[name] for batch in batches]) for name in names}

    def stream(
        self, images: np.ndarray | Iterable[Image], names: tuple[str, ...] = OUTPUTS
    ) -> Iterator[dict[str, np.ndarray]]:
        """As ``outputs``, batch by batch in bounded memory; the next images are read meanwhile."""
        if self._closed:
            raise InputError(
                f"{self.path} was closed at the end of its `with`: expected an open model; open it "
                "again."
            )
        available = [output.name for output in self._session.get_outputs()]
        if not names or not set(names) <= set(available):
            raise InputError(f"Outputs: expected some of {available}, received {list(names)}.")
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
        """A session of one thread, since every core runs a batch of its own."""
        if self._workers == 1:
            return self._session
        with self._opening:
            if self._session_for_many is None:
                if _state_of(self._file) != self._state:
                    raise ModelFileError(
                        f"{self.path} has changed since it was opened: expected the same file, "
                        "since several batches need a second session; open it again."
                    )
                self._session_for_many, _ = open_session(self._file, "cpu", threads=1)
        return self._session_for_many

    def _run(
        self, session: onnxruntime.InferenceSession, batch: np.ndarray, names: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        outputs = session.run(names, {"images": self._pad(batch)})
        return {name: rows[: len(batch)] for name, rows in zip(names, outputs, strict=True)}

    def read(self, paths: Iterable[Path | str]) -> np.ndarray:
        """Image files at this model's size: uint8 (batch, input_size, input_size, 3).

        Raises:
            DataError: a file is not a readable image.
            InputError: there are no paths.
        """
        return np.concatenate(list(self._batches(paths)))

    def read_one(self, path: Path) -> np.ndarray:
        """An image file as its training images were read: uint8 (input_size, input_size, 3).

        Raises:
            DataError: the file is not a readable image, or holds several images.
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
        arrays = (self._read_or_check(image) for image in images)
        first = next(arrays, None)
        if first is None:
            raise InputError("Images: expected at least one image or path, received none.")
        arrays_from_first = chain([first], arrays)
        while batch := list(islice(arrays_from_first, self._batch_size)):
            yield np.stack(batch)

    def _read_or_check(self, image: Image) -> np.ndarray:
        if isinstance(image, str | Path):
            return self.read_one(Path(image))
        if not isinstance(image, np.ndarray):
            raise InputError(
                f"Images: expected paths or uint8 arrays, received {type(image).__name__}."
            )
        check_images(image[None], self.input_size)
        return image

    def _pad(self, batch: np.ndarray) -> np.ndarray:
        wanted = self._batch_size
        if not self._pads_fully:
            wanted = min(wanted, 1 << (len(batch) - 1).bit_length())
        if len(batch) == wanted:
            return batch
        return np.concatenate([batch, np.zeros((wanted - len(batch), *batch.shape[1:]), np.uint8)])


def _check_options(threads: Any, batch_size: Any, precision: Any) -> None:
    if threads is not None and not (isinstance(threads, int) and threads >= 1):
        raise InputError(f"Threads: expected 1 or more, or None for all, received {threads!r}.")
    if batch_size != "auto" and not (isinstance(batch_size, int) and batch_size >= 1):
        raise InputError(f'Batch size: expected "auto" or 1 or more, received {batch_size!r}.')
    if precision not in ("given", "auto"):
        raise InputError(
            f'Precision: expected "given" or "auto", received {precision!r}; for the int8 file '
            "give its path."
        )


def _state_of(path: Path) -> tuple[int, ...] | None:
    """Values that change when the file at a path is replaced; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
