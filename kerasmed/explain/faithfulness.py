"""Whether an explanation tells what the network really hangs on."""

from typing import Any

import numpy as np

from kerasmed.explain.masks import fill_of
from kerasmed.explain.perturbation import PerturbedImage, Predict
from kerasmed.random_streams import Purpose, random_stream

STEPS = 20
RANDOM_ORDERS = 5


def deletion_and_insertion(
    image: np.ndarray,
    segments: np.ndarray,
    weights: np.ndarray,
    label: int,
    predict: Predict,
    hide: str | int,
    seed: int,
) -> dict[str, Any]:
    """Areas under the deletion and the insertion curve (Petsiuk et al., arXiv:1806.07421).

    Superpixels are hidden one after the other from the image, or shown one after the other on the
    image with everything hidden, those that speak most for the class first. A good order makes the
    probability fall fast (small area) and rise fast (large area).

    Args:
        image: uint8 (height, width, 3).
        segments: int (height, width), 0 to n - 1.
        weights: (n,) of the class.
        label: the class whose probability is followed.
        predict: see ``Explainer``.
        hide: see ``Explainer``.
        seed: of the random orders.

    Returns:
        ``deletion`` and ``insertion``: areas, 0 to 1, over the share of pixels; ``random_deletion``
        and ``random_insertion``: means over RANDOM_ORDERS random orders; ``curves``: of both, the
        share of pixels and the probability at up to STEPS points after the first.
    """
    perturbed = PerturbedImage(image, segments, fill_of(image, segments, hide), predict)
    count = perturbed.num_segments
    rng = random_stream(seed, Purpose.RANDOM_ORDERS)
    orders = [np.argsort(-weights, kind="stable")]
    orders += [rng.permutation(count) for _ in range(RANDOM_ORDERS)]
    cuts = np.unique(np.linspace(0, count, STEPS + 1).round().astype(int))
    ranks = np.stack([np.argsort(order) for order in orders])
    shown = ranks[:, None, :] < cuts[:, None]  # orders, cuts, segments
    both = np.stack([~shown, shown])  # deletion, insertion
    found = perturbed.probabilities(both.reshape(-1, count))[:, label]
    curves = found.reshape(both.shape[:3])
    sizes = np.bincount(segments.ravel()) / segments.size
    touched = shown @ sizes  # orders, cuts
    areas = np.trapezoid(curves, touched[None], axis=2)
    return {
        "deletion": float(areas[0, 0]),
        "insertion": float(areas[1, 0]),
        "random_deletion": float(areas[0, 1:].mean()),
        "random_insertion": float(areas[1, 1:].mean()),
        "curves": {
            "pixels": touched[0].tolist(),
            "deletion": curves[0, 0].astype(float).tolist(),
            "insertion": curves[1, 0].astype(float).tolist(),
        },
    }


def against_region(
    weights: np.ndarray, segments: np.ndarray, region: np.ndarray, top: int
) -> dict[str, Any]:
    """How an explanation agrees with the region that is known to decide.

    Args:
        weights: (segments,) of the class.
        segments: int (height, width).
        region: bool (height, width), not empty.
        top: superpixels that are compared with the region as a whole.

    Returns:
        ``pointing_game``: whether the strongest superpixel's middle lies in the region, the pixel
        of the superpixel nearest to its centre of mass; ``intersection_over_union`` of the region
        and the ``top`` strongest superpixels that speak for the class.
    """
    strongest = np.argsort(-weights, kind="stable")
    rows, columns = np.nonzero(segments == strongest[0])
    distance = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
    middle = int(distance.argmin())
    speaking = [i for i in strongest[:top] if weights[i] > 0]
    named = np.isin(segments, speaking)
    return {
        "pointing_game": bool(region[rows[middle], columns[middle]]),
        "intersection_over_union": float((named & region).sum() / (named | region).sum()),
    }
