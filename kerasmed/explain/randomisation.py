"""The test of Adebayo et al. (arXiv:1810.03292): no map may stay the same without the training."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kerasmed.errors import ModelFileError
from kerasmed.files import written_aside
from kerasmed.random_streams import Purpose, random_stream

LOGITS = "shuffled_logits"


def randomise_weights(source: Path, target: Path, seed: int) -> None:
    """Write the same network with the numbers of each weight array in random order.

    Arrays of one dimension, such as biases, stay, and so do the sizes and the distribution of all.
    What goes into the softmax is an output too, LOGITS: such a network mostly drives it to 0
    and 1, and all that would be left to explain is rounding.

    Args:
        source: a float32 ONNX file.
        target: the file to write.
        seed: of the order.

    Raises:
        ModelFileError: no softmax at its end.
    """
    rng = random_stream(seed, Purpose.SHUFFLED_WEIGHTS)
    model = onnx.load(source)
    for array in model.graph.initializer:
        values = numpy_helper.to_array(array)
        if values.ndim > 1 and values.dtype == np.float32:
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
