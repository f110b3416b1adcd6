"""What a step of the denoiser costs, and how near the machine comes to what it can do."""

import time

import keras
import numpy as np
from keras import ops

from kerasmed.random_streams import Purpose, random_stream
from kerasmed.runtime.backend import list_gpus

# Backward takes about twice the arithmetic of forward: one product for the inputs, one for the
# weights (Kaplan et al., arXiv:2001.08361, section 2.1).
TRAINING_PASSES = 3
# Of the matrices whose product is timed: large enough that all cores take part (at 1,024 TensorFlow
# leaves one of two idle), and on a GPU that starting it takes none of the time.
_EDGE, _EDGE_ON_GPU = 2048, 8192
_REPEATS, _ROUNDS = 4, 3


def forward_flops(model: keras.Model) -> int:
    """Floating-point operations of the matrix products in one image's forward pass.

    A multiplication and its addition count as two; everything that is no convolution, dense layer
    or attention is left out, being small in comparison.

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
    """Floating-point operations a second of the machine's own matrix product.

    The best of three rounds: slowed by other work, it would make the share of it that a training
    reaches come out too high.

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
            a = ops.matmul(a, a) / edge**0.5  # so that the numbers stay near 1
        wait()
        durations.append(time.perf_counter() - started)
    return _REPEATS * 2 * edge**3 / min(durations)
