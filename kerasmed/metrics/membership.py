"""Whether an attacker with the denoiser could tell which images it was trained on."""

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from scipy.stats import mannwhitneyu, rankdata
from typing_extensions import TypedDict

from kerasmed.metrics.sample_size import require_groups, require_images
from kerasmed.metrics.statistics import expanded_interval
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import Pair, Whole
from kerasmed.settings import Count, UnitInterval

_FALSE_POSITIVES = 0.01


class Attack(TypedDict):
    """How well the loss at one noise level tells training images from others."""

    timestep: Whole | Literal["all"]
    """Timestep of the noise level; "all" for the mean rank over all of them."""
    auc: UnitInterval
    """Area under the ROC curve; 0.5 is guessing."""
    interval: Pair
    """Its 95% interval."""
    true_positives: UnitInterval
    """Fraction of training images found at 1% of false positives."""
    true_positives_interval: Pair
    """Its 95% interval."""


class Membership(TypedDict):
    """The membership-inference test (arXiv:2302.03262)."""

    n_members: Count
    """Number of training images."""
    n_others: Count
    """Number of other real images."""
    groups: Annotated[list[Count], Field(min_length=2, max_length=2)]
    """Number of groups, such as patients, of either."""
    levels: list[Attack]
    """One attack for each noise level, and one for all of them."""


def membership_inference(
    members: np.ndarray,
    others: np.ndarray,
    levels: Sequence[int],
    member_groups: np.ndarray,
    other_groups: np.ndarray,
    samples: int = 1000,
    seed: int = 0,
) -> Membership:
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

    Raises:
        InputError: There are fewer than 20 images of either, or fewer than five groups.
    """
    counts = {"training images": len(members), "other images": len(others)}
    require_images("Membership inference", counts, "add images")
    losses = np.concatenate([members, others])
    mean_ranks = rankdata(losses, axis=0).mean(axis=1, keepdims=True)
    members, others = np.split(np.concatenate([losses, mean_ranks], axis=1), [len(members)])
    rng = random_stream(seed, Purpose.MEMBERSHIP_BOOTSTRAP)
    grouped_members, grouped_others = map(_positions_by_group, (member_groups, other_groups))
    num_groups = {"training images": len(grouped_members), "other images": len(grouped_others)}
    require_groups("Membership inference", num_groups)
    resampled = [
        _figures(members[_resample(grouped_members, rng)], others[_resample(grouped_others, rng)])
        for _ in range(samples)
    ]
    interval = expanded_interval(np.array(resampled), min(num_groups.values()))
    figures = np.stack([_figures(members, others), *interval])
    names: list[int | Literal["all"]] = [*levels, "all"]
    return {
        "n_members": len(members),
        "n_others": len(others),
        "groups": list(num_groups.values()),
        "levels": [
            {
                "timestep": level,
                "auc": auc[0],
                "interval": auc[1:],
                "true_positives": true_positives[0],
                "true_positives_interval": true_positives[1:],
            }
            for level, (auc, true_positives) in zip(names, figures.T.tolist(), strict=True)
        ],
    }


def _positions_by_group(groups: np.ndarray) -> list[np.ndarray]:
    return [np.flatnonzero(groups == name) for name in np.unique(groups)]


def _resample(groups: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Positions of the images of equally many groups, drawn with replacement."""
    return np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])


def _figures(members: np.ndarray, others: np.ndarray) -> np.ndarray:
    """AUROC and fraction of true positives at 1% of false positives: float (2, levels)."""
    # Pairs in which the member has the lower loss.
    pairs = mannwhitneyu(others, members, axis=0, method="asymptotic").statistic
    threshold = np.sort(others, axis=0)[int(_FALSE_POSITIVES * len(others))]  # 1% are below it
    return np.stack([pairs / (len(members) * len(others)), (members < threshold).mean(axis=0)])
