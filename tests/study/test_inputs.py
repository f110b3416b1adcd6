"""A synthetic set is read with the labels that its folders stand for."""

import numpy as np
from conftest import TINY
from PIL import Image

from kerasmed.data.entries import folder_name
from kerasmed.study.config import parse_config
from kerasmed.study.inputs import load_images, read_synthetic
from kerasmed.study.run_folder import RunFolder

# Their folders "%2Ea", "(b" and "c%2Fd" sort otherwise.
SHADES = {"(b": 10, ".a": 20, "c/d": 30}


def test_folders_of_a_synthetic_set_are_read_as_labels(tmp_path):
    run = RunFolder(tmp_path / "run")
    for label, shade in SHADES.items():
        path = run.synthetic / folder_name(label) / "000000.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((16, 16, 3), shade, np.uint8)).save(path)

    images = read_synthetic(parse_config(TINY, "test"), run)

    assert images.class_names == tuple(sorted(SHADES))
    for position, file in enumerate(images.files):
        label = images.class_names[images.labels[position]]
        assert images.images[position].mean() == SHADES[label]
        assert file.class_name == label
        assert file.path.parent.name == folder_name(label)
    assert images.counts() == dict.fromkeys(SHADES, 1)


def test_a_users_own_folders_are_read_as_labels_too(tmp_path):
    for name in ("%2Ea", "(b"):
        path = tmp_path / "own" / name / "a.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(path)
    data = {"source": str(tmp_path / "own"), "image_size": 16}
    config = parse_config({**TINY, "data": data}, "test")

    assert load_images(config, RunFolder(tmp_path / "run")).class_names == ("(b", ".a")
