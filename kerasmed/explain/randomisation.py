"""The test of Adebayo et al. (arXiv:1810.03292): no map may stay the same without the training."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from kerasmed.files import written_aside


def randomise_weights(source: Path, target: Path, seed: int) -> None:
    """Write the same network with the numbers of each weight array in random order.

    Arrays of one dimension, such as biases, stay, and so do the sizes and the distribution of all.

    Args:
        source: a float32 ONNX file.
        target: the file to write.
        seed: of the order.
    """
    rng = np.random.default_rng(seed)
    model = onnx.load(source)
    for array in model.graph.initializer:
        values = numpy_helper.to_array(array)
        if values.ndim > 1 and values.dtype == np.float32:
            shuffled = rng.permutation(values.ravel()).reshape(values.shape)
            array.CopyFrom(numpy_helper.from_array(shuffled, array.name))
    with written_aside(target) as temporary:
        onnx.save(model, temporary)
