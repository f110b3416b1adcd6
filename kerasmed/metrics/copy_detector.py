"""Which images of a set are copies of training images, by comparison with other real images."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter
from skimage.feature import hog

from kerasmed.data.symmetry import all_versions
from kerasmed.metrics.sample_size import require_groups, require_images
from kerasmed.random_streams import Purpose, random_stream

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BLOCKS = 8  # along an edge, each with a histogram
_DIRECTIONS = 9
_DEVIATIONS = 5.0  # from the median of real images to the threshold
_BATCH = 128
# An image is also compared shifted (by this fraction of its width), rotated (degrees) and zoomed.
_SHIFT, _ANGLE, _ZOOM = 1 / 32, 5.0, 0.07


class Scores(NamedTuple):
    """How much nearer images are to a training image than to other real images.

    Attributes:
        ratios: float (n,), the distance to the nearest training image over that to the nearest of
            the other real images: about 1 for a new image, low for a copy.
        positions: int (n,), the nearest training image.
    """

    ratios: np.ndarray
    positions: np.ndarray


def gradient_features(images: np.ndarray) -> np.ndarray:
    """Histograms of gradient directions in 8 by 8 blocks, normalised over 2 by 2 of them.

    Dalal and Triggs (CVPR 2005), by scikit-image, after a blur by a 64th of the width. They hardly
    change with brightness, contrast, compression, blur and noise.

    Args:
        images: grey, float32 (n, size, size), 16 pixels or more.

    Returns:
        float32 (n, 1764).
    """
    size = images.shape[1]
    block = size // _BLOCKS
    inside = slice(block * _BLOCKS)
    blurred = gaussian_filter(images, (0, size / 64, size / 64))[:, inside, inside]
    features = [hog(image, _DIRECTIONS, (block, block), (2, 2)) for image in blurred]
    return np.array(features, np.float32)


def features_of_flips(images: np.ndarray) -> np.ndarray:
    """Features of the eight flips and turns of images, uint8 (n, size, size, 3): (n, 8, d)."""
    return _features_of_versions(all_versions(images, "dihedral") @ _LUMA)


def features_of_moves(images: np.ndarray) -> np.ndarray:
    """Features of images, and of them shifted, rotated and zoomed a little: (n, 13, d).

    Args:
        images: uint8 (n, size, size, 3).
    """
    grey = images @ _LUMA
    size = grey.shape[1]
    centre, shift = np.full(2, (size - 1) / 2), _SHIFT * size
    moves = [(np.eye(2), np.array([down, right])) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    for angle in np.deg2rad([-_ANGLE, _ANGLE]):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        moves.append((turn, np.zeros(2)))
    moves += [(np.eye(2) * zoom, np.zeros(2)) for zoom in (1 - _ZOOM, 1 / (1 - _ZOOM))]

    def move(image: np.ndarray, matrix: np.ndarray, by: np.ndarray) -> np.ndarray:
        offset = centre - matrix @ centre + shift * by
        return affine_transform(image, matrix, offset, order=1, mode="nearest")

    versions = [[move(image, *how) for how in moves] for image in grey]
    return _features_of_versions(np.array(versions, np.float32))


def _features_of_versions(versions: np.ndarray) -> np.ndarray:
    count, each, *shape = versions.shape
    return gradient_features(versions.reshape(-1, *shape)).reshape(count, each, -1)


class CopyDetector:
    """Finds copies of training images without any choice that the copy filter made.

    An image is a copy if its nearest training image is much nearer than its nearest other real
    image. The distance is 1 less the correlation of histograms of gradients, over all flips and
    turns, and over small shifts, rotations and zooms. How much nearer is set by real images that
    the generator was not trained on: five deviations below their median, on a logarithmic scale.

    Args:
        train: features of the generator's training images, see ``features_of_flips``.
        others: features of other real images.
        fresh: features of further real images, which set the threshold, in batches; see
            ``features_of_moves``.

    Attributes:
        threshold: images with a lower ratio are copies.
        fresh: float (k,), ratios of the images that set it.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> rng = np.random.default_rng(0)
        >>> train, reserve, other = rng.integers(0, 256, (3, 40, 16, 16, 3), np.uint8)
        >>> find = km.metrics.copy_detector.CopyDetector.of_images
        >>> detector = find(train, reserve, np.arange(40), seed=0)
        >>> copies = np.concatenate([other[:3], train[:2, :, ::-1]])
        >>> detector.score(copies).ratios < detector.threshold
        array([False, False, False,  True,  True])
    """

    def __init__(self, train: np.ndarray, others: np.ndarray, fresh: Iterable[np.ndarray]):
        width = train.shape[-1]
        self._mean = (train.mean(axis=(0, 1)) + others.mean(axis=(0, 1))) / 2
        self._train, self._others = (
            self._unit(features).reshape(-1, width) for features in (train, others)
        )
        self.fresh = np.concatenate([self.compare(features).ratios for features in fresh])
        median, high = np.percentile(np.log(self.fresh), [50, 84])
        self.threshold = float(np.exp(median - _DEVIATIONS * (high - median)))

    @classmethod
    def of_images(
        cls,
        train: np.ndarray,
        reserve: np.ndarray,
        groups: np.ndarray,
        seed: int,
        advance: Callable[[int], None] = lambda _: None,
    ) -> "CopyDetector":
        """A detector that compares images with half of the reserve, or less.

        Half of the reserve images, by groups, are what images are compared with, or as many as
        there are training images. The rest sets the threshold, and shows how often a new image is
        called a copy.

        Args:
            train: training images of the generator, uint8 (n, size, size, 3).
            reserve: other real images, uint8 (m, size, size, 3).
            groups: (m,), equal for reserve images of one group.
            seed: seed of the choice.
            advance: called with the number of images done since the last call.

        Raises:
            InputError: there are fewer than 20 images of either kind, or fewer than five groups.
        """
        counts = {"training images": len(train), "reserve images": len(reserve)}
        require_images("Copies", counts)
        is_compared = compared_groups(groups, len(train), seed)
        of_train, of_others = (
            np.concatenate(list(_in_batches(features_of_flips, images, advance)))
            for images in (train, reserve[is_compared])
        )
        fresh = _in_batches(features_of_moves, reserve[~is_compared], advance)
        return cls(of_train, of_others, fresh)

    def score(self, images: np.ndarray, advance: Callable[[int], None] = lambda _: None) -> Scores:
        """Compare images with the training images and the other real images.

        Args:
            images: uint8 (n, size, size, 3).
            advance: called with the number of images done since the last call.
        """
        scores = [self.compare(f) for f in _in_batches(features_of_moves, images, advance)]
        return Scores(*map(np.concatenate, zip(*scores, strict=True)))

    def compare(self, features: np.ndarray) -> Scores:
        """As ``score``, of features (n, versions, d) instead of images."""
        versions = self._unit(features).reshape(-1, features.shape[-1])
        to_train, nearest = _distances(versions, self._train, len(features))
        to_others, _ = _distances(versions, self._others, len(features))
        return Scores(to_train / to_others, nearest)

    def _unit(self, features: np.ndarray) -> np.ndarray:
        centred = features - self._mean
        return centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-6)


def identical_images(real: np.ndarray, synthetic: np.ndarray) -> int:
    """Number of synthetic images with the pixels of a real one, also flipped or turned.

    Args:
        real: uint8 (n, size, size, 3).
        synthetic: uint8 (m, size, size, 3).
    """
    known = {
        hash(version.tobytes())
        for image in real
        for version in all_versions(image[None], "dihedral")[0]
    }
    return sum(hash(image.tobytes()) in known for image in synthetic)


def compared_groups(groups: np.ndarray, num_train: int, seed: int) -> np.ndarray:
    """Which reserve images others are compared with: bool (m,), equal within a group.

    Raises:
        InputError: there are fewer than five groups.
    """
    names, group_of_image = np.unique(groups, return_inverse=True)
    require_groups("Copies", {"reserve images": len(names)})
    order = random_stream(seed, Purpose.COPY_DETECTOR).permutation(len(names))
    sizes = np.bincount(group_of_image)[order].cumsum()
    wanted = min(num_train, len(groups) / 2)
    last = min(int(np.searchsorted(sizes, wanted)), len(names) - 2)
    return np.argsort(order)[group_of_image] <= last


def _distances(
    versions: np.ndarray, references: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Least distance of any version of each of so many images, and the position it is to."""
    correlations = (versions @ references.T).reshape(count, -1, len(references)).max(axis=1)
    # Copies and originals differ by rounding, at least.
    return np.maximum(1 - correlations.max(axis=1), 1e-5), correlations.argmax(axis=1) // 8


def _in_batches(
    features_of: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    advance: Callable[[int], None],
) -> Iterator[np.ndarray]:
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        yield features_of(batch)
        advance(len(batch))
