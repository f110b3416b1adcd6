"""Flips and quarter turns that leave an image a valid image of its class."""

import numpy as np

from kerasmed.errors import InputError

SYMMETRIES = ("none", "mirror", "dihedral")


def check_symmetry(symmetry: str) -> str:
    """The given symmetry.

    Raises:
        InputError: none of SYMMETRIES.
    """
    if symmetry not in SYMMETRIES:
        raise InputError(
            f"symmetry: expected one of {', '.join(SYMMETRIES)}, received {symmetry!r}; correct it."
        )
    return symmetry


def transform_at_random(image: np.ndarray, symmetry: str, rng: np.random.Generator) -> np.ndarray:
    """A symmetric version of an image, drawn with equal probability.

    Args:
        image: (height, width, channels), height equal to width for "dihedral".
        symmetry: "none", "mirror" (left to right) or "dihedral" (all eight flips and turns).
        rng: source of the choice.

    Returns:
        The same dtype and shape, contiguous.
    """
    if symmetry != "none" and rng.random() < 0.5:
        image = image[:, ::-1]
    if symmetry == "dihedral":
        image = np.rot90(image, int(rng.integers(4)))
    return np.ascontiguousarray(image)


def all_versions(images: np.ndarray, symmetry: str) -> np.ndarray:
    """Every symmetric version of each image, the unchanged one first.

    Args:
        images: (n, height, width, channels).
        symmetry: as for ``transform_at_random``.

    Returns:
        (n, versions, height, width, channels); 1, 2 or 8 versions.
    """
    flipped = [images] if symmetry == "none" else [images, images[:, :, ::-1]]
    turns = range(4) if symmetry == "dihedral" else range(1)
    versions = [np.rot90(version, turn, axes=(1, 2)) for version in flipped for turn in turns]
    return np.stack(versions, axis=1)
