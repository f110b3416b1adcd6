"""Which images are copies of others, also mirrored, turned, shifted, brightened or blended."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from typing_extensions import TypedDict

from kerasmed.data.grey import grey_levels
from kerasmed.data.symmetry import all_versions
from kerasmed.metrics.sample_size import require_images
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import Percentiles
from kerasmed.runtime.hardware import cpu_cores
from kerasmed.settings import Count, UnitInterval

# At most this many images of either kind set the threshold.
CALIBRATED_ON = 500
_EDGE = 32  # greatest height and width of the compared images
_BLUR = 1.5  # deviation of the blur that is subtracted, so that edges count and shades do not
_ANGLES = (-6, -3, 0, 3, 6)  # degrees
_REACH = 3  # shifts to either side, in steps of half a compared pixel
_CANDIDATES = 16
# Of the maxima of many correlations of noise, one in 200 lies above (a Gumbel distribution).
_DEVIATIONS = 5.0


class CopySearch:
    """Finds the reference that is most similar to an image, after alignment.

    Images are compared in grey at 32 by 32 pixels, less their own blur. The similarity is the
    correlation of their central regions, so brightness and contrast change nothing. All eight flips
    and turns of an image are tried. Each is rotated by up to 6 degrees and shifted by up to 5% of
    its width at 64, 128 and 256 pixels, and 3 to 9% at other sizes. The search compares all
    references in half that detail, and the 16 most similar in full. To find a blend of two, it then
    compares the residual of the image with all of them: two steps of orthogonal matching pursuit
    (Pati et al., 1993).

    Args:
        references: uint8 (m, size, size, 3).
    """

    def __init__(self, references: np.ndarray):
        size = references.shape[1]
        fine = -(-size // _EDGE)
        self._fine = _Windows(size, fine, _REACH, max(1, fine // 2))
        # A grid of half the detail, whose shifts are whole pixels of the fine grid.
        self._coarse = _Windows(size, 2 * fine, 1, fine)
        self._fine_references, self._coarse_references = (
            np.concatenate([grid.central(grey_levels(image) / 255) for image in references])
            for grid in (self._fine, self._coarse)
        )

    def nearest(
        self, images: np.ndarray, advance: Callable[[int], None] = lambda _: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Similarity and position of the most similar reference of each image.

        The similarity is the root of the fraction of the image's detail that this reference and
        one more explain together.

        Args:
            images: uint8 (n, size, size, 3).
            advance: Called with the number of images done since the last call.

        Returns:
            float32 (n,), from 0 to about 1 for an exact copy; and int64 (n,).
        """

        def search(image: np.ndarray) -> tuple[float, int]:
            grey = grey_levels(image) / 255
            turned = np.stack(
                [ndimage.rotate(grey, a, reshape=False, order=1, mode="nearest") for a in _ANGLES]
            )
            coarse = (self._coarse.versions(turned[::2]) @ self._coarse_references.T).max(axis=0)
            candidates = np.argsort(-coarse, kind="stable")[:_CANDIDATES]
            explained = _explained(self._fine.versions(turned), candidates, self._fine_references)
            advance(1)
            return explained.max(), candidates[explained.argmax()]

        with ThreadPoolExecutor(cpu_cores()) as threads:
            matches = list(threads.map(search, images))
        similarities, positions = zip(*matches, strict=True)
        return np.array(similarities, np.float32), np.array(positions, np.int64)


@dataclass(frozen=True)
class Copy:
    """The training image that an image is a copy of.

    Attributes:
        similarity: See ``CopySearch.nearest``.
        threshold: Similarity above which an image is a copy.
        position: Position of the training image.
    """

    similarity: float
    threshold: float
    position: int


class CopyFilter:
    """Finds copies of training images by a threshold.

    Args:
        search: Search over the training images.
        threshold: Similarity above which an image is a copy.
    """

    def __init__(self, search: CopySearch, threshold: float):
        self._search = search
        self._threshold = threshold

    def find(self, images: np.ndarray) -> list[Copy | None]:
        """For each image the training image that it copies, or None.

        Args:
            images: uint8 (n, size, size, 3).
        """
        similarities, positions = self._search.nearest(images)
        return [
            Copy(similarity, self._threshold, position) if similarity > self._threshold else None
            for similarity, position in zip(similarities.tolist(), positions.tolist(), strict=True)
        ]


class CalibrationOf(TypedDict):
    """What images of one kind say about the threshold."""

    images: Count
    """Number of images."""
    threshold: float
    """The similarity that would be the threshold by these images."""
    above: UnitInterval
    """Fraction of them above the threshold that is used."""
    similarity: Percentiles
    """5th, 50th and 95th percentile and maximum of their similarity to a training image."""


class Calibration(TypedDict):
    """The similarity above which an image counts as a copy of a training image."""

    threshold: float
    """The lower of both thresholds, which is used."""
    reserve: CalibrationOf
    """Of real images of the role ``reserve``."""
    drawn: CalibrationOf
    """Of images that the diffusion model drew."""


def calibrate(
    search: CopySearch,
    reserve: np.ndarray,
    drawn: np.ndarray,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Calibration:
    """The similarity threshold above which an image counts as a copy of a training image.

    Reserve images and drawn images each set a threshold (see ``copy_threshold``), and the lower
    one is used. Reserve images show how similar unrelated images are. Where some are of the same
    patients as training images, they set the threshold too high. Drawn images do not have that
    problem: as long as most are no copies, a copy is an outlier among them.

    Args:
        search: Search over the training images.
        reserve: Real images of the role ``reserve``, uint8 (n, size, size, 3).
        drawn: Images of the diffusion model, uint8 (m, size, size, 3). Of more than 500 of either
            a random choice is used.
        seed: Seed of the choice.
        advance: Called with the number of images done since the last call.

    Raises:
        InputError: There are fewer than 20 images of either.
    """
    sets = {"reserve": reserve, "drawn": drawn}
    require_images("Copies", {f"{name} images": len(images) for name, images in sets.items()})
    rng = random_stream(seed, Purpose.COPY_CALIBRATION)
    similarities, thresholds = {}, {}
    for name, images in sets.items():
        count = min(len(images), CALIBRATED_ON)
        chosen = np.sort(rng.choice(len(images), count, replace=False))
        similarities[name], _ = search.nearest(np.asarray(images[chosen]), advance)
        thresholds[name] = copy_threshold(similarities[name])
    threshold = min(thresholds.values())

    def of(name: str) -> CalibrationOf:
        values = similarities[name]
        return {
            "images": len(values),
            "threshold": thresholds[name],
            "above": float((values > threshold).mean()),
            "similarity": np.percentile(values, [5, 50, 95, 100]).tolist(),
        }

    return {"threshold": threshold, "reserve": of("reserve"), "drawn": of("drawn")}


class _Windows:
    """The central window of an image, and that of its shifted versions, as unit vectors.

    Args:
        size: Height and width of the images.
        factor: Edge of the blocks of pixels that are averaged into one.
        reach: Number of shifts to either side.
        step: Pixels of one shift.
    """

    def __init__(self, size: int, factor: int, reach: int, step: int):
        self.factor = factor
        self.starts = [step * i for i in range(2 * reach + 1)]
        self.pixels = size // factor - -(-self.starts[-1] // factor)
        self.middle = step * reach

    def central(self, grey: np.ndarray) -> np.ndarray:
        """float32 (1, d) of one image (size, size), of mean 0 and length 1."""
        return _unit(self._cut(self._filtered(grey[None]), self.middle, self.middle))

    def versions(self, turned: np.ndarray) -> np.ndarray:
        """All flips, turns and shifts of an image, as vectors like those of ``central``.

        Args:
            turned: float32 (angles, size, size), the image rotated by each angle.

        Returns:
            float32 (angles * 8 * shifts, d).
        """
        flipped = all_versions(self._filtered(turned)[..., None], "dihedral")[..., 0]
        flipped = flipped.reshape(-1, *flipped.shape[2:])
        return _unit(
            np.concatenate(
                [self._cut(flipped, top, left) for top in self.starts for left in self.starts]
            )
        )

    def _filtered(self, grey: np.ndarray) -> np.ndarray:
        """(n, size, size) averaged over blocks that start at each pixel, less their blur."""
        block = self.factor
        mean = ndimage.uniform_filter(grey, (0, block, block), mode="nearest")
        blur = _BLUR * block
        sharp = mean - ndimage.gaussian_filter(mean, (0, blur, blur), mode="nearest", truncate=3)
        inside = slice(block // 2, block // 2 + grey.shape[-1] - block + 1)
        return sharp[:, inside, inside]

    def _cut(self, filtered: np.ndarray, top: int, left: int) -> np.ndarray:
        span = (self.pixels - 1) * self.factor + 1
        rows, columns = (slice(start, start + span, self.factor) for start in (top, left))
        return filtered[:, rows, columns].reshape(len(filtered), -1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows (n, d) with mean 0 and length 1; constant rows become 0."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    squares = np.einsum("nd,nd->n", centred, centred)
    centred /= np.sqrt(np.maximum(squares, 1e-12))[:, None]
    return centred


def _explained(versions: np.ndarray, candidates: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Length of the projection of an image on each candidate and its best second reference.

    Args:
        versions: Versions of the image, (n, d).
        candidates: Positions of the candidates among the references, (c,).
        references: All references, (m, d).

    Returns:
        float (c,), of the version that is most similar to each candidate.
    """
    correlations = versions @ references[candidates].T
    best = correlations.max(axis=0)[:, None]
    with_all = versions[correlations.argmax(axis=0)] @ references.T
    between = references[candidates] @ references.T
    # Where two references are almost equal, the second adds only rounding errors.
    own = np.maximum(1 - np.square(between), 0.05)
    squares = np.square(best) + np.square(with_all - best * between) / own
    return np.sqrt(squares.max(axis=1))


def copy_threshold(natural: np.ndarray) -> float:
    """The similarity above which an image is called a copy.

    It lies five deviations above the median similarity of other images, on Fisher's scale
    (artanh). The deviation is the distance from the 16th percentile to the median. The upper half
    is not used, because it may hold images of the same thing, such as the next slice of one
    patient.

    Args:
        natural: float (n,), similarities to training images of images that are no copies.
    """
    low, median = np.percentile(np.arctanh(np.minimum(natural, 0.9999)), [16, 50])
    return float(np.tanh(median + _DEVIATIONS * (median - low)))
