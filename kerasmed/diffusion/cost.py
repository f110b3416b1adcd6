"""Arithmetic of the denoiser, and the rate of arithmetic that the machine reaches."""

import time

import keras
import numpy as np
from keras import ops

from kerasmed.random_streams import Purpose, random_stream
from kerasmed.runtime.backend import list_gpus

# The backward pass takes about twice the arithmetic of the forward pass: one product for the
# inputs, one for the weights (Kaplan et al., arXiv:2001.08361, section 2.1).
TRAINING_PASSES = 3
# Edge of the matrices whose product is timed. They are large enough to occupy all cores (at 1,024
# TensorFlow leaves one of two idle), and on a GPU to make the launch time negligible.
_EDGE, _EDGE_ON_GPU = 2048, 8192
_REPEATS, _ROUNDS = 4, 3


def forward_flops(model: keras.Model, input_shapes: list[tuple[int, ...]] | None = None) -> int:
    """Floating-point operations of the matrix products in one image's forward pass.

    A multiplication and its addition count as two. Only convolutions, dense layers and attention
    count; everything else is small in comparison.

    Args:
        model: a functional model.
        input_shapes: shapes of its inputs, with a batch of 1; its own if None, of fixed sizes.
    """
    if input_shapes is None:
        input_shapes = [(1, *tensor.shape[1:]) for tensor in model.inputs]
    layers = [layer for layer in model.layers if isinstance(layer, _COUNTED)]
    outputs = keras.Function(model.inputs, [layer.output for layer in layers])
    shapes = outputs.compute_output_shape(input_shapes)
    return sum(_layer_flops(*pair) for pair in zip(layers, shapes, strict=True))


_COUNTED = (
    keras.layers.Conv2DTranspose,
    keras.layers.Conv2D,
    keras.layers.Dense,
    keras.layers.MultiHeadAttention,
)


def _layer_flops(layer: keras.Layer, output_shape: tuple[int, ...]) -> int:
    positions, width = int(np.prod(output_shape[1:-1])), output_shape[-1]
    if isinstance(layer, keras.layers.MultiHeadAttention):
        return 2 * positions * 4 * width * width + 2 * 2 * positions * positions * width
    if isinstance(layer, keras.layers.Conv2DTranspose):  # each input position meets the kernel once
        positions //= int(np.prod(layer.strides))
    if isinstance(layer, keras.layers.Dense):
        positions = 1
    return 2 * positions * int(np.prod(layer.kernel.shape))


def matrix_product_rate(dtype: str) -> float:
    """Floating-point operations per second of a large matrix product on this machine.

    It is the best of three rounds: other work would lower it, and the fraction of it that a
    training reaches would come out too high.

    Args:
        dtype: "float32", "bfloat16" or "float16".
    """
    edge = _EDGE_ON_GPU if list_gpus() else _EDGE
    rng = random_stream(0, Purpose.MATRIX_PRODUCT)
    a = ops.cast(rng.standard_normal((edge, edge), dtype=np.float32), dtype)

    def wait() -> None:
        ops.convert_to_numpy(ops.cast(a[0], "float32"))

    a = ops.matmul(a, a) / edge**0.5
    wait()
    durations = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        for _ in range(_REPEATS):
            a = ops.matmul(a, a) / edge**0.5  # keeps the numbers near 1
        wait()
        durations.append(time.perf_counter() - started)
    return _REPEATS * 2 * edge**3 / min(durations)
