"""Whether someone with the denoiser could tell which images it learned from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from kerasmed.metrics.sample_size import require_enough, require_groups
from kerasmed.metrics.statistics import expanded_interval, mann_whitney
from kerasmed.random_streams import Purpose, random_stream

_FALSE_POSITIVES = 0.01


def membership_inference(
    members: np.ndarray,
    others: np.ndarray,
    levels: Sequence[int],
    member_groups: np.ndarray,
    other_groups: np.ndarray,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """How well an image's loss tells training images from others (Matsumoto et al., 2302.03262).

    The attacker calls those images members that the denoiser restores best, at one level of noise
    or by their mean rank over all.

    Args:
        members: float (n, levels), the loss of training images at each level of noise.
        others: float (m, levels), of images that were not learned from.
        levels: their timesteps.
        member_groups: (n,), equal for images of one group: what makes the images of one patient
            easy for a model, having learned from them or not, is no membership of theirs.
        other_groups: (m,).
        samples: of the bootstrap over groups.
        seed: of the bootstrap.

    Returns:
        ``n_members`` and ``n_others``; ``groups``, how many of either; ``levels``, one entry each
        and a last one for ``all``, with ``auc`` (0.5 tells nothing), its 95% ``interval``, and
        ``true_positives`` at 1% of false ones, with ``true_positives_interval``.

    Raises:
        InputError: fewer than 20 of either, or of fewer than five groups.
    """
    counts = {"training images": len(members), "other images": len(others)}
    require_enough("Membership inference", counts, "add images")
    ranks = rankdata(np.concatenate([members, others]), axis=0).mean(axis=1, keepdims=True)
    table = np.concatenate([np.concatenate([members, others]), ranks], axis=1)
    rng = random_stream(seed, Purpose.MEMBERSHIP_BOOTSTRAP)
    inside_groups, outside_groups = (
        [np.flatnonzero(groups == name) for name in np.unique(groups)]
        for groups in (member_groups, other_groups)
    )
    counted = {"training images": len(inside_groups), "other images": len(outside_groups)}
    require_groups("Membership inference", counted)
    draws = [
        (_resample(inside_groups, rng), _resample(outside_groups, rng)) for _ in range(samples)
    ]
    rows = []
    for level, losses in zip([*levels, "all"], table.T, strict=True):
        inside, outside = losses[: len(members)], losses[len(members) :]
        resampled = [_figures(inside[i], outside[j]) for i, j in draws]
        low, high = expanded_interval(np.array(resampled), min(counted.values()))
        auc, true_positives = _figures(inside, outside)
        rows.append(
            {
                "timestep": level,
                "auc": auc,
                "interval": [float(low[0]), float(high[0])],
                "true_positives": true_positives,
                "true_positives_interval": [float(low[1]), float(high[1])],
            }
        )
    return {
        "n_members": len(members),
        "n_others": len(others),
        "groups": list(counted.values()),
        "levels": rows,
    }


def _resample(groups: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Positions of the images of as many groups, drawn with replacement."""
    return np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])


def _figures(members: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Area under the curve, and the true positives at 1% of false ones."""
    auc = 1 - mann_whitney(members, others) / (len(members) * len(others))
    threshold = np.sort(others)[int(_FALSE_POSITIVES * len(others))]  # so many lie below it
    return float(auc), float((members < threshold).mean())
