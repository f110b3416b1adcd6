"""The stage that draws the synthetic sets, in one process or several, or takes one over."""

import shutil

from typing_extensions import TypedDict

from kerasmed.files import read_json
from kerasmed.progress import say
from kerasmed.result_types import Sha256, Whole
from kerasmed.settings import Count
from kerasmed.study.config import Config
from kerasmed.study.foreign_set import take_over
from kerasmed.study.inputs import read_synthetic, variants_of
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.synthetic_set import MANIFEST, SyntheticSet

_MADE_BY = "kerasmed sample CONFIG"


class DrawnSet(TypedDict):
    """One synthetic set."""

    images: dict[str, Count]
    """Number of images of each class."""
    data_hash: Sha256
    """Hash of all images and classes."""
    rejected: Whole
    """Number of draws that were left out: copies, or not confirmed."""


class SamplingResult(DrawnSet):
    """What ``run.json`` records of the main synthetic set, and of the others."""

    variants: dict[str, DrawnSet]
    """The further sets, by name."""


def draw_samples(config: Config, run: RunFolder) -> SamplingResult:
    """Draw the missing images of each synthetic set, and replace the previous sets.

    With ``sampling.source``, the set in that folder is taken over instead.
    """
    main = _draw_set(config, run, None)
    names = [variant for variant in variants_of(config) if variant is not None]
    drawn = {variant: _draw_set(config, run, variant) for variant in names}
    for folder in run.variants.glob("*"):
        if folder.is_dir() and folder.name not in drawn:  # from earlier settings
            shutil.rmtree(folder)
    return {**main, "variants": drawn}


def draw_shard(config: Config, run: RunFolder, index: int = 1, shards: int = 1) -> int:
    """Draw every ``shards``-th image from the ``index``-th on that is not drawn yet.

    Several processes can do so in one run folder at the same time; an image does not depend on the
    process that draws it. ``draw_samples`` then finds no image missing and completes the sets. A
    copy of a training image is noted and drawn again from another seed.

    Returns:
        How many images of all sets are still missing.

    Raises:
        StageError: a set was begun with other settings or another denoiser, or the denoiser draws
            only copies.
    """
    if config.sampling.source is not None:
        return 0  # nothing is drawn
    sets = (SyntheticSet(config, run, variant) for variant in variants_of(config))
    return sum(drawing.draw(index, shards) for drawing in sets if not drawing.is_finished())


def _draw_set(config: Config, run: RunFolder, variant: str | None) -> DrawnSet:
    """Draw one set if needed; returns its images by class, its hash and the number of copies."""
    if config.sampling.source is not None:
        images = take_over(config, config.sampling.source, run)
        return {"images": images.counts(), "data_hash": images.data_hash, "rejected": 0}
    drawing = SyntheticSet(config, run, variant)
    if drawing.is_finished():
        say(f"{drawing.target} already exists.")
    else:
        drawing.draw()
        drawing.finish()
    images = read_synthetic(config, run, variant)
    rejected = read_json(drawing.target / MANIFEST, _MADE_BY)["rejected"]
    return {"images": images.counts(), "data_hash": images.data_hash, "rejected": len(rejected)}
