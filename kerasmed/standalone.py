"""One ONNX file and images that belong to no study: predict, evaluate, explain."""

import glob
import json
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from kerasmed.config import ExplainConfig, SplitConfig
from kerasmed.data.decoding import read_images
from kerasmed.data.entries import folder_name, root_of
from kerasmed.data.groups import group_images
from kerasmed.data.readers import SUFFIXES, suffix_of
from kerasmed.data.sources import OutsideSet, open_source
from kerasmed.errors import DataError, InputError, MachineError
from kerasmed.evaluate.classification import classification_metrics
from kerasmed.inference import OnnxClassifier
from kerasmed.progress import progress_bar, say

_LONGEST_NAME = 255
# Images on which the explanations of two precisions are compared.
_COMPARED = 3


def predict_files(model: OnnxClassifier, images: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Path, predicted class and probabilities of each image file, as they come.

    Of a file that cannot be read there are the path and the ``error``, and the others go on.
    """
    # Filled as images are read ahead, emptied as results come.
    waiting: deque[tuple[Path, str | None]] = deque()

    def readable() -> Iterator[np.ndarray]:
        for path in images:
            try:
                pixels = model.read_one(path)
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


def _readable(paths: Iterable[Path], model: OnnxClassifier) -> Iterator[np.ndarray]:
    for path in paths:
        with suppress(DataError, MachineError):
            yield model.read_one(path)


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
        if len(os.fsencode(path.name)) > _LONGEST_NAME:  # of no file system, nor a folder's
            yield path
        elif name == "-":
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
    """Metrics of one file on images from elsewhere, in classes named as the model names its own.

    Some of the classes may be missing, see ``classification_metrics``. Of what the files tell
    (patients of DICOM, slices of a volume, equal bytes) intervals are over groups, as in a study.

    Args:
        model: the classifier file.
        directory: a folder of class folders, a ``.csv`` or an ``.npz``.

    Raises:
        DataError: classes that the model does not have, or numbers for which it has no names.
    """
    engine = OnnxClassifier(model)
    data = OutsideSet(
        source=directory,
        class_names=_names_of_numbers(engine) if _is_archive(directory) else None,
        image_size=engine.input_size,
        **engine.formats,
    )
    label_of = _labels_by_name(engine.class_names)
    if unknown := [name for name in open_source(data).class_names if name not in label_of]:
        raise DataError(
            f"{directory}: expected classes of the model, {engine.class_names}, received also "
            f"{unknown}; rename or remove them."
        )
    with TemporaryDirectory() as cache:
        images = read_images(data, Path(cache) / "images", remedy="")
        no_pairs = np.empty((0, 2), np.int64)  # of copies that are not the same bytes
        groups = group_images(images.files, no_pairs, SplitConfig(), root_of(directory))
        metrics = classification_metrics(
            engine.predict(images.images),
            np.array([label_of[name] for name in images.class_names])[images.labels],
            engine.class_names,
            groups=np.array(groups),
        )
    keys = ("backbone", "precision", "trained_on", "variant", "seed", "n_train")
    known = {key: engine.metadata.get(key) for key in keys}
    return {**known, **metrics}


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ".npz" and path.is_file()


def _labels_by_name(class_names: list[str]) -> dict[str, int]:
    """Position of each class, by its name and by that of the folder which stands for it."""
    by_folder = {folder_name(name): at for at, name in enumerate(class_names)}
    return by_folder | {name: at for at, name in enumerate(class_names)}


def _names_of_numbers(engine: OnnxClassifier) -> list[str]:
    """The classes that the labels 0, 1, ... of an .npz stand for.

    Raises:
        DataError: the model does not tell.
    """
    if names := engine.metadata.get("data_class_names"):
        return names
    if not all(name.isdecimal() for name in engine.class_names):
        raise DataError(
            f"{engine.path}: expected a model of numbered classes or one trained on an .npz, since "
            f"an .npz has numbers for labels; received the classes {engine.class_names}; give a "
            ".csv or a folder of class folders."
        )
    by_number = {int(name): name for name in engine.class_names}
    return [by_number.get(number, str(number)) for number in range(max(by_number) + 1)]


def explain_files(
    model: Path,
    images: list[Path],
    settings: ExplainConfig,
    seed: int,
    folder: Path,
    provider: str = "auto",
    precision: Literal["given", "auto"] = "given",
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Write an overlay and its record for each image, and yield them as they come.

    Of a file that cannot be read there is the ``error`` alone, and the others go on. Those that are
    there already, of the same image, file and settings, are not made again; overlays among the
    images, of a run before into a folder inside theirs, are left out.

    Args:
        model: the classifier file.
        images: image files.
        settings: how they are explained.
        seed: of the masks.
        folder: where to.
        provider: see ``OnnxClassifier``.
        precision: "auto" takes the int8 or fp16 file beside if it explains like the float32 one.

    Raises:
        InputError: no image, or two images of one name, whose overlays would overwrite each other,
            or an image that an overlay would overwrite.
    """
    from kerasmed.explain.network import NetworkExplainer, picture_path
    from kerasmed.explain.segments import segment_image
    from kerasmed.export.verify import trained_model

    images = [path for path in images if not _is_overlay(path, folder)]
    if not images:
        raise InputError("Images: expected at least one path, received none; name some.")
    pictures = Counter(
        picture_path(folder, _stem(path), name) for path in images for name in settings.explainers
    )
    twice = [path.name for path, count in pictures.items() if count > 1]
    if twice:
        raise InputError(
            f"Images: expected different file names, received {len(twice)} overlays of one name, "
            f"such as {twice[0]}; explain them into different --out folders."
        )
    written = {path.resolve() for path in pictures}
    written |= {path.with_suffix(".json") for path in written}
    if overwritten := [path for path in images if path.resolve() in written]:
        raise InputError(
            f"--out {folder}: expected a folder without the images, received {overwritten[0]}, "
            "which its overlay would overwrite; choose another."
        )
    engine = OnnxClassifier(model, provider)
    if precision == "auto":
        engine = _faithful_engine(engine, provider, images, settings, seed)
    with (
        NetworkExplainer(engine, trained_model(engine.path), settings, seed) as network,
        progress_bar("Explaining", len(images), "images") as advance,
    ):
        for path in images:
            try:
                image = engine.read_one(path)
            except (DataError, MachineError) as error:
                advance(1, "")
                yield path, {"error": str(error)}
                continue
            segments = segment_image(image, settings.segmentation, settings.superpixels)
            notes = {"image": path.name, "model": engine.path.name}
            records = network.explain_into(folder, _stem(path), image, segments, notes)
            advance(1, "")
            for record in records.values():
                yield folder / record["picture"], record


def _stem(path: Path) -> str:
    """The name without the ending of its format, if it has one: DICOM files may be called IM.1."""
    name = path.name.lower()
    endings = [each for each in SUFFIXES if name.endswith(each)]
    return path.name[: -len(max(endings, key=len))] if endings else path.name


def _is_overlay(path: Path, folder: Path) -> bool:
    """Whether it is a picture of an explanation, which an earlier run wrote into this folder."""
    if path.parent.resolve() != folder.resolve() or path.suffix != ".png":
        return False
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and "made_from" in record


def _faithful_engine(
    engine: OnnxClassifier, provider: str, paths: list[Path], settings: ExplainConfig, seed: int
) -> OnnxClassifier:
    """The faster file beside a float32 one, if LIME gives the same by it on a few images."""
    from kerasmed.explain.network import SAME_EXPLANATION, agreement_of_precisions

    fast = OnnxClassifier(engine.path, provider, precision="auto")
    if fast.path == engine.path:
        return engine
    images = list(islice(_readable(paths, engine), _COMPARED))
    if not images:
        return engine
    found = agreement_of_precisions(np.stack(images), engine.predict, fast.predict, settings, seed)
    chosen = fast if found >= SAME_EXPLANATION else engine
    say(
        f"{fast.path.name} explains {len(images)} images with a rank correlation of {found:.3f} to "
        f"{engine.path.name}, where {SAME_EXPLANATION} is wanted: {chosen.path.name} is taken."
    )
    return chosen
