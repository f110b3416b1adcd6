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


def forward_flops(model: keras.Model) -> int:
    """Floating-point operations of the matrix products in one image's forward pass.

    A multiplication and its addition count as two. Only convolutions, dense layers and attention
    count; everything else is small in comparison.

    Args:
        model: a functional model whose image inputs have fixed sizes.
    """
    return sum(_layer_flops(layer) for layer in model.layers)


def _layer_flops(layer: keras.Layer) -> int:
    if isinstance(layer, keras.layers.Conv2DTranspose):  # each input position meets the kernel once
        return 2 * int(np.prod(layer.input.shape[1:3])) * int(np.prod(layer.kernel.shape))
    if isinstance(layer, keras.layers.Conv2D):
        return 2 * int(np.prod(layer.output.shape[1:3])) * int(np.prod(layer.kernel.shape))
    if isinstance(layer, keras.layers.Dense):
        return 2 * int(np.prod(layer.kernel.shape))
    if isinstance(layer, keras.layers.MultiHeadAttention):
        *positions, width = layer.output.shape[1:]
        tokens = int(np.prod(positions))
        return 2 * tokens * 4 * width * width + 2 * 2 * tokens * tokens * width
    return 0


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
