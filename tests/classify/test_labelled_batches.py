import dataclasses

import numpy as np
import pytest

from kerasmed.classify.augment import make_augmenter
from kerasmed.classify.batches import LabelledBatches, Sources, balancing_weights


def test_rare_classes_weigh_more_and_the_mean_over_images_is_one():
    labels = np.array([0, 0, 0, 1])
    targets = np.eye(2)[labels]
    weights = balancing_weights(targets)
    np.testing.assert_allclose(weights, [4 / 6, 2.0])
    assert weights[labels].mean() == pytest.approx(1.0)
    np.testing.assert_array_equal(balancing_weights(targets, enabled=False), [1, 1])


@pytest.mark.parametrize("mixing", ["none", "mixup", "cutmix"])
def test_workers_make_the_shards_of_the_batch_that_one_process_makes(mixing, phantoms):
    augment, weights = make_augmenter("medium"), np.array([0.5, 2.0])

    def batches(*shard: int) -> LabelledBatches:
        return LabelledBatches(phantoms, 8, "mirror", augment, mixing, weights, 3, shard=shard)

    whole = batches(0, 1)
    # The sixth batch crosses from one epoch to the next; what was made before does not matter.
    for index in (5, 0, 5):
        shards = [batches(i, 2)[index] for i in (0, 1)]
        for expected, *received in zip(whole[index], *shards, strict=True):
            assert len(received[0]) == 4
            np.testing.assert_array_equal(np.concatenate(received), expected)
    assert not np.array_equal(whole[0][0], whole[5][0])


@pytest.mark.parametrize("mixing", ["none", "mixup", "cutmix"])
def test_synthetic_images_have_their_fraction_and_weight(mixing, phantoms):
    """Of 20 images the last 15 are synthetic; labels say which image is which."""
    sources = Sources(5, 15, fraction=0.25, weight=0.5)
    images = dataclasses.replace(
        phantoms, labels=np.arange(20), class_names=tuple("abcdefghijklmnopqrst")
    )
    batches = LabelledBatches(
        images, 8, "none", make_augmenter("none"), mixing, np.ones(20), 0, sources=sources
    )
    _, targets, weights = (
        np.concatenate(x) for x in zip(*(batches[i] for i in range(30)), strict=True)
    )
    np.testing.assert_allclose(
        weights, targets[:, :5].sum(1) + 0.5 * targets[:, 5:].sum(1), atol=1e-6
    )
    shown = targets.sum(axis=0)
    assert shown[5:].sum() == pytest.approx(60, abs=20 if mixing != "none" else 0)
    if mixing == "none":  # each image of a source as often as the others of it
        assert set(shown[:5]) == {36.0}
        assert set(shown[5:]) == {4.0}


def test_without_a_fraction_each_image_is_shown_as_often_as_any_other(phantoms):
    plain, split = (
        LabelledBatches(
            phantoms, 8, "mirror", make_augmenter("light"), "none", np.ones(2), 1, sources=sources
        )
        for sources in (None, Sources(5, 15))
    )
    for expected, received in zip(plain[3], split[3], strict=True):
        np.testing.assert_array_equal(received, expected)


def test_classes_balance_what_is_shown():
    """Three of four images shown are synthetic, all of them of the second class."""
    shown = Sources(10, 10, fraction=0.75).shown()
    labels = np.repeat([0, 1], 10)
    weights = balancing_weights(np.eye(2)[labels], shown=shown)
    np.testing.assert_allclose(weights, [2.0, 2 / 3])
    assert (weights[labels] * shown).mean() == pytest.approx(1)


def test_soft_labels_are_learned_and_counted_in_the_class_weights(phantoms):
    probabilities = np.random.default_rng(0).dirichlet([1, 1], len(phantoms)).astype(np.float32)
    soft = dataclasses.replace(phantoms, probabilities=probabilities)
    weights = balancing_weights(soft.targets)
    np.testing.assert_allclose(weights * probabilities.sum(axis=0), len(soft) / 2, rtol=1e-5)
    batches = LabelledBatches(soft, 8, "none", make_augmenter("none"), "none", weights, 0)
    _, targets, of_images = batches[0]
    order = [batches._order(sample)[1] for sample in range(8)]
    np.testing.assert_array_equal(targets, probabilities[order])
    np.testing.assert_allclose(of_images, probabilities[order] @ weights, rtol=1e-5)
