"""Arithmetic of a network, counted by hand."""

from types import SimpleNamespace

import keras
import pytest

from kerasmed.diffusion import cost
from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.diffusion.cost import forward_flops, matrix_product_rate
from kerasmed.diffusion.unet import build_denoiser


def test_layers_by_hand():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 2, strides=2)(images)  # 4 x 4 places, each 2 x 2 x 3 by 4
    x = keras.layers.Conv2DTranspose(3, 2, strides=2)(x)  # the same products the other way
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(images, keras.layers.Dense(5)(x))

    assert forward_flops(model) == 2 * (16 * 48 + 16 * 48 + 3 * 5)


def test_attention_by_hand():
    tokens = keras.Input((10, 8))
    model = keras.Model(tokens, keras.layers.MultiHeadAttention(2, 4)(tokens, tokens))

    # Queries, keys, values and output: 8 x 8 each; then scores and their weighted sum.
    assert forward_flops(model) == 2 * 10 * 4 * 64 + 2 * 2 * 100 * 8


def test_attention_over_a_plane_costs_what_it_does_over_as_many_tokens():
    plane = keras.Input((2, 5, 8))
    model = keras.Model(plane, keras.layers.MultiHeadAttention(2, 4)(plane, plane))

    assert forward_flops(model) == 2 * 10 * 4 * 64 + 2 * 2 * 100 * 8


def test_wider_denoiser_costs_about_the_square():
    narrow, wide = (
        forward_flops(build_denoiser(16, 2, DiffusionConfig(widths=[width, width])))
        for width in (16, 32)
    )

    assert 3.5 < wide / narrow < 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_second_of_other_work_does_not_slow_the_machine(monkeypatch, dtype):
    edge, ends = cost._EDGE, iter([0.0, 8.0, 8.0, 10.0, 10.0, 14.0])  # 8, 2 and 4 s
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: next(ends)))
    monkeypatch.setattr(cost, "list_gpus", list)

    assert matrix_product_rate(dtype) == cost._REPEATS * 2 * edge**3 / 2.0
