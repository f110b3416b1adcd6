"""Explanations of image files by a single ONNX file."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kerasmed.data.image_file import numbered_name
from kerasmed.data.readers import split_name, stem_of
from kerasmed.errors import DataError, InputError, MachineError
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.predict import slice_name
from kerasmed.progress import progress_bar, say

if TYPE_CHECKING:  # so that this module imports neither pydantic nor SciPy before they are needed
    from kerasmed.explain.config import ExplainConfig
    from kerasmed.explain.network import NetworkExplainer

# Images on which the explanations of two precisions are compared.
_COMPARED = 3


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
    """Write an overlay and its record for each image.

    An overlay is named like its image, for slices and frames with their number. Where names would
    collide, the file's ending and its folders are added. Overlays that an earlier run wrote are
    kept if image, file and settings are the same. If they are among the images, they are left out.

    Args:
        model: the classifier file.
        images: image files.
        settings: how they are explained.
        seed: seed of the masks.
        folder: folder of the overlays.
        provider: see ``OnnxClassifier``.
        precision: "auto" uses the int8 or fp16 file next to ``model`` if this machine runs it
            faster and it explains like the float32 one.
        grey_range: see ``OnnxClassifier``.
        find_trained: gives the path of a file's Keras network, which CAM needs.

    Yields:
        The path of each overlay and its record, one after the other. For a file that cannot be
        read: its path and a record with only the ``error``.

    Raises:
        InputError: no image, or an image that an overlay would overwrite.
    """
    from kerasmed.explain.network import NetworkExplainer, picture_path

    images = [path for path in dict.fromkeys(images) if not _is_overlay(path, folder)]
    if not images:
        raise InputError("Images: expected at least one path, received none; name some.")
    stems = _distinct_stems(images, settings.explainers)
    pictures = [picture_path(folder, stem, name) for stem in stems for name in settings.explainers]
    _refuse_overwriting(images, pictures, folder)
    engine = OnnxClassifier(model, provider, grey_range=grey_range)
    if precision == "auto":
        engine = _faster_engine(engine, provider, images, settings, seed)
    with (
        NetworkExplainer(engine, find_trained(engine.path), settings, seed) as network,
        progress_bar("Explaining", len(images), "images") as advance,
    ):
        for path, stem in zip(images, stems, strict=True):
            try:
                for record in _explain_file(network, path, stem, folder):
                    yield folder / record["picture"], record
            except (DataError, MachineError) as error:
                yield path, {"error": str(error)}
            advance(1, "")


def _explain_file(
    network: "NetworkExplainer", path: Path, stem: str, folder: Path
) -> Iterator[dict[str, Any]]:
    """The records of all images of a file, by every explainer."""
    from kerasmed.explain.segments import segment_image

    engine, settings = network.engine, network.settings
    for frame, image in engine.read_all(path):
        segments = segment_image(image, settings.segmentation, settings.superpixels)
        name = slice_name(path, frame)
        notes = {"image": Path(name).name, "model": engine.path.name}
        image_stem = stem if name == str(path) else numbered_name(stem, frame)
        yield from network.explain_into(folder, image_stem, image, segments, notes).values()


def _refuse_overwriting(images: list[Path], pictures: list[Path], folder: Path) -> None:
    written = {path.resolve() for path in pictures}
    written |= {path.with_suffix(".json") for path in written}
    if overwritten := [path for path in images if path.resolve() in written]:
        raise InputError(
            f"--out {folder}: expected a folder without the images, received {overwritten[0]}, "
            "which its overlay would overwrite; choose another."
        )


def _distinct_stems(paths: list[Path], explainers: Sequence[str]) -> list[str]:
    """A stem for the overlays of each path, with as many folders as make all of them distinct.

    Raises:
        InputError: stems that collide even with all of their folders.
    """
    from kerasmed.explain.network import picture_path

    stems = [_overlay_stem(path, 0, False) for path in paths]
    deepest = max(len(path.absolute().parts) for path in paths)
    # First with the ending, then with one folder, then with both, and so on.
    for step in range(1, 2 * deepest + 2):
        overlays = [[picture_path(Path(), stem, e).name for e in explainers] for stem in stems]
        counts = Counter(chain.from_iterable(overlays))
        collides = [any(counts[name] > 1 for name in names) for names in overlays]
        if not any(collides):
            return stems
        stems = [
            _overlay_stem(path, step // 2, step % 2 == 1) if collided else stem
            for path, stem, collided in zip(paths, stems, collides, strict=True)
        ]
    raise InputError(
        f"Images: expected different file names, received several like {stems[0]}, whose overlays "
        "would overwrite each other; use a different --out folder for each."
    )


def _overlay_stem(path: Path, depth: int, with_ending: bool) -> str:
    """The file's name, with or without its ending, after its last ``depth`` folders."""
    file, number = split_name(path)
    folders = file.absolute().parts[1:-1]
    name = file.name if with_ending else stem_of(file)
    return "-".join([*folders[max(0, len(folders) - depth) :], numbered_name(name, number)])


def _is_overlay(path: Path, folder: Path) -> bool:
    """Whether it is an overlay that an earlier run wrote into this folder."""
    if path.parent.resolve() != folder.resolve() or path.suffix != ".png":
        return False
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and "fingerprint" in record


def _faster_engine(
    engine: OnnxClassifier, provider: str, paths: list[Path], settings: "ExplainConfig", seed: int
) -> OnnxClassifier:
    """The faster file next to a float32 one if LIME gives the same with it on a few images."""
    from kerasmed.explain.network import SAME_EXPLANATION, agreement_of_precisions

    fast = OnnxClassifier(engine.path, provider, precision="auto")
    if fast.path == engine.path:
        return engine
    images = list(islice(_readable_images(paths, engine), _COMPARED))
    if not images:
        return engine
    correlation = agreement_of_precisions(
        np.stack(images), engine.predict, fast.predict, settings, seed
    )
    chosen = fast if correlation >= SAME_EXPLANATION else engine
    say(
        f"{fast.path.name} explains {len(images)} images with a rank correlation of "
        f"{correlation:.3f} to {engine.path.name} ({SAME_EXPLANATION} is needed): "
        f"{chosen.path.name} is used."
    )
    return chosen


def _readable_images(paths: Iterable[Path], engine: OnnxClassifier) -> Iterator[np.ndarray]:
    for path in paths:
        with suppress(DataError, MachineError):
            yield from (image for _, image in engine.read_all(path))
