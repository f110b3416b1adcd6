"""Explanations of image files by one ONNX file alone."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kerasmed.data.readers import split_name, stem_of
from kerasmed.errors import DataError, InputError, MachineError
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.predict import slice_name
from kerasmed.progress import progress_bar, say

if TYPE_CHECKING:  # for the types only: predicting starts without pydantic
    from kerasmed.explain.config import ExplainConfig

# Images on which the explanations of two precisions are compared.
_COMPARED = 3


def _readable(paths: Iterable[Path], model: OnnxClassifier) -> Iterator[np.ndarray]:
    for path in paths:
        with suppress(DataError, MachineError):
            yield from (pixels for _, pixels in model.read_all(path))


def explain_files(
    model: Path,
    images: list[Path],
    settings: "ExplainConfig",
    seed: int,
    folder: Path,
    provider: str = "auto",
    precision: Literal["given", "auto"] = "given",
    grey_range: tuple[float, float] | None = None,
    find_trained: Callable[[Path], Path] = lambda path: path.with_suffix(".keras"),
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Write an overlay and its record for each image, and yield them as they come.

    Where names are alike, overlays bear the file's ending or folders too, and those of slices and
    frames their number.

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
        grey_range: see ``OnnxClassifier``.
        find_trained: where the Keras model of a file would lie, which CAM needs.

    Raises:
        InputError: no image, or an image that an overlay would overwrite.
    """
    from kerasmed.explain.network import NetworkExplainer, picture_path
    from kerasmed.explain.segments import segment_image

    images = [path for path in dict.fromkeys(images) if not _is_overlay(path, folder)]
    if not images:
        raise InputError("Images: expected at least one path, received none; name some.")
    stems = _distinct_stems(images, settings.explainers)
    pictures = [picture_path(folder, stem, name) for stem in stems for name in settings.explainers]
    _refuse_overwriting(images, pictures, folder)
    engine = OnnxClassifier(model, provider, grey_range=grey_range)
    if precision == "auto":
        engine = _faithful_engine(engine, provider, images, settings, seed)
    with (
        NetworkExplainer(engine, find_trained(engine.path), settings, seed) as network,
        progress_bar("Explaining", len(images), "images") as advance,
    ):
        for path, stem in zip(images, stems, strict=True):
            try:
                for part, image in engine.read_all(path):
                    segments = segment_image(image, settings.segmentation, settings.superpixels)
                    name = slice_name(path, part)
                    notes = {"image": Path(name).name, "model": engine.path.name}
                    own = stem if name == str(path) else _of_slice(stem, part)
                    records = network.explain_into(folder, own, image, segments, notes)
                    for record in records.values():
                        yield folder / record["picture"], record
            except (DataError, MachineError) as error:
                yield path, {"error": str(error)}
            advance(1, "")


def _refuse_overwriting(images: list[Path], pictures: list[Path], folder: Path) -> None:
    written = {path.resolve() for path in pictures}
    written |= {path.with_suffix(".json") for path in written}
    if overwritten := [path for path in images if path.resolve() in written]:
        raise InputError(
            f"--out {folder}: expected a folder without the images, received {overwritten[0]}, "
            "which its overlay would overwrite; choose another."
        )


def _distinct_stems(paths: list[Path], explainers: Sequence[str]) -> list[str]:
    """A name for the overlays of each path, with as many folders as tell all of them apart.

    Raises:
        InputError: names that stay alike with all of their folders.
    """
    from kerasmed.explain.network import picture_path

    names = [_overlay_name(path, 0, False) for path in paths]
    deepest = max(len(path.absolute().parts) for path in paths)
    # First the ending, then one folder more, and so on.
    for step in range(1, 2 * deepest + 2):
        overlays = [[picture_path(Path(), name, e).name for e in explainers] for name in names]
        counts = Counter(chain.from_iterable(overlays))
        alike = [any(counts[overlay] > 1 for overlay in own) for own in overlays]
        if not any(alike):
            return names
        names = [
            _overlay_name(path, step // 2, step % 2 == 1) if is_alike else name
            for path, name, is_alike in zip(paths, names, alike, strict=True)
        ]
    raise InputError(
        f"Images: expected names that tell their overlays apart, received several like {names[0]}; "
        "explain them into different --out folders."
    )


def _overlay_name(path: Path, depth: int, with_ending: bool) -> str:
    """The file's name, with or without its ending, behind so many of its folders."""
    file, number = split_name(path)
    folders = file.absolute().parts[1:-1]
    name = file.name if with_ending else stem_of(file)
    return "-".join([*folders[max(0, len(folders) - depth) :], _of_slice(name, number)])


def _of_slice(name: str, number: int | None) -> str:
    return name if number is None else f"{name}#{number}"


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
    engine: OnnxClassifier, provider: str, paths: list[Path], settings: "ExplainConfig", seed: int
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
