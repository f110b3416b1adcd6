"""The order of a training."""

import numpy as np

from kerasmed.data.order import EpochOrder, MixedOrder
from kerasmed.random_streams import Purpose

PURPOSE = Purpose.DENOISER_ORDER


def positions(order: EpochOrder, samples) -> list[int]:
    return [order(sample)[1] for sample in samples]


def test_every_epoch_visits_every_image_once():
    order = EpochOrder(7, seed=0, purpose=PURPOSE)

    for epoch in range(5):
        visits = [order(sample) for sample in range(7 * epoch, 7 * epoch + 7)]
        assert [visit[0] for visit in visits] == [epoch] * 7
        assert sorted(visit[1] for visit in visits) == list(range(7))


def test_epochs_have_different_orders():
    order = EpochOrder(50, seed=0, purpose=PURPOSE)

    assert positions(order, range(50)) != positions(order, range(50, 100))


def test_seeds_have_different_orders():
    assert positions(EpochOrder(50, 0, purpose=PURPOSE), range(50)) != positions(
        EpochOrder(50, 1, purpose=PURPOSE), range(50)
    )


def test_position_does_not_depend_on_what_was_asked_before():
    samples = np.random.default_rng(0).permutation(60).tolist()

    jumping = positions(EpochOrder(12, seed=3, purpose=PURPOSE), samples)

    assert jumping == [EpochOrder(12, seed=3, purpose=PURPOSE)(sample)[1] for sample in samples]


def test_resuming_in_the_middle_continues_the_order():
    whole = positions(EpochOrder(9, seed=1, purpose=PURPOSE), range(30))

    assert positions(EpochOrder(9, seed=1, purpose=PURPOSE), range(13, 30)) == whole[13:]


def test_single_image_is_visited_in_every_epoch():
    assert [EpochOrder(1, seed=0, purpose=PURPOSE)(sample) for sample in range(3)] == [
        (0, 0),
        (1, 0),
        (2, 0),
    ]


def test_mixed_order_shows_each_set_in_its_own_order():
    first, second = EpochOrder(4, 0, PURPOSE), EpochOrder(10, 1, PURPOSE)
    order = MixedOrder(first, second, 0.3)
    shown = positions(order, range(100))
    assert [p for p in shown if p < 4] == positions(first, range(70))
    assert [p - 4 for p in shown if p >= 4] == positions(second, range(30))
    assert all(2 <= sum(p >= 4 for p in shown[i : i + 10]) <= 4 for i in range(90))
    assert order(57) == MixedOrder(first, second, 0.3)(57)
