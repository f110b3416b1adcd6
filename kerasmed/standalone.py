"""One ONNX file and images that belong to no study: predict, evaluate, explain."""

import glob
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kerasmed.config import DataConfig
from kerasmed.data.decoding import read_images
from kerasmed.data.readers import SUFFIXES, read_image, suffix_of
from kerasmed.errors import DataError, InputError, MachineError
from kerasmed.evaluate.classification import classification_metrics
from kerasmed.inference import OnnxClassifier
from kerasmed.progress import progress_bar


def predict_files(model: OnnxClassifier, images: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Path, predicted class and probabilities of each image file, as they come.

    Of a file that cannot be read there are the path and the ``error``, and the others go on.
    """
    # Filled by the thread that reads ahead, emptied as results come.
    waiting: deque[tuple[Path, str | None]] = deque()

    def readable() -> Iterator[np.ndarray]:
        for path in images:
            try:
                pixels = read_image(path, model.input_size)
            except (DataError, MachineError) as error:
                waiting.append((path, str(error)))
                continue
            waiting.append((path, None))
            yield pixels

    def failures() -> Iterator[dict[str, Any]]:
        while waiting and waiting[0][1] is not None:
            path, error = waiting.popleft()
            yield {"image": str(path), "error": error}

    pixels = readable()
    first = next(pixels, None)
    found = model.stream(chain([first], pixels), ("probabilities",)) if first is not None else ()
    for row in (row for part in found for row in part["probabilities"]):
        yield from failures()
        path, _ = waiting.popleft()
        yield {
            "image": str(path),
            "predicted": model.class_names[int(row.argmax())],
            "probabilities": dict(zip(model.class_names, row.astype(float).tolist(), strict=True)),
        }
    yield from failures()


def find_images(names: list[str], listed: Iterable[str]) -> Iterator[Path]:
    """Image files that are meant by paths, folders, patterns such as "a/*.png", and "-".

    Args:
        names: what was given; "-" stands for ``listed``.
        listed: one path a line.

    Raises:
        InputError: a folder or a pattern without an image.
    """
    for name in names:
        path = Path(name)
        if name == "-":
            yield from (Path(line.rstrip("\n")) for line in listed if line.strip())
        elif path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and suffix_of(p) in SUFFIXES)
            yield from _some(inside, f"an image in the folder {name}")
        elif not path.exists() and glob.has_magic(name):
            try:
                found = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
            except ValueError as error:
                raise InputError(f"Images: {name!r} is no pattern: {error}; mend it.") from None
            yield from _some([each for each in found if each.is_file()], f"a file like {name}")
        else:
            yield path


def _some(paths: list[Path], wanted: str) -> list[Path]:
    if not paths:
        raise InputError(f"Images: expected {wanted}, received none; mend the path.")
    return paths


def evaluate_folder(model: Path, directory: Path) -> dict[str, Any]:
    """Metrics of one file on a folder of class folders, named as the model names its classes.

    Raises:
        DataError: classes that the model does not have.
    """
    engine = OnnxClassifier(model)
    with TemporaryDirectory() as cache:
        data = DataConfig(source=directory, image_size=engine.input_size)
        images = read_images(data, Path(cache) / "images")
        if list(images.class_names) != list(engine.class_names):
            raise DataError(
                f"{directory}: expected the model's class folders {engine.class_names}, "
                f"received {list(images.class_names)}; rename or add folders."
            )
        metrics = classification_metrics(
            engine.predict(images.images), images.labels, engine.class_names
        )
    keys = ("backbone", "precision", "trained_on", "seed", "n_train")
    known = {key: engine.metadata.get(key) for key in keys}
    return {**known, **metrics}


def explain_files(model: Path, images: list[Path], folder: Path) -> Iterator[Path]:
    """Write an overlay and its JSON for each image; yields the overlays' paths as they come.

    Raises:
        InputError: two images of one name, whose overlays would overwrite each other.
    """
    from kerasmed.explain.overlay import write_explanation
    from kerasmed.explain.surrogate import explain_image

    stems = [path.stem for path in images]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise InputError(
            f"Images: expected different file names, received {twice} more than once; "
            "explain them into different --out folders."
        )
    engine = OnnxClassifier(model)
    pixels = engine.read(images)
    with progress_bar("Explaining", len(images), "images") as advance:
        for path, image in zip(images, pixels, strict=True):
            target = folder / f"{path.stem}.png"
            details = {"image": path.name, "model": model.name, "seed": 0}
            write_explanation(
                explain_image(image, engine.predict), engine.class_names, details, 5, target
            )
            advance(1, "")
            yield target
