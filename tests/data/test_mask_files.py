"""A file counts as a mask only where its name and its pixels both say so."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.data.config import DataConfig
from kerasmed.data.image_set import read_images
from kerasmed.data.masks import is_mask_folder, suspected_masks
from kerasmed.data.measuring import read_measurements
from kerasmed.errors import DataError

RNG = np.random.default_rng(0)


def photograph(path: Path, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (32, 32), dtype=np.uint8)).save(path, **options)


def mask(path: Path, values: int = 2, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = (np.arange(32)[:, None] // 8 % values * (255 // max(1, values - 1))).astype(np.uint8)
    Image.fromarray(np.broadcast_to(stripes, (32, 32)).copy()).save(path, **options)


def names_left(folder: Path, cache: Path, **settings) -> tuple[list[str], list[str]]:
    """Names of the images and of the masks; both readings of a set agree."""
    data = DataConfig(source=folder, image_size=16, **settings)
    measurements = read_measurements(data, cache / "prints")
    images = read_images(data, cache / "images")
    assert [
        file.name.removeprefix(f"{folder}/") for file in images.files
    ] == measurements.names.tolist()
    return measurements.names.tolist(), measurements.masks.tolist()


LAYOUTS = {
    "suffix": "a/x{i}_mask.png",
    "suffix with a number": "a/x{i}_mask_1.png",
    "number in brackets": "a/x{i} mask (1).png",
    "another word": "a/x{i}-seg.png",
    "capitals": "a/x{i}_GT.png",
    "two words": "a/x{i}_ground_truth.png",
    "joined": "a/x{i}Mask.png",
    "any suffix": "a/x{i}_anything.png",
    "folder": "a/masks/x{i}.png",
    "folder by another word": "a/GT/x{i}.png",
    "word in front": "a/mask_x{i}.png",
    "word in front of a picture's number": "a/seg_x{i}.png",
    "folder in a folder": "a/ManualMask/leftMask/x{i}.png",
    "the same name with another ending": "a/x{i}.bmp",
    "folder of two words": "a/lesion_masks/mask x{i}.png",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_masks_beside_images_are_left_out(tmp_path, layout):
    for i in range(3):
        photograph(tmp_path / "set" / "a" / f"x{i}.png")
        photograph(tmp_path / "set" / "b" / f"y{i}.png")
        mask(tmp_path / "set" / layout.format(i=i))

    images, masks = names_left(tmp_path / "set", tmp_path)

    assert images == [*(f"a/x{i}.png" for i in range(3)), *(f"b/y{i}.png" for i in range(3))]
    assert masks == [layout.format(i=i) for i in range(3)]


def test_masks_are_images_where_the_settings_say_so(tmp_path):
    photograph(tmp_path / "set" / "a" / "x.png")
    photograph(tmp_path / "set" / "b" / "y.png")
    mask(tmp_path / "set" / "a" / "x_mask.png")

    assert len(names_left(tmp_path / "set", tmp_path, masks="keep")[0]) == 3


def test_names_alone_make_no_mask(tmp_path):
    for name in ("x.png", "x_mask.png", "masks/x.png", "x_labels.png", "xy.png"):
        photograph(tmp_path / "set" / "a" / name)
    photograph(tmp_path / "set" / "with_mask" / "x.png")

    images, masks = names_left(tmp_path / "set", tmp_path)

    assert len(images) == 6
    assert masks == []


def test_pixels_alone_make_no_mask(tmp_path):
    # Names of which one begins with another.
    for number in ("1", "10", "2", "2_1", "2a"):
        mask(tmp_path / "set" / "a" / f"{number}.png")
        mask(tmp_path / "set" / "b" / f"IM{number}.png")

    assert names_left(tmp_path / "set", tmp_path)[1] == []


def test_where_all_pictures_have_two_values_none_is_a_mask(tmp_path):
    for name in ("a/x.png", "a/x_left.png", "b/y.png", "b/y_seg.png"):
        mask(tmp_path / "set" / name)

    assert names_left(tmp_path / "set", tmp_path)[1] == []


def test_masks_of_several_values_are_known_by_their_name(tmp_path):
    photograph(tmp_path / "set" / "a" / "x.png")
    photograph(tmp_path / "set" / "b" / "y.png")
    mask(tmp_path / "set" / "a" / "x_seg.png", values=4)
    mask(tmp_path / "set" / "b" / "y_left.png", values=4)

    images, masks = names_left(tmp_path / "set", tmp_path)

    assert masks == ["a/x_seg.png"]
    assert "b/y_left.png" in images


def test_masks_saved_as_jpeg_are_left_out(tmp_path):
    for i in range(2):
        photograph(tmp_path / "set" / "ab"[i] / "x.jpg")
        mask(tmp_path / "set" / "ab"[i] / "x_mask.jpg", quality=80)

    assert len(names_left(tmp_path / "set", tmp_path)[1]) == 2


def test_masks_with_soft_edges_are_left_out(tmp_path):
    for name in "ab":
        photograph(tmp_path / "set" / name / "x.png")
        mask(tmp_path / "set" / name / "x_mask.png")
        path = tmp_path / "set" / name / "x_mask.png"
        Image.open(path).resize((200, 200), Image.Resampling.BICUBIC).save(path)

    assert len(names_left(tmp_path / "set", tmp_path)[1]) == 2


def test_masks_of_many_regions_are_left_out(tmp_path):
    regions = np.kron(np.arange(100, dtype=np.uint8).reshape(10, 10), np.ones((12, 12), np.uint8))
    for name in "ab":
        photograph(tmp_path / "set" / name / "x.png")
        Image.fromarray(regions).save(tmp_path / "set" / name / "x_labels.png")

    assert len(names_left(tmp_path / "set", tmp_path)[1]) == 2


def test_a_class_called_like_masks_is_kept_where_it_has_no_images_of_its_own(tmp_path):
    for i in range(3):
        photograph(tmp_path / "set" / "a" / f"x{i}.png")
        mask(tmp_path / "set" / "manual" / f"y{i}.png", values=4)

    images, masks = names_left(tmp_path / "set", tmp_path)

    assert (len(images), masks) == (6, [])


def test_a_broken_image_does_not_hide_its_mask(tmp_path):
    for name in "ab":
        photograph(tmp_path / "set" / name / "x.png")
        photograph(tmp_path / "set" / name / "y.png")
        mask(tmp_path / "set" / name / "x_mask.png")
    (tmp_path / "set" / "a" / "x.png").write_bytes(b"broken")
    data = DataConfig(source=tmp_path / "set")

    measurements = read_measurements(data, tmp_path / "prints")

    assert len(measurements.unreadable) == 1
    assert measurements.masks.tolist() == ["a/x_mask.png", "b/x_mask.png"]


def test_nothing_but_masks_is_refused_by_the_setting(tmp_path, capsys):
    for name in "ab":
        for i in range(3):
            mask(tmp_path / "set" / name / f"x{i}.png")
            photograph(tmp_path / "set" / name / f"x{i}.jpg")
    for path in (tmp_path / "set").rglob("*.jpg"):
        path.write_bytes(b"broken")

    assert main(["data", "check", str(tmp_path / "set"), "--out", str(tmp_path / "out")]) == 2
    assert "No image of" in capsys.readouterr().err


def flat(path: Path) -> None:
    """A picture of many values on a large black border, as X-rays are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((64, 64), np.uint8)
    pixels[24:40, 24:40] = RNG.integers(40, 200, (16, 16))
    Image.fromarray(pixels).save(path)


def test_flat_images_of_a_class_called_lesion_are_images(tmp_path):
    for i in range(3):
        flat(tmp_path / "set" / "lesion" / f"{i:03d}.png")
        photograph(tmp_path / "set" / "normal" / f"{i:03d}.png")

    images, masks = names_left(tmp_path / "set", tmp_path)

    assert (len(images), masks) == (6, [])


def test_cropped_images_are_images(tmp_path):
    for name in "ab":
        photograph(tmp_path / "set" / name / "original" / "x.png")
        flat(tmp_path / "set" / name / "segmented" / "x.png")

    images, masks = names_left(tmp_path / "set", tmp_path)

    assert (len(images), masks) == (4, [])


def test_empty_masks_are_left_out(tmp_path):
    for name in "ab":
        photograph(tmp_path / "set" / name / "x.png")
        mask(tmp_path / "set" / name / "x_mask.png", values=1)

    assert len(names_left(tmp_path / "set", tmp_path)[1]) == 2


def test_a_folder_of_masks_is_no_class(tmp_path):
    for i in range(3):
        photograph(tmp_path / "set" / "a" / f"x{i}.png")
        photograph(tmp_path / "set" / "b" / f"y{i}.png")
        mask(tmp_path / "set" / "masks" / f"x{i}.png")

    data = DataConfig(source=tmp_path / "set", image_size=16)

    assert read_images(data, tmp_path / "cache").class_names == ("a", "b")


def test_a_class_and_its_masks_are_refused_as_one_class(tmp_path):
    photograph(tmp_path / "set" / "images" / "x.png")
    mask(tmp_path / "set" / "masks" / "x.png")
    data = DataConfig(source=tmp_path / "set", image_size=16)

    with pytest.raises(DataError, match=r"received \['images'\] and masks; give .*images if"):
        read_images(data, tmp_path / "cache")


def test_volumes_of_labels_are_left_out_whole(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    for name in "ab":
        folder = tmp_path / "set" / name
        folder.mkdir(parents=True)
        scan = RNG.integers(0, 255, (16, 16, 3)).astype(np.uint8)
        scan[..., 0] = 0  # a slice without tissue is no mask
        labels = RNG.integers(0, 4, (16, 16, 3)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(scan, np.eye(4)), folder / "p1_t1.nii.gz")
        nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), folder / "p1_seg.nii.gz")

    images, masks = names_left(tmp_path / "set", tmp_path)

    assert images == [f"{name}/p1_t1.nii.gz#{i}" for name in "ab" for i in range(3)]
    assert masks == ["a/p1_seg.nii.gz", "b/p1_seg.nii.gz"]


@pytest.mark.parametrize(
    "name",
    [
        *("masks", "GT", "Ground Truth", "labels", "seg_1", "lesion_mask", "leftMask", "labelsTr"),
        *("lungmask", "SegmentationClass", "mask_png", "Masken", "manual_v2"),
    ],
)
def test_folders_of_masks(name):
    assert is_mask_folder(name)


@pytest.mark.parametrize("name", ["segment", "labelled", "gtx", "roitel", "images", "legs"])
def test_other_folders(name):
    assert not is_mask_folder(name)


def test_folders_above_the_set_say_nothing():
    root = Path("/data/masks/set")

    assert suspected_masks([root / "a" / "x.png"], ["x"], root) == {}
