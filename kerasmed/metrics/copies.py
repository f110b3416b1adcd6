"""Which images are copies of others, also mirrored, turned, shifted, brightened or blended."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from kerasmed.data.symmetry import all_versions
from kerasmed.metrics.sample_size import require_enough
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.runtime.hardware import cpu_cores

# Images of either kind that the threshold is taken from, at most.
CALIBRATED_ON = 500
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_EDGE = 32  # greatest height and width of what is compared
_BLUR = 1.5  # deviation of what is subtracted, so that edges count and shades do not
_ANGLES = (-6, -3, 0, 3, 6)  # degrees
_REACH = 3  # steps of half a compared pixel that an image is shifted by, to either side
_CANDIDATES = 16
# Of the greatest of many correlations of noise, one in 200 lies above (a Gumbel distribution).
_DEVIATIONS = 5.0


class CopySearch:
    """Finds the reference that an image is most like, after alignment.

    Images are compared in grey at 32 by 32 pixels, less their own blur, by the correlation of what
    both show in their middle: brightness and contrast change nothing. Of an image all eight flips
    and turns are tried, each rotated by up to 6 degrees and shifted by up to 5% of its width at 64,
    128 and 256 pixels, and 3 to 9% at other sizes. Of the references, all are looked at in half
    that detail, and the 16 most alike in full. So that a blend of two is found, what is left of the
    image is then compared with all of them: two steps of orthogonal matching pursuit (Pati et al.,
    1993).

    Args:
        references: uint8 (m, size, size, 3).
    """

    def __init__(self, references: np.ndarray):
        size = references.shape[1]
        fine = -(-size // _EDGE)
        self._fine = _Windows(size, fine, _REACH, max(1, fine // 2))
        # A grid of half the detail, which steps of a whole pixel of the fine one reach.
        self._coarse = _Windows(size, 2 * fine, 1, fine)
        self._fine_references, self._coarse_references = (
            np.concatenate([grid.central(_grey(image)) for image in references])
            for grid in (self._fine, self._coarse)
        )

    def nearest(
        self, images: np.ndarray, advance: Callable[[int], None] = lambda _: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Similarity to, and position of, the reference that each image is most like.

        The similarity is the root of the share of the image's detail that this reference and one
        more explain together.

        Args:
            images: uint8 (n, size, size, 3).
            advance: told how many images are done since the last time.

        Returns:
            float32 (n,), 0 to about 1, which an exact copy has; and int64 (n,).
        """

        def search(image: np.ndarray) -> tuple[float, int]:
            grey = _grey(image)
            turned = np.stack(
                [ndimage.rotate(grey, a, reshape=False, order=1, mode="nearest") for a in _ANGLES]
            )
            coarse = (self._coarse.versions(turned[::2]) @ self._coarse_references.T).max(axis=0)
            likely = np.argsort(-coarse, kind="stable")[:_CANDIDATES]
            both = _explained(self._fine.versions(turned), likely, self._fine_references)
            advance(1)
            return both.max(), likely[both.argmax()]

        with ThreadPoolExecutor(cpu_cores()) as threads:
            found = list(threads.map(search, images))
        similarities, positions = zip(*found, strict=True)
        return np.array(similarities, np.float32), np.array(positions, np.int64)


@dataclass(frozen=True)
class Copy:
    """What an image is a copy of.

    Attributes:
        similarity: see ``CopySearch.nearest``.
        threshold: that it is above.
        position: of the training image.
    """

    similarity: float
    threshold: float
    position: int


class CopyFilter:
    """Tells copies of training images by a threshold.

    Args:
        search: over the training images.
        threshold: similarity above which an image is a copy.
    """

    def __init__(self, search: CopySearch, threshold: float):
        self._search = search
        self._threshold = threshold

    def find(self, images: np.ndarray) -> list[Copy | None]:
        """What each image is a copy of, if it is one.

        Args:
            images: uint8 (n, size, size, 3).
        """
        found = zip(*(each.tolist() for each in self._search.nearest(images)), strict=True)
        return [
            Copy(similarity, self._threshold, position) if similarity > self._threshold else None
            for similarity, position in found
        ]


def calibrate(
    search: CopySearch,
    held_out: np.ndarray,
    drawn: np.ndarray,
    seed: int,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """The threshold above which an image is a copy, by what others show of the training images.

    Two kinds of others each set one (see ``copy_threshold``), and the lower holds. Held-out real
    images show how alike unrelated images are, but where some are of the same patients as training
    images they set it too high. The drawn images' own bulk does not know that trouble: what stands
    out from it is a copy, as long as most of them are none.

    Args:
        search: over the training images.
        held_out: real images like them, uint8 (n, size, size, 3).
        drawn: images of the diffusion model, uint8 (m, size, size, 3). Of more than 500 of either
            a random choice is used.
        seed: of the choice.
        advance: told how many images are done since the last time.

    Returns:
        ``threshold``; for ``held_out`` and ``drawn`` each their number of ``images``, their own
        ``threshold``, the share of them ``above`` the one that holds, and ``similarity``, its 5th,
        50th, 95th percentile and maximum.

    Raises:
        InputError: fewer than 20 images of either.
    """
    sets = {"held_out": held_out, "drawn": drawn}
    counts = {f"{name.replace('_', '-')} images": len(each) for name, each in sets.items()}
    require_enough("Copies", counts)
    rng = random_stream(seed, Purpose.COPY_CALIBRATION)
    similarities, thresholds = {}, {}
    for name, images in sets.items():
        count = min(len(images), CALIBRATED_ON)
        chosen = np.sort(rng.choice(len(images), count, replace=False))
        similarities[name], _ = search.nearest(np.asarray(images[chosen]), advance)
        thresholds[name] = copy_threshold(similarities[name])
    threshold = min(thresholds.values())
    return {
        "threshold": threshold,
        **{
            name: {
                "images": len(values),
                "threshold": thresholds[name],
                "above": float((values > threshold).mean()),
                "similarity": np.percentile(values, [5, 50, 95, 100]).tolist(),
            }
            for name, values in similarities.items()
        },
    }


class _Windows:
    """The middle of an image, and what a shifted image has in the same place, as unit vectors.

    Args:
        size: height and width of the images.
        factor: pixels that are averaged into one.
        reach: shifts to either side.
        step: pixels of one shift.
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
            turned: float32 (angles, size, size), the image at each.

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
        rows, columns = (slice(at, at + span, self.factor) for at in (top, left))
        return filtered[:, rows, columns].reshape(len(filtered), -1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows (n, d) with mean 0 and length 1; those that are constant stay 0."""
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    squares = np.einsum("nd,nd->n", centred, centred)
    centred /= np.sqrt(np.maximum(squares, 1e-12))[:, None]
    return centred


def _explained(versions: np.ndarray, likely: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Length of what each likely reference and the best other one explain of an image.

    Args:
        versions: of the image, (n, d).
        likely: positions of these references, (c,).
        references: all, (m, d).

    Returns:
        float (c,), of the version that is most like each.
    """
    correlations = versions @ references[likely].T
    found = correlations.max(axis=0)[:, None]
    rest = versions[correlations.argmax(axis=0)] @ references.T
    between = references[likely] @ references.T
    # Where two references are all but equal, the second adds nothing but rounding errors.
    own = np.maximum(1 - np.square(between), 0.05)
    squares = np.square(found) + np.square(rest - found * between) / own
    return np.sqrt(squares.max(axis=1))


def copy_threshold(natural: np.ndarray) -> float:
    """The similarity above which an image is called a copy.

    Five deviations above the median of what images of others show, on Fisher's scale (artanh). The
    deviation is read from the lower half, from the 16th percentile to the median: among the upper
    half may be images that do show the same thing, such as the next slice of one patient.

    Args:
        natural: float (n,), similarities to training images that came about without copying.
    """
    low, median = np.percentile(np.arctanh(np.minimum(natural, 0.9999)), [16, 50])
    return float(np.tanh(median + _DEVIATIONS * (median - low)))


def _grey(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) @ _LUMA / 255
