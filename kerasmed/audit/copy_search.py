"""The search for copies of training images in a synthetic set, and what it would notice."""

from bisect import bisect_left
from collections.abc import Mapping
from math import ceil
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.stats import binom, fisher_exact
from typing_extensions import TypedDict

from kerasmed.data.image_set import ImageSet
from kerasmed.metrics.copies import Calibration
from kerasmed.metrics.copy_detector import CopyDetector, compared_groups, identical_images
from kerasmed.metrics.detection_power import DetectionPower, detection_power
from kerasmed.metrics.sample_size import require_images
from kerasmed.metrics.statistics import SIGNIFICANT, design_effect
from kerasmed.progress import progress_bar
from kerasmed.result_types import NotNegative, Whole
from kerasmed.settings import Count, UnitInterval

_PAIRS = 8
FRACTIONS = (0.001, 0.01, 0.05)  # of a set that are copies, for the chance to notice them


class ImagePair(TypedDict):
    """A synthetic image and its nearest training image."""

    synthetic: Whole
    """Position of the synthetic image in ``files``."""
    train: Whole
    """Position of the training image in ``files``."""
    ratio: NotNegative
    """Distance between them, over that to the nearest other real image; low for a copy."""


class CopyFilterRecord(TypedDict):
    """What the copy filter of the sampling did."""

    calibration: Calibration
    """How its threshold was found."""
    drawn: Count
    """Number of images that were drawn, with those left out."""
    rejected: Whole
    """Number of them that were copies by this filter, and were left out."""


class FreshImages(TypedDict):
    """Real images that the generator was not trained on, judged as synthetic ones are.

    They are half of the reserve, and the test images.
    """

    images: Count
    """Number of images."""
    copies: Whole
    """How many of them are called copies."""
    design_effect: Annotated[float, Field(ge=1)]
    """How many of them say as much as one independent image: slices of one patient are called
    copies together."""


class Copies(TypedDict):
    """Synthetic images that are copies of training images."""

    filter: CopyFilterRecord | None
    """The copy filter; null if the set was drawn without one, or by another program."""
    images: Count
    """Number of synthetic images that were searched."""
    threshold: NotNegative
    """The ratio below which an image counts as a copy."""
    found: list[ImagePair]
    """The copies in the set."""
    identical: dict[str, list[Whole]]
    """Positions of the synthetic images that have the pixels of a real one, also flipped or turned,
    by role."""
    fresh: FreshImages
    """The same search over real images."""
    p_value: UnitInterval
    """Fisher's exact test: copies are no more frequent than among the real images, whose numbers
    are divided by their design effect."""
    fraction_of_train: UnitInterval
    """Fraction of the training images that are copied."""
    nearest_pairs: list[ImagePair]
    """The pairs of the lowest ratios, copies or not."""
    power: list[DetectionPower]
    """How many planted copies the search finds, by alteration."""
    noticed: dict[str, UnitInterval]
    """For each fraction of a set that could be copies: the chance that the test notices, under the
    alteration that hides them best."""


def search_copies(
    train: ImageSet,
    reserve: ImageSet,
    synthetic: ImageSet,
    groups: Mapping[str, np.ndarray],
    others: dict[str, ImageSet],
    copy_filter: CopyFilterRecord | None,
    seed: int,
) -> Copies:
    """Synthetic images that are copies of training images, and the sensitivity of the search.

    Args:
        train: training images of the generator.
        reserve: other real images.
        synthetic: the synthetic set.
        groups: groups of the images of `reserve`, and of `test` if it is there, (n,).
        others: sets of further real images, by role, in which the very pixels are looked for. Those
            of `test` are searched like synthetic ones, too.
        copy_filter: what the filter of the sampling did; it changes nothing here.
        seed: seed of the choices.

    Raises:
        InputError: there are fewer than 20 training, reserve or synthetic images, or fewer than
            five groups of reserve images.
    """
    require_images("Copies", {"synthetic images": len(synthetic)})
    images, of_train = np.asarray(synthetic.images), np.asarray(train.images)
    test = np.asarray(others["test"].images) if "test" in others else of_train[:0]
    total = len(train) + len(reserve) + len(synthetic) + len(test)
    with progress_bar("Searching for copies", total, "images") as show:

        def advance(count: int) -> None:
            show(count, "")

        detector = CopyDetector.of_images(
            of_train, np.asarray(reserve.images), groups["reserve"], seed, advance
        )
        is_fresh = ~compared_groups(groups["reserve"], len(train), seed)
        of_fresh, fresh_groups = [detector.fresh], [groups["reserve"][is_fresh]]
        ratios, positions = detector.score(images, advance)
        if len(test):
            of_fresh.append(detector.score(test, advance).ratios)
            fresh_groups.append(groups["test"])
    pairs: list[ImagePair] = [
        {"synthetic": int(i), "train": int(positions[i]), "ratio": float(ratios[i])}
        for i in np.argsort(ratios, kind="stable")
    ]
    copies = [pair for pair in pairs if pair["ratio"] < detector.threshold]
    fresh = fresh_images(
        np.concatenate(of_fresh) < detector.threshold, np.concatenate(fresh_groups)
    )
    power = detection_power(detector, of_train, seed)
    worst = min(row["found"] for row in power)
    return {
        "filter": copy_filter,
        "images": len(synthetic),
        "threshold": detector.threshold,
        "found": copies,
        "identical": {
            role: identical_images(np.asarray(real.images), images)
            for role, real in {"train": train, "reserve": reserve, **others}.items()
        },
        "fresh": fresh,
        "p_value": more_copies_than(fresh, len(copies), len(synthetic)),
        "fraction_of_train": len({pair["train"] for pair in copies}) / len(train),
        "nearest_pairs": pairs[:_PAIRS],
        "power": power,
        "noticed": {
            f"{fraction:g}": chance_to_notice(fresh, fraction, len(synthetic), worst)
            for fraction in FRACTIONS
        },
    }


def fresh_images(is_copy: np.ndarray, groups: np.ndarray) -> FreshImages:
    """What the search says of real images, from what it calls each, (n,), and their groups."""
    return {
        "images": len(is_copy),
        "copies": int(is_copy.sum()),
        "design_effect": design_effect(is_copy, groups),
    }


def independent_images(fresh: FreshImages) -> int:
    """How many independent images the real ones count as."""
    return ceil(fresh["images"] / fresh["design_effect"])


def more_copies_than(fresh: FreshImages, copies: int, images: int) -> float:
    """P value of so many copies among synthetic images, where real ones have theirs by chance."""
    of_fresh = ceil(fresh["copies"] / fresh["design_effect"])
    table = [[copies, images - copies], [of_fresh, independent_images(fresh) - of_fresh]]
    return float(fisher_exact(table, alternative="greater").pvalue)


def chance_to_notice(fresh: FreshImages, fraction: float, images: int, sensitivity: float) -> float:
    """How often the test would notice that a fraction of a set are copies.

    Args:
        fresh: what the search finds among real images.
        fraction: of the set that are copies.
        images: number of images of the set.
        sensitivity: fraction of copies that the search finds.
    """
    planted = max(1, round(fraction * images))
    enough = bisect_left(
        range(planted + 1),
        True,
        key=lambda found: more_copies_than(fresh, found, images) < SIGNIFICANT,
    )
    return float(binom(planted, sensitivity).sf(enough - 1))


def images_to_notice(
    fresh: FreshImages,
    fraction: float,
    images: int,
    sensitivity: float,
    wanted: float,
    grow: tuple[bool, bool],
) -> tuple[int, int] | None:
    """How many images the test would need to notice such a fraction often enough.

    Args:
        fresh, fraction, images, sensitivity: see ``chance_to_notice``. More real images are taken
            to be called copies as often as these.
        wanted: how often it is to notice.
        grow: whether there may be more real images, and more synthetic ones.

    Returns:
        Numbers of real and of synthetic images, a tenth too large at most; None if not even thirty
        times as many suffice.
    """

    def enlarged(times: float) -> tuple[FreshImages, int]:
        of_real, of_synthetic = (times if may_grow else 1.0 for may_grow in grow)
        more: FreshImages = {
            "images": round(of_real * fresh["images"]),
            "copies": round(of_real * fresh["copies"]),
            "design_effect": fresh["design_effect"],
        }
        return more, round(of_synthetic * images)

    def is_enough(times: float) -> bool:
        more, count = enlarged(times)
        return chance_to_notice(more, fraction, count, sensitivity) >= wanted

    sizes = 1.1 ** np.arange(37)
    enough = bisect_left(sizes, True, key=is_enough)
    if enough == len(sizes):
        return None
    more, count = enlarged(sizes[enough])
    return more["images"], count
