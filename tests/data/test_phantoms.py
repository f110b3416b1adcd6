"""Made-up images: repeatable, with a region, and not too easy."""

import numpy as np
import pytest
from PIL import Image
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression

from kerasmed.data.phantoms import FAMILIES, draw_phantom, write_phantoms

ALL = [(family, name) for family, painters in FAMILIES.items() for name in painters]
WITHOUT_REGION = {"no_lesion", "clear"}


def draw_many(family: str, name: str, count: int, size: int, seed: int = 0) -> np.ndarray:
    return np.stack([draw_phantom(family, name, i, size, seed)[0] for i in range(count)])


@pytest.mark.parametrize("size", [16, 48])
@pytest.mark.parametrize(("family", "name"), ALL)
def test_every_class_draws_at_every_size(family, name, size):
    image, mask = draw_phantom(family, name, 0, size, seed=0)

    assert (image.dtype, image.shape) == (np.uint8, (size, size, 3))
    assert (mask.dtype, mask.shape) == (np.bool_, (size, size))
    assert image.std() > 5


@pytest.mark.parametrize(("family", "name"), ALL)
def test_same_arguments_same_bytes(family, name):
    first, second = (draw_phantom(family, name, 5, 24, seed=1) for _ in range(2))

    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


@pytest.mark.parametrize(("family", "name"), ALL)
def test_index_and_seed_change_the_image(family, name):
    images = [draw_phantom(family, name, i, 24, seed)[0] for i in (0, 1) for seed in (0, 1)]

    assert len({image.tobytes() for image in images}) == 4


@pytest.mark.parametrize(("family", "name"), ALL)
def test_mask_is_empty_only_for_classes_without_a_region(family, name):
    covered = [draw_phantom(family, name, i, 48, seed=0)[1].mean() for i in range(40)]

    if name in WITHOUT_REGION:
        assert max(covered) == 0
    else:
        assert min(covered) > 0
        assert max(covered) < 0.9


@pytest.mark.parametrize(("family", "name"), [("mri", "midline_lesion"), ("ct", "ground_glass")])
def test_mask_is_never_empty_at_the_smallest_size(family, name):
    assert all(draw_phantom(family, name, i, 16, seed=0)[1].any() for i in range(300))


def test_families_differ_for_the_same_index():
    first = draw_phantom("mri", "no_lesion", 0, 32, seed=0)[0]

    assert not np.array_equal(first, draw_phantom("ct", "clear", 0, 32, seed=0)[0])


@pytest.mark.parametrize("family", ["mri", "ct"])
def test_scans_are_grey(family):
    name = next(iter(FAMILIES[family]))
    image = draw_phantom(family, name, 0, 32, seed=0)[0]

    np.testing.assert_array_equal(image, image[..., :1].repeat(3, axis=2))


def test_smears_are_in_colour():
    image = draw_phantom("smear", "pro", 0, 32, seed=0)[0].astype(int)

    assert np.abs(image[..., 0] - image[..., 1]).mean() > 5


def learn(model, family: str, size: int = 32) -> float:
    """Accuracy on 20 phantoms a class after training on the green pixels of 40 others."""
    names = list(FAMILIES[family])
    pixels = np.concatenate([draw_many(family, name, 60, size)[..., 1] for name in names])
    x = pixels.reshape(len(pixels), -1) / 255.0 - 0.5
    y = np.repeat(np.arange(len(names)), 60)
    trains = np.tile(np.arange(60) < 40, len(names))
    return model.fit(x[trains], y[trains]).score(x[~trains], y[~trains])


@pytest.mark.parametrize("family", FAMILIES)
def test_classes_differ(family):
    accuracy = learn(ExtraTreesClassifier(100, random_state=0), family, 16)

    assert accuracy > 1.5 / len(FAMILIES[family])


def test_pixels_alone_do_not_solve_the_task():
    assert 1 / len(FAMILIES["mri"]) < learn(LogisticRegression(max_iter=1000), "mri") < 0.95


def test_brightness_alone_does_not_tell_the_class():
    for family, painters in FAMILIES.items():
        for name, other in zip(list(painters)[:-1], list(painters)[1:], strict=True):
            first, second = (
                draw_many(family, n, 40, 24).mean(axis=(1, 2, 3)) for n in (name, other)
            )
            assert first.min() < second.max()
            assert second.min() < first.max()


def test_folder_of_phantoms_has_images_and_masks(tmp_path):
    write_phantoms(tmp_path, "ct", per_class=2, size=16, seed=4)

    folder = tmp_path / "phantoms"
    names = [f"{c}/{c}-0000{i}.png" for c in ("clear", "ground_glass") for i in (0, 1)]
    for root in (folder, tmp_path / "masks"):
        assert sorted(str(p.relative_to(root)) for p in root.rglob("*.png")) == names
    image, mask = draw_phantom("ct", "ground_glass", 1, 16, seed=4)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / names[3])), image)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "masks" / names[3])), mask * 255)


def test_unknown_class_is_an_error():
    with pytest.raises(ValueError, match="not in list"):
        draw_phantom("mri", "fracture", 0, 16, seed=0)
