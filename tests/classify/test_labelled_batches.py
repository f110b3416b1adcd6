import numpy as np
import pytest

from kerasmed.classify.augment import make_augmenter
from kerasmed.classify.batches import LabelledBatches, balancing_weights


def test_rare_classes_weigh_more_and_the_mean_over_images_is_one():
    labels = np.array([0, 0, 0, 1])
    weights = balancing_weights(labels, 2)
    np.testing.assert_allclose(weights, [4 / 6, 2.0])
    assert weights[labels].mean() == pytest.approx(1.0)
    np.testing.assert_array_equal(balancing_weights(labels, 2, enabled=False), [1, 1])


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
