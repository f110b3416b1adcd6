"""Whether an attacker with the denoiser could tell which images it was trained on."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from kerasmed.metrics.sample_size import require_groups, require_images
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

    The attacker calls the images that the denoiser restores best members, at one noise level or by
    their mean rank over all levels.

    Args:
        members: float (n, levels), the losses of training images at each noise level.
        others: float (m, levels), the losses of images that the model was not trained on.
        levels: Timesteps of the noise levels.
        member_groups: (n,), equal for images of one group. A patient's images may be easy for any
            model, trained on them or not, so images of one group are drawn together.
        other_groups: (m,).
        samples: Resamples of the bootstrap over groups.
        seed: Seed of the bootstrap.

    Returns:
        ``n_members`` and ``n_others``; ``groups``, the number of groups of either; and ``levels``,
        one entry for each level and a last one for ``all``. An entry has ``auc`` (0.5 is
        guessing), its 95% ``interval``, and ``true_positives`` at 1% of false positives with
        ``true_positives_interval``.

    Raises:
        InputError: There are fewer than 20 images of either, or fewer than five groups.
    """
    counts = {"training images": len(members), "other images": len(others)}
    require_images("Membership inference", counts, "add images")
    ranks = rankdata(np.concatenate([members, others]), axis=0).mean(axis=1, keepdims=True)
    table = np.concatenate([np.concatenate([members, others]), ranks], axis=1)
    rng = random_stream(seed, Purpose.MEMBERSHIP_BOOTSTRAP)
    grouped_members, grouped_others = map(_positions_by_group, (member_groups, other_groups))
    num_groups = {"training images": len(grouped_members), "other images": len(grouped_others)}
    require_groups("Membership inference", num_groups)
    resamples = [
        (_resample(grouped_members, rng), _resample(grouped_others, rng)) for _ in range(samples)
    ]
    n = len(members)
    return {
        "n_members": n,
        "n_others": len(others),
        "groups": list(num_groups.values()),
        "levels": [
            {
                "timestep": level,
                **_attack(losses[:n], losses[n:], resamples, min(num_groups.values())),
            }
            for level, losses in zip([*levels, "all"], table.T, strict=True)
        ],
    }


def _attack(
    members: np.ndarray,
    others: np.ndarray,
    resamples: list[tuple[np.ndarray, np.ndarray]],
    num_groups: int,
) -> dict[str, Any]:
    """The figures of one noise level, with their intervals over the resamples."""
    resampled = [_figures(members[i], others[j]) for i, j in resamples]
    low, high = expanded_interval(np.array(resampled), num_groups)
    auc, true_positives = _figures(members, others)
    return {
        "auc": auc,
        "interval": [float(low[0]), float(high[0])],
        "true_positives": true_positives,
        "true_positives_interval": [float(low[1]), float(high[1])],
    }


def _positions_by_group(groups: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(groups == name) for name in np.unique(groups)]


def _resample(groups: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Positions of the images of equally many groups, drawn with replacement."""
    return np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])


def _figures(members: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """AUROC, and the fraction of true positives at 1% of false positives."""
    auc = 1 - mann_whitney(members, others) / (len(members) * len(others))
    threshold = np.sort(others)[int(_FALSE_POSITIVES * len(others))]  # 1% are below it
    return float(auc), float((members < threshold).mean())
