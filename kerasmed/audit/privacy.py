"""Whether the synthetic set holds copies, and whether the denoiser reveals its training images."""

import numpy as np
from typing_extensions import TypedDict

from kerasmed.data.image_set import ImageSet
from kerasmed.data.symmetry import all_versions
from kerasmed.diffusion.generate import Denoiser
from kerasmed.diffusion.reconstruction import TIMESTEPS, reconstruction_errors
from kerasmed.inference.pixels import PixelRange
from kerasmed.metrics.copies import Calibration, CopySearch, calibrate
from kerasmed.metrics.detection_power import DetectionPower, detection_power
from kerasmed.metrics.membership import Membership, membership_inference
from kerasmed.metrics.memorisation import Memorisation, comparison_pixels
from kerasmed.progress import progress_bar, say
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import NotComputed, Percentiles, Whole
from kerasmed.settings import Count, UnitInterval

# At most this many training images, and as many others, are tested for membership.
_MEMBERS = 500
_PAIRS = 8
# At most this many synthetic images are compared, after alignment, with reserve images too.
_ALIGNED = 300
_BATCH = 256


class ImagePair(TypedDict):
    """A synthetic image and the training image most similar to it."""

    synthetic: Whole
    """Position of the synthetic image in ``files``."""
    train: Whole
    """Position of the training image in ``files``."""
    similarity: float
    """Correlation of their details after alignment; about 1 for an exact copy."""


class Closer(TypedDict):
    """Whether synthetic images are more like training than like reserve images."""

    images: Count
    """Number of synthetic images compared."""
    fraction: UnitInterval
    """Fraction more like a training image; about one half without memorisation."""


class Copies(TypedDict):
    """Synthetic images that are copies of training images."""

    calibration: Calibration
    """How the threshold was found."""
    threshold: float
    """The similarity above which an image counts as a copy."""
    found: list[ImagePair]
    """The copies in the set."""
    fraction_of_train: UnitInterval
    """Fraction of the training images that are copied."""
    rejected: Whole | None
    """Number of copies that were drawn and left out; null if the sampling looked for none."""
    drawn: Count
    """Number of images that were drawn, with those left out."""
    similarity: Percentiles
    """5th, 50th and 95th percentile and maximum of the similarity to a training image."""
    nearest_pairs: list[ImagePair]
    """The most similar pairs, copies or not."""
    closer_to_train: Closer
    """Training images against reserve images."""
    power: list[DetectionPower]
    """How many planted copies the search finds, by alteration."""


class ComparedFiles(TypedDict):
    """Names of the compared images."""

    synthetic: list[str]
    """Paths in the folder of the synthetic set."""
    train: list[str]
    """Paths of the training images."""


class Privacy(TypedDict):
    """Copies and memorisation (``evaluation/privacy.json``)."""

    features_of: str
    """The CNN whose features are compared."""
    files: ComparedFiles
    """The images that positions refer to."""
    copies: Copies | NotComputed
    """The search for copies."""
    membership: Membership | NotComputed
    """Whether the denoiser reveals its training images."""
    in_pixels: Memorisation | NotComputed
    """Memorisation by distances of pixels, over flips and turns that change nothing."""
    in_features: Memorisation | NotComputed
    """Memorisation by distances of features."""


def search_copies(
    train: ImageSet,
    reserve: ImageSet,
    synthetic: ImageSet,
    calibration: Calibration | None,
    rejected: int | None,
    seed: int,
) -> Copies:
    """Synthetic images that are copies of training images, and the sensitivity of the search.

    Args:
        train: Training images of the diffusion model.
        reserve: Other real images.
        synthetic: The synthetic set.
        calibration: That of the sampling, see ``calibrate``. None if the sampling did not look for
            copies; the synthetic images then calibrate the search.
        rejected: Number of copies that the sampling left out; None if it did not look for any.
        seed: Seed of the choices.

    Raises:
        InputError: There are fewer than 20 reserve or synthetic images.
    """
    say("Looking for copies.")
    search = CopySearch(np.asarray(train.images))
    images = np.asarray(synthetic.images)
    calibration = calibration or calibrate(search, reserve.images, images, seed)
    threshold = calibration["threshold"]
    pairs, similarities = _nearest_pairs(search, images)
    copies = [pair for pair in pairs if pair["similarity"] > threshold]
    return {
        "calibration": calibration,
        "threshold": threshold,
        "found": copies,
        "fraction_of_train": len({pair["train"] for pair in copies}) / len(train),
        "rejected": rejected,
        "drawn": len(synthetic) + (rejected or 0),
        "similarity": np.percentile(similarities, [5, 50, 95, 100]).tolist(),
        "nearest_pairs": pairs[:_PAIRS],
        "closer_to_train": _closer_after_alignment(train, reserve, images, seed),
        "power": detection_power(search, np.asarray(train.images), threshold, len(synthetic), seed),
    }


def _nearest_pairs(search: CopySearch, images: np.ndarray) -> tuple[list[ImagePair], np.ndarray]:
    """Each image with its nearest training image, most similar first, and all similarities."""
    with progress_bar("Searching", len(images), "images") as advance:
        similarities, positions = search.nearest(images, lambda count: advance(count, ""))
    pairs: list[ImagePair] = [
        {
            "synthetic": int(i),
            "train": int(positions[i]),
            "similarity": float(similarities[i]),
        }
        for i in np.argsort(-similarities, kind="stable")
    ]
    return pairs, similarities


def _closer_after_alignment(
    train: ImageSet, reserve: ImageSet, synthetic: np.ndarray, seed: int
) -> Closer:
    """``fraction``, that of ``images`` that are more like a training than a reserve image.

    Equally many training and reserve images are compared, with at most 300 synthetic ones. About
    one half without memorisation.
    """
    rng, count = random_stream(seed, Purpose.COPY_ALIGNMENT), min(len(train), len(reserve))
    chosen = np.sort(rng.choice(len(synthetic), min(len(synthetic), _ALIGNED), False))
    images = synthetic[chosen]
    to_train, to_reserve = (
        CopySearch(real.images[np.sort(rng.choice(len(real), count, False))]).nearest(images)[0]
        for real in (train, reserve)
    )
    return {"images": len(images), "fraction": float((to_train > to_reserve).mean())}


def membership_of_training_images(
    denoiser: Denoiser,
    pixels: PixelRange,
    train: ImageSet,
    reserve: ImageSet,
    groups: dict[str, np.ndarray],
    seed: int,
) -> Membership:
    """How well the denoiser's errors tell its training images from others.

    Args:
        denoiser: Predicts clean images.
        pixels: The pixel range that it works in.
        train: Its training images.
        reserve: Other real images. At most 500 of either are used, in a random choice.
        groups: Groups of the sets ``train`` and ``reserve``, (n,).
        seed: Seed of the choices and the noise.

    Raises:
        InputError: There are fewer than 20 images of either, or fewer than five groups.
    """
    count = min(len(train), len(reserve), _MEMBERS)
    rng = random_stream(seed, Purpose.MEMBERSHIP_IMAGES)
    errors, chosen_groups = {}, {}
    with progress_bar("Membership-inference test", 2 * count, "images") as advance:
        for role, image_set in (("train", train), ("reserve", reserve)):
            chosen = np.sort(rng.choice(len(image_set), count, replace=False))
            chosen_groups[role] = groups[role][chosen]
            errors[role] = reconstruction_errors(
                denoiser,
                pixels,
                image_set.images[chosen],
                image_set.labels[chosen],
                seed,
                advance=lambda done: advance(done, ""),
            )
    return membership_inference(
        errors["train"],
        errors["reserve"],
        TIMESTEPS,
        chosen_groups["train"],
        chosen_groups["reserve"],
        seed=seed,
    )


def pixels_of_versions(images: np.ndarray, symmetry: str) -> np.ndarray:
    """Pixels of all symmetric versions of each image: float32 (n, versions, d).

    In batches: the full-sized versions of a large set would fill the memory.

    Args:
        images: uint8 (n, size, size, 3).
        symmetry: See ``all_versions``.
    """
    batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
    return np.concatenate([comparison_pixels(all_versions(batch, symmetry)) for batch in batches])
