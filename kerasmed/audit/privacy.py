"""Whether the synthetic set holds copies, and whether the denoiser reveals its training images."""

from collections.abc import Callable, Mapping
from typing import NotRequired

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.copy_search import Copies, CopyFilterRecord, search_copies
from kerasmed.data.image_set import ImageSet
from kerasmed.data.symmetry import all_versions
from kerasmed.diffusion.generate import Denoiser
from kerasmed.diffusion.reconstruction import TIMESTEPS, reconstruction_errors
from kerasmed.inference.pixels import PixelRange
from kerasmed.metrics.membership import Membership, membership_inference
from kerasmed.metrics.memorisation import Memorisation, comparison_pixels, memorisation
from kerasmed.metrics.sample_size import computed_or_reason
from kerasmed.progress import progress_bar
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import NotComputed
from kerasmed.settings import Count

# At most this many training images, and as many others, are tested for membership.
_MEMBERS = 500
# At most this many synthetic, and reserve, images are compared with all training images.
_COMPARED = 4000
# Pixels whose versions are compared at once: 256 images of 64 pixels.
_PIXELS_AT_ONCE = 256 * 64**2


class ComparedFiles(TypedDict):
    """Names of the compared images."""

    synthetic: list[str]
    """Paths in the folder of the synthetic set."""
    train: list[str]
    """Paths of the training images."""


class NotAsked(TypedDict):
    """Stands for a test that needs what is not at hand, such as the generator."""

    not_asked: str
    """Why it was left out."""


WITHOUT_GENERATOR: NotAsked = {
    "not_asked": "whether the generator reveals its training images takes its file."
}


class Privacy(TypedDict):
    """Copies and memorisation (``evaluation/privacy.json``)."""

    features_of: str
    """The network whose features are compared."""
    files: ComparedFiles
    """The images that positions refer to."""
    variations: NotRequired[str]
    """Why the images are close to training images by intent, if they are."""
    copies: Copies | NotComputed
    """The search for copies."""
    membership: Membership | NotComputed | NotAsked
    """Whether the denoiser reveals its training images."""
    base_size: NotRequired[Count]
    """Height and width of the images that the denoiser was asked about, where an upscaler enlarges
    what it draws. The upscaler itself was not asked."""
    in_pixels: Memorisation | NotComputed
    """Memorisation by distances of pixels, over flips and turns that change nothing."""
    in_features: Memorisation | NotComputed
    """Memorisation by distances of features."""


def measure_privacy(
    sets: dict[str, ImageSet],
    groups: Mapping[str, np.ndarray],
    files: ComparedFiles,
    space: tuple[str, dict[str, np.ndarray]],
    copy_filter: CopyFilterRecord | None,
    membership: Callable[[], Membership | NotAsked],
    symmetry: str,
    seed: int,
) -> Privacy:
    """Copies and memorisation of a synthetic set.

    Args:
        sets: ``train``, ``reserve`` and ``synthetic``, and further real images by their roles.
        groups: groups of the images of ``reserve``, and of ``test`` if it is there, (n,).
        files: names of the training and the synthetic images.
        space: a network's name, and its features of ``train``, ``reserve`` and ``synthetic``; no
            features if there is no network.
        copy_filter: what the filter of the sampling did, if there was one.
        membership: makes the membership-inference test.
        symmetry: see ``all_versions``.
        seed: seed of the choices.
    """
    train, reserve, synthetic = (sets[name] for name in ("train", "reserve", "synthetic"))
    others = {name: real for name, real in sets.items() if name in ("validation", "test")}
    name, features = space
    rng = random_stream(seed, Purpose.MEMORISATION_CHOICE)
    chosen = {
        of_set: np.sort(rng.permutation(len(sets[of_set]))[:_COMPARED])
        for of_set in ("reserve", "synthetic")
    }
    chosen["train"] = np.arange(len(train))

    def memorised(versions: Callable[[str], np.ndarray]) -> Memorisation | NotComputed:
        return computed_or_reason(
            lambda: memorisation(
                versions("train"),
                versions("reserve"),
                versions("synthetic"),
                seed,
                groups["reserve"][chosen["reserve"]],
            )
        )

    return {
        "features_of": name,
        "files": files,
        "copies": computed_or_reason(
            lambda: search_copies(train, reserve, synthetic, groups, others, copy_filter, seed)
        ),
        "membership": computed_or_reason(membership),
        "in_pixels": memorised(
            lambda of_set: pixels_of_versions(sets[of_set].images[chosen[of_set]], symmetry)
        ),
        "in_features": (
            memorised(lambda of_set: features[of_set][chosen[of_set], None])
            if features
            else {"not_computed": "no CNN was trained."}
        ),
    }


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
    at_once = max(1, _PIXELS_AT_ONCE // images.shape[1] ** 2)
    batches = (images[start : start + at_once] for start in range(0, len(images), at_once))
    return np.concatenate([comparison_pixels(all_versions(batch, symmetry)) for batch in batches])
