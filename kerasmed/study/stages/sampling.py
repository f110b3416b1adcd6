"""The stage that draws the synthetic sets, alone or as one of several processes."""

import shutil
from typing import Any

from kerasmed.files import (
    read_json,
)
from kerasmed.progress import say
from kerasmed.study.config import Config
from kerasmed.study.inputs import read_synthetic, variants_of
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.synthetic_set import MANIFEST, SyntheticSet

_MADE_BY = "kerasmed sample CONFIG"


def draw_samples(config: Config, run: RunFolder) -> dict[str, Any]:
    """Draw what is missing of each synthetic set, and put it in the place of the one before."""
    drawn = {variant: _draw_set(config, run, variant) for variant in variants_of(config)}
    main = drawn.pop(None)
    for folder in run.variants.glob("*"):
        if folder.is_dir() and folder.name not in drawn:  # of settings of before
            shutil.rmtree(folder)
    return {**main, "variants": drawn}


def draw_shard(config: Config, run: RunFolder, index: int = 1, shards: int = 1) -> int:
    """Draw every ``shards``-th image from the ``index``-th on, those that are not there yet.

    Several processes may do so in one run folder at once; an image does not depend on which of them
    draws it. ``draw_samples`` then finds nothing missing and puts the set in its place. An image
    that is a copy of a training image is drawn again from another seed, and noted.

    Returns:
        How many images of all sets are still missing.

    Raises:
        StageError: a set was begun with other settings or another denoiser, or the denoiser draws
            nothing but copies.
    """
    sets = (SyntheticSet(config, run, variant) for variant in variants_of(config))
    return sum(each.draw(index, shards) for each in sets if not each.is_finished())


def _draw_set(config: Config, run: RunFolder, variant: str | None) -> dict[str, Any]:
    """Draw one set, unless it is there: its images by class, its hash, and how many were copies."""
    drawing = SyntheticSet(config, run, variant)
    if drawing.is_finished():
        say(f"{drawing.target} is there already.")
    else:
        drawing.draw()
        drawing.finish()
    images = read_synthetic(config, run, variant)
    rejected = read_json(drawing.target / MANIFEST, _MADE_BY)["rejected"]
    return {"images": images.counts(), "data_hash": images.data_hash, "rejected": len(rejected)}
