import numpy as np
import pytest

from kerasmed.classify.mixing import mix

# Images of one grey each, so that a mixed image's mean says what it took in.
GREYS = np.array([0, 80, 160, 240])
IMAGES = np.zeros((4, 16, 16, 3), np.uint8) + GREYS.astype(np.uint8)[:, None, None, None]
LABELS = np.eye(4, dtype=np.float32)


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_labels_are_mixed_as_the_images_are(mixing):
    mixed_labels = 0
    for seed in range(50):
        images, labels = mix(IMAGES, LABELS, mixing, np.random.default_rng(seed))
        assert (images.dtype, labels.dtype) == (np.uint8, np.float32)
        np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), labels @ GREYS, atol=0.51)
        mixed_labels += ((labels > 0.05).sum(axis=1) > 1).sum()
    assert mixed_labels > 20


def test_cutmix_takes_a_box():
    images, _ = mix(IMAGES, LABELS, "cutmix", np.random.default_rng(0))
    for image, grey in zip(images[..., 0], GREYS, strict=True):
        rows, columns = np.nonzero(image != grey)
        if len(rows):
            box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert len(np.unique(box)) == 1


def test_none_leaves_both_as_they_are():
    images, labels = mix(IMAGES, LABELS, "none", np.random.default_rng(0))
    assert images is IMAGES
    assert labels is LABELS


def test_a_seed_repeats_and_the_batch_given_stays():
    before = IMAGES.copy()
    one, other = (mix(IMAGES, LABELS, "cutmix", np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
    np.testing.assert_array_equal(IMAGES, before)
