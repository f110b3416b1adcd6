"""Which images of a set are copies of training images, by comparison with other real images."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.linalg import eigh
from scipy.ndimage import affine_transform, gaussian_filter

from kerasmed.data.grey import grey_levels
from kerasmed.data.symmetry import all_versions
from kerasmed.metrics.sample_size import require_groups, require_images
from kerasmed.random_streams import Purpose, random_stream

_BLOCKS = 8  # along an edge, each with a histogram
_DIRECTIONS = 9
_CLIPPED = 0.2  # most that a direction counts in a normalised histogram
_DEVIATIONS = 5.0  # from the median of real images to the threshold
_BATCH = 128
_AT_ONCE = 64
_SEARCHED_AT_ONCE = 16
_FOR_AXES = 4000  # images that the principal axes are of
_AXES, _CANDIDATES = 256, 128
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

    Dalal and Triggs (CVPR 2005), as ``skimage.feature.hog`` has them but for all images at once,
    after a blur by a 64th of the width. They hardly change with brightness, contrast, compression,
    blur and noise.

    Args:
        images: grey, float32 (n, size, size), 16 pixels or more.

    Returns:
        float32 (n, 1764).
    """
    count, size, _ = images.shape
    block = size // _BLOCKS
    inside = slice(block * _BLOCKS)
    blurred = gaussian_filter(images, (0, size / 64, size / 64))[:, inside, inside]
    down, right = np.zeros((2, *blurred.shape), np.float32)  # 0 at the border
    down[:, 1:-1] = blurred[:, 2:] - blurred[:, :-2]
    right[:, :, 1:-1] = blurred[:, :, 2:] - blurred[:, :, :-2]
    strength = np.sqrt(down * down + right * right)
    angle = np.floor(np.arctan2(down, right) * (_DIRECTIONS / np.pi)).astype(np.int32)
    at = np.arange(inside.stop, dtype=np.int32) // block
    place = (np.arange(count, dtype=np.int32)[:, None, None] * _BLOCKS + at[:, None]) * _BLOCKS + at
    bins = place * _DIRECTIONS + angle % _DIRECTIONS  # a direction and its opposite are one
    shape = (count, _BLOCKS, _BLOCKS, _DIRECTIONS)
    sums = np.bincount(bins.ravel(), strength.ravel(), np.prod(shape))
    histograms = sums.reshape(shape).astype(np.float32) / block**2
    neighbours = sliding_window_view(histograms, (2, 2), axis=(1, 2))  # (n, 7, 7, directions, 2, 2)
    together = np.moveaxis(neighbours, 3, -1).reshape(count, _BLOCKS - 1, _BLOCKS - 1, -1)
    for most in (_CLIPPED, np.inf):
        lengths = np.linalg.norm(together, axis=-1, keepdims=True)
        together = np.minimum(together / np.hypot(lengths, 1e-5), most)
    return together.reshape(count, -1)


def features_of_flips(images: np.ndarray) -> np.ndarray:
    """Features of the eight flips and turns of images, uint8 (n, size, size, 3): (n, 8, d)."""
    return _features_of_versions(grey_levels(all_versions(images, "dihedral")))


def features_of_moves(images: np.ndarray) -> np.ndarray:
    """Features of images, and of them shifted, rotated and zoomed a little: (n, 13, d).

    Args:
        images: uint8 (n, size, size, 3).
    """
    grey = grey_levels(images)
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
    images = versions.reshape(-1, *shape)
    # In arrays that the processor's cache holds, this is three times as fast.
    features = [
        gradient_features(images[i : i + _AT_ONCE]) for i in range(0, len(images), _AT_ONCE)
    ]
    return np.concatenate(features).reshape(count, each, -1)


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
        self._mean = (train.mean(axis=(0, 1)) + others.mean(axis=(0, 1))) / 2
        self._train, self._others = map(self._unit, (train, others))
        self._axes = _principal_axes(np.concatenate([self._train[:, 0], self._others[:, 0]]))
        self._coarse_train, self._coarse_others = (
            unit.reshape(-1, unit.shape[-1]) @ self._axes for unit in (self._train, self._others)
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
        starts = range(0, len(features), _SEARCHED_AT_ONCE)
        scores = [self._compare(features[i : i + _SEARCHED_AT_ONCE]) for i in starts]
        return Scores(*map(np.concatenate, zip(*scores, strict=True)))

    def _compare(self, features: np.ndarray) -> Scores:
        versions = self._unit(features)
        coarse = versions @ self._axes
        to_train, nearest = _distances(versions, coarse, self._train, self._coarse_train)
        to_others, _ = _distances(versions, coarse, self._others, self._coarse_others)
        return Scores(to_train / to_others, nearest)

    def _unit(self, features: np.ndarray) -> np.ndarray:
        centred = features - self._mean
        return centred / np.maximum(np.linalg.norm(centred, axis=-1, keepdims=True), 1e-6)


def identical_images(real: np.ndarray, synthetic: np.ndarray) -> list[int]:
    """Positions of synthetic images with the pixels of a real one, also flipped or turned.

    Args:
        real: uint8 (n, size, size, 3).
        synthetic: uint8 (m, size, size, 3).
    """
    known = {
        hash(version.tobytes())
        for image in real
        for version in all_versions(image[None], "dihedral")[0]
    }
    return [at for at, image in enumerate(synthetic) if hash(image.tobytes()) in known]


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


def _principal_axes(unit: np.ndarray) -> np.ndarray:
    """The axes along which features (n, d) differ most: (d, up to 256)."""
    chosen = unit[:: -(-len(unit) // _FOR_AXES)]
    is_wide = len(chosen) < chosen.shape[1]
    products = chosen @ chosen.T if is_wide else chosen.T @ chosen
    most = min(_AXES, len(products))
    last = (len(products) - most, len(products) - 1)  # the most variance comes last
    _, axes = eigh(products, subset_by_index=last)
    if is_wide:
        axes = chosen.T @ axes
        axes /= np.maximum(np.linalg.norm(axes, axis=0), 1e-6)
    return np.ascontiguousarray(axes)


def _distances(
    versions: np.ndarray, coarse: np.ndarray, references: np.ndarray, coarse_references: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Least distance of any version of each image to any flip of a reference, and to which.

    Only the flips of references that are nearest along the principal axes are compared in full.

    Args:
        versions: (n, versions, d).
        coarse: (n, versions, axes), the same along the principal axes.
        references: (m, flips, d).
        coarse_references: (m * flips, axes).

    Returns:
        The distances (n,), and positions of references (n,).
    """
    count, width = len(versions), references.shape[-1]
    rows = references.reshape(-1, width)
    near = coarse.reshape(-1, coarse.shape[-1]) @ coarse_references.T
    near = near.reshape(count, -1, len(rows)).max(axis=1)
    most = min(_CANDIDATES, len(rows))
    candidates = np.argpartition(-near, most - 1, axis=1)[:, :most]
    nearest = np.empty(count)
    positions = np.empty(count, int)
    for i, of_image in enumerate(candidates):
        correlations = (versions[i] @ rows[of_image].T).max(axis=0)
        best = int(correlations.argmax())
        nearest[i], positions[i] = correlations[best], of_image[best]
    # A copy and its original differ by rounding.
    return np.maximum(1 - nearest, 1e-5), positions // references.shape[1]


def _in_batches(
    features_of: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    advance: Callable[[int], None],
) -> Iterator[np.ndarray]:
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        yield features_of(batch)
        advance(len(batch))
