"""Checks of an explanation: faithfulness, agreement with a known region, shuffled weights."""

import hashlib
from pathlib import Path

import numpy as np
from typing_extensions import TypedDict

from kerasmed.errors import ModelFileError
from kerasmed.explain.masks import fill_of
from kerasmed.explain.perturbation import PerturbedImage, Predict
from kerasmed.files import written_aside
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import Probability
from kerasmed.settings import UnitInterval

STEPS = 20
RANDOM_ORDERS = 5

# Output of a shuffled network.
LOGITS = "shuffled_logits"


class FaithfulnessCurves(TypedDict):
    """Points of both curves, at most 21."""

    pixels: list[Probability]
    """Fraction of the pixels that are hidden or shown."""
    deletion: list[Probability]
    """Probability of the class after so many are hidden."""
    insertion: list[Probability]
    """Probability of the class after so many are shown."""


class Faithfulness(TypedDict):
    """Areas under the deletion and the insertion curve (arXiv:1806.07421)."""

    deletion: Probability
    """Area while the strongest superpixels are hidden first; small is good."""
    insertion: Probability
    """Area while the strongest superpixels are shown first; large is good."""
    random_deletion: Probability
    """Mean area of five random orders, for comparison."""
    random_insertion: Probability
    """Mean area of five random orders, for comparison."""
    curves: FaithfulnessCurves
    """The curves themselves."""


class RegionAgreement(TypedDict):
    """Agreement with the region that is known to decide the class of a phantom."""

    pointing_game: bool
    """Whether the middle of the strongest superpixel lies in the region."""
    intersection_over_union: UnitInterval
    """Of the region and those of the strongest superpixels that speak for the class."""


def deletion_and_insertion(
    image: np.ndarray,
    segments: np.ndarray,
    weights: np.ndarray,
    label: int,
    predict: Predict,
    hide: str | int,
    seed: int,
) -> Faithfulness:
    """Areas under the deletion and the insertion curve (Petsiuk et al., arXiv:1806.07421).

    Deletion hides superpixels one after the other. Insertion starts with everything hidden and
    shows them one after the other. Both begin with those that speak most for the class. A good
    order makes the probability fall fast (small area) and rise fast (large area).

    Args:
        image: uint8 (height, width, 3).
        segments: int (height, width), 0 to n - 1.
        weights: (n,) of the class.
        label: the class whose probability is followed.
        predict: see ``Explainer``.
        hide: see ``Explainer``.
        seed: seed of the random orders.
    """
    perturbed = PerturbedImage(image, segments, fill_of(image, segments, hide), predict)
    count = perturbed.num_segments
    rng = random_stream(seed, Purpose.RANDOM_ORDERS)
    orders = [np.argsort(-weights, kind="stable")]
    orders += [rng.permutation(count) for _ in range(RANDOM_ORDERS)]
    cuts = np.unique(np.linspace(0, count, STEPS + 1).round().astype(int))
    ranks = np.stack([np.argsort(order) for order in orders])
    shown = ranks[:, None, :] < cuts[:, None]  # orders, cuts, segments
    masks = np.stack([~shown, shown])  # deletion, insertion
    probabilities = perturbed.probabilities(masks.reshape(-1, count))[:, label]
    curves = probabilities.reshape(masks.shape[:3])
    sizes = np.bincount(segments.ravel()) / segments.size
    fractions = shown @ sizes  # orders, cuts
    areas = np.trapezoid(curves, fractions[None], axis=2)
    return {
        "deletion": float(areas[0, 0]),
        "insertion": float(areas[1, 0]),
        "random_deletion": float(areas[0, 1:].mean()),
        "random_insertion": float(areas[1, 1:].mean()),
        "curves": {
            "pixels": fractions[0].tolist(),
            "deletion": curves[0, 0].astype(float).tolist(),
            "insertion": curves[1, 0].astype(float).tolist(),
        },
    }


def compare_with_region(
    weights: np.ndarray, segments: np.ndarray, region: np.ndarray, top: int
) -> RegionAgreement:
    """Agreement of an explanation with the region that is known to decide the class.

    Args:
        weights: (segments,) of the class.
        segments: int (height, width).
        region: bool (height, width), not empty.
        top: how many of the strongest superpixels are compared with the region.

    Returns:
        ``pointing_game``: whether the middle of the strongest superpixel lies in the region. The
        middle is its pixel nearest to its centre of mass. ``intersection_over_union``: of the
        region and those of the ``top`` strongest superpixels that speak for the class.
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


def randomise_weights(source: Path, target: Path, seed: int) -> None:
    """Write a network with the values of each weight array in random order.

    It is for the test of Adebayo et al. (arXiv:1810.03292): without the training, no map may stay
    the same. Arrays of one dimension, such as biases, stay. Sizes and distributions do not change.
    The input of the softmax becomes an output too, LOGITS. Such a network mostly drives its
    softmax to 0 and 1, so its probabilities would leave only rounding to explain.

    Args:
        source: a float32 ONNX file.
        target: the file to write.
        seed: seed of the order.

    Raises:
        ModelFileError: the network does not end in a softmax.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(source)
    for array in model.graph.initializer:
        values = numpy_helper.to_array(array)
        if values.ndim > 1 and values.dtype == np.float32:
            # By content, since exports of one network list its arrays in different orders.
            content = int.from_bytes(hashlib.sha256(values.tobytes()).digest()[:4])
            rng = random_stream(seed, Purpose.SHUFFLED_WEIGHTS, content)
            shuffled = rng.permutation(values.ravel()).reshape(values.shape)
            array.CopyFrom(numpy_helper.from_array(shuffled, array.name))
    last = next(node for node in model.graph.node if "probabilities" in node.output)
    if last.op_type != "Softmax":
        raise ModelFileError(
            f"{source}: expected probabilities from a softmax, received {last.op_type}; its "
            "explanations cannot be checked, so set explain.checks: false."
        )
    model.graph.node.append(helper.make_node("Identity", [last.input[0]], [LOGITS]))
    kind = TensorProto.FLOAT
    model.graph.output.append(helper.make_tensor_value_info(LOGITS, kind, [None, None]))
    with written_aside(target) as temporary:
        onnx.save(model, temporary)
