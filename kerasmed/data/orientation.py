"""Which flips and turns of a set's images a small classifier distinguishes from the images."""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kerasmed.data.grey import grey_levels
from kerasmed.data.image_set import ImageSet
from kerasmed.random_streams import Purpose, random_stream

_MOST_IMAGES = 2000
_LEAST_GROUPS = 100
_FOLDS = 5
# Pixels along an edge of what the classifier sees.
_EDGE = 8
# Accuracy that the upper end of the 95% interval must not exceed; 0.5 is chance.
_NEAR_CHANCE = 0.65

_CHANGES = {
    "mirrored": lambda images: images[:, :, ::-1],
    "upside down": lambda images: images[:, ::-1],
    "turned by a quarter": lambda images: np.rot90(images, axes=(1, 2)),
}


@dataclass(frozen=True)
class Orientation:
    """How well changed images are distinguished from the images of a set.

    Attributes:
        symmetry: the largest symmetry whose changes are all near chance: "none", "mirror" or
            "dihedral", as for ``data.symmetry``.
        accuracy: by change, 0.5 being chance; empty if the set has too few groups to say.
    """

    symmetry: str
    accuracy: dict[str, float]


def measure_orientation(images: ImageSet, groups: np.ndarray) -> Orientation:
    """Whether mirrored, upturned and turned images look like those of the set.

    A logistic regression on 8 x 8 grey pixels distinguishes images from their changed versions,
    in cross-validation by group. The outer eighth is left out, where scale bars and markers are. It
    cannot see what is rare or small, so its answer is a suggestion.

    Args:
        images: the set, of a size that is a multiple of 32.
        groups: (n,), equal for images that belong together.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> pixels = np.random.default_rng(0).integers(0, 256, (400, 32, 32), np.uint8)
        >>> pixels[:, :, :16] //= 2  # the left half is darker
        >>> images = km.ImageSet.from_arrays(pixels, ["benign", "malignant"] * 200)
        >>> measure_orientation(images, np.arange(400)).symmetry
        'none'
    """
    rows = random_stream(0, Purpose.ORIENTATION).permutation(len(images))[:_MOST_IMAGES]
    rows, groups = np.sort(rows), np.asarray(groups)
    count = len(np.unique(groups[rows]))
    if count < _LEAST_GROUPS:
        return Orientation("none", {})
    small = _small(images.images[rows])
    accuracy = {
        name: _accuracy(small, change(small), groups[rows]) for name, change in _CHANGES.items()
    }
    near_chance = [
        value + 1.96 * (value * (1 - value) / count) ** 0.5 <= _NEAR_CHANCE
        for value in accuracy.values()
    ]
    symmetry = "dihedral" if all(near_chance) else "mirror" if near_chance[0] else "none"
    return Orientation(symmetry, accuracy)


def _small(images: np.ndarray) -> np.ndarray:
    """The middle of each image in grey, of mean 0 and deviation 1: float32 (n, 8, 8)."""
    margin = images.shape[1] // 8
    # Brightness only: the coarser colours of JPEG files are shifted by half a pixel.
    grey = grey_levels(images[:, margin:-margin, margin:-margin])
    block = grey.shape[1] // _EDGE
    small = grey.reshape(-1, _EDGE, block, _EDGE, block).mean(axis=(2, 4))
    small -= small.mean(axis=(1, 2), keepdims=True)
    return small / (small.std(axis=(1, 2), keepdims=True) + 1)


def _accuracy(images: np.ndarray, changed: np.ndarray, groups: np.ndarray) -> float:
    """Accuracy of distinguishing the two, each of n images."""
    pixels = np.concatenate([images, changed]).reshape(2 * len(images), -1)
    labels = np.repeat([0, 1], len(images))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    folds = GroupKFold(_FOLDS)
    scores = cross_val_score(classifier, pixels, labels, groups=np.tile(groups, 2), cv=folds)
    return float(scores.mean())
