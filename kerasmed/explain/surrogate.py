"""The linear surrogate of LIME, and how much it would differ with other masks."""

from dataclasses import dataclass

import numpy as np

from kerasmed.random_streams import Purpose, random_stream

# As in `lime` 0.2.0.1.
RIDGE_ALPHA = 1.0
# A superpixel below this fraction of the largest absolute weight is not among the strongest.
MATTERS = 0.1
_Z_95 = 1.959964
_DRAWS = 200


@dataclass(frozen=True)
class Surrogate:
    """A weighted ridge regression of probabilities on masks, for all classes at once.

    Attributes:
        weights: float64 (segments, classes).
        intercepts: float64 (classes,).
        scores: float64 (classes,), weighted R^2.
        half_widths: float64 (segments, classes), half of each weight's 95% interval.
        influences: float64 (pairs or samples, segments, classes), how much each weight would lose
            without the pair of masks, or the single mask.
    """

    weights: np.ndarray
    intercepts: np.ndarray
    scores: np.ndarray
    half_widths: np.ndarray
    influences: np.ndarray

    def strongest(self, label: int, top: int) -> np.ndarray:
        """Superpixels of a class by absolute weight, the largest first.

        Args:
            label: the class.
            top: largest number of them; those below MATTERS of the largest are left out.
        """
        sizes = np.abs(self.weights[:, label])
        matter = max(1, int((sizes >= MATTERS * sizes.max()).sum()))
        return np.argsort(-sizes, kind="stable")[: min(top, matter)]

    def stability(self, label: int, top: int, seed: int) -> dict[str, float]:
        """Expected agreement of two explanations from other masks, estimated from this one.

        Explanations are drawn by giving each pair of masks a random normal multiplier. Noise makes
        the weights scatter more than the true ones, so they are first shrunk by as much.

        Args:
            label: the class.
            top: largest number of superpixels, by absolute weight, whose sets are compared.
            seed: seed of the draws.

        Returns:
            ``top``: how many superpixels were compared, see ``strongest``. ``top_overlap``: the
            mean Jaccard index of their sets. ``rank_correlation``: the mean rank correlation of
            all weights.
        """
        weights, influences = self.weights[:, label], self.influences[:, :, label]
        noise = np.square(influences).sum(axis=0).mean()
        signal = max(0.0, 1 - noise / max(weights.var(), 1e-30)) ** 0.5
        centre = weights.mean() + signal * (weights - weights.mean())
        rng = random_stream(seed, Purpose.STABILITY)
        first, second = (
            centre + rng.standard_normal((_DRAWS, len(influences))) @ influences for _ in range(2)
        )
        count = len(self.strongest(label, top))
        return {
            "top": count,
            "top_overlap": top_overlap(first, second, count),
            "rank_correlation": rank_correlation(first, second),
        }


def fit_surrogate(
    masks: np.ndarray, probabilities: np.ndarray, sample_weights: np.ndarray, paired: bool
) -> Surrogate:
    """The surrogate by the regression of `lime`: weighted ridge, without shrinking the intercept.

    The intervals are of the weights that other masks would give, shrunk by the same ridge. They
    have the sandwich form: each residual is divided by one minus its leverage (HC3), and the
    residuals of a pair of masks are taken together.

    Args:
        masks: bool (samples, segments); the first keeps all.
        probabilities: (samples, classes).
        sample_weights: float64 (samples,).
        paired: whether the masks 1 and 2, 3 and 4, ... are complements.
    """
    x, y = masks.astype(np.float64), probabilities.astype(np.float64)
    relative_weights = sample_weights / sample_weights.sum()
    x_mean, y_mean = relative_weights @ x, relative_weights @ y
    x_centred, y_centred = x - x_mean, y - y_mean
    weighted = x_centred * sample_weights[:, None]
    gram = weighted.T @ x_centred + RIDGE_ALPHA * np.eye(x.shape[1])
    # How much each sample adds to the weights, for a residual of one.
    pull = np.linalg.solve(gram, weighted.T).T
    weights = pull.T @ y_centred
    residuals = y_centred - x_centred @ weights
    squares = sample_weights @ np.square(y_centred)
    # As in scikit-learn, a prediction that never changes has R^2 = 1.
    unexplained = np.divide(
        sample_weights @ np.square(residuals),
        squares,
        out=np.zeros_like(squares),
        where=squares > 1e-15,
    )
    leverage = np.minimum((pull * x_centred).sum(axis=1) + relative_weights, 1 - 1e-6)
    errors = residuals / (1 - leverage)[:, None]
    influences = pull[:, :, None] * errors[:, None, :]
    if paired:
        influences = np.add.reduceat(influences, [0, *range(1, len(masks), 2)], axis=0)
    half_widths = _Z_95 * np.sqrt(np.square(influences).sum(axis=0))
    return Surrogate(weights, y_mean - x_mean @ weights, 1 - unexplained, half_widths, influences)


def top_overlap(first: np.ndarray, second: np.ndarray, top: int) -> float:
    """Mean Jaccard index of the sets of the ``top`` largest absolute values in paired rows.

    Args:
        first: (rows, segments).
        second: of the same shape.
        top: size of the sets, at most the number of segments.
    """
    top = min(top, first.shape[1])
    common = (_strongest(first, top) & _strongest(second, top)).sum(axis=1)
    return float((common / (2 * top - common)).mean())


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Mean Spearman correlation of paired rows (rows, segments), or of two vectors (segments,).

    It is 0 where a row is constant.
    """
    ranks = [
        np.stack([_ranks(row) for row in rows]) - (rows.shape[1] + 1) / 2
        for rows in np.atleast_2d(first, second)
    ]
    sizes = np.sqrt(np.square(ranks[0]).sum(axis=1) * np.square(ranks[1]).sum(axis=1))
    products = (ranks[0] * ranks[1]).sum(axis=1)
    return float(np.divide(products, sizes, out=np.zeros_like(sizes), where=sizes > 0).mean())


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 on, equal values sharing their mean; `scipy.stats` takes a second to import."""
    _, positions, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[positions]


def _strongest(values: np.ndarray, top: int) -> np.ndarray:
    """Whether each value is among the ``top`` largest absolute values of its row: bool."""
    order = np.argsort(-np.abs(values), axis=1, kind="stable")
    strongest = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(strongest, order[:, :top], True, axis=1)
    return strongest
