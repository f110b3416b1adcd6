"""Synthetic images say so, and are not taken for real ones."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import phantom_set
from data.dicom_files import dataset_of, write_dicom
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from kerasmed.cli.main import main
from kerasmed.data.image_set import ImageSet
from kerasmed.data.marks import SOURCE_TYPE, SYNTHETIC, Mark, is_marked, mark_of, write_marked_png
from kerasmed.errors import DataError
from kerasmed.study.run_folder import RunFolder

MARK = Mark('a "program" <1.0> & others', "5f2c", "0-000001")
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)


@pytest.fixture
def marked(tmp_path) -> Path:
    write_marked_png(tmp_path / "marked.png", PIXELS, MARK)
    return tmp_path / "marked.png"


def folder_with(folder: Path, marked: int) -> Path:
    """A set of two classes, of which so many images are marked."""
    images = phantom_set(per_class=4, size=24)
    images.to_directory(folder)
    for path in sorted(folder.rglob("*.png"))[:marked]:
        with Image.open(path) as image:
            write_marked_png(path, np.asarray(image), MARK)
    return folder


def info_of(path: Path) -> dict:
    with Image.open(path) as image:
        return image.info


def test_pixels_stay_and_the_mark_reads_back(marked):
    with Image.open(marked) as image:
        np.testing.assert_array_equal(np.asarray(image), PIXELS)
    assert mark_of(marked) == MARK


def test_mark_is_xmp_that_other_programs_read(marked):
    packet = info_of(marked)["XML:com.adobe.xmp"]
    root = ET.fromstring(packet.split("?>", 1)[1].rsplit("<?xpacket", 1)[0])
    (description,) = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    extension, core = (
        "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
        "http://purl.org/dc/elements/1.1/",
    )
    assert description.get(f"{{{extension}}}DigitalSourceType") == SOURCE_TYPE
    assert description.get(f"{{{core}}}identifier") == "5f2c/0-000001"
    assert description.get("{http://ns.adobe.com/xap/1.0/}CreatorTool") == MARK.generator


def test_marks_of_other_programs_are_recognised(tmp_path):
    packet = f"<x>{SOURCE_TYPE.replace('trained', 'compositeWithTrained')}</x>"
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet)
    Image.fromarray(PIXELS).save(tmp_path / "a.png", pnginfo=info)
    Image.fromarray(PIXELS).save(tmp_path / "b.jpg", xmp=packet.encode())
    Image.fromarray(PIXELS).save(tmp_path / "c.png")
    found = [is_marked(info_of(path)) for path in sorted(tmp_path.iterdir())]
    assert found == [True, True, False]
    assert mark_of(tmp_path / "a.png") is None


def test_odd_tags_are_no_marks_and_reject_no_file():
    assert not is_marked({"xmp": 5, "DigitalSourceType": (1, 2)})


def test_drawn_set_is_marked_where_it_is_written(tmp_path):
    images = phantom_set(per_class=4, size=24)
    marked = tuple(replace(file, notes=(SYNTHETIC,)) for file in images.files)
    drawn = replace(images, files=marked).subset([0, 5])
    assert drawn.notes == {"marked as synthetic": 2}
    drawn.to_directory(tmp_path / "drawn")
    paths = sorted((tmp_path / "drawn").rglob("*.png"))
    assert [mark_of(path).set_id for path in paths] == [drawn.data_hash[:16]] * 2

    mixed = images + drawn
    assert mixed.is_synthetic.tolist() == [False] * 8 + [True] * 2
    assert mixed.notes == {"marked as synthetic": 2}
    assert mixed.subset([0, 8]).is_synthetic.tolist() == [False, True]
    mixed.to_directory(tmp_path / "mixed")
    paths = sorted((tmp_path / "mixed").rglob("*.png"), key=lambda path: path.name)
    assert [mark_of(path) is not None for path in paths] == mixed.is_synthetic.tolist()


def test_marked_images_are_refused_unless_allowed(tmp_path):
    folder = folder_with(tmp_path / "set", marked=3)
    with pytest.raises(DataError, match="expected real images, received 3 of 8 that are marked"):
        ImageSet.from_directory(folder, 24)
    images = ImageSet.from_directory(folder, 24, synthetic="allow")
    assert images.notes == {"marked as synthetic": 3}
    assert images.is_synthetic.tolist() == [True] * 3 + [False] * 5
    unmarked = folder_with(tmp_path / "real", marked=0)
    np.testing.assert_array_equal(images.images, ImageSet.from_directory(unmarked, 24).images)


def test_cache_of_an_allowed_set_is_not_one_of_real_images(tmp_path):
    folder = folder_with(tmp_path / "set", marked=1)
    ImageSet.from_directory(folder, 24, cache=tmp_path / "cache", synthetic="allow")
    with pytest.raises(DataError, match="received 1 of 8"):
        ImageSet.from_directory(folder, 24, cache=tmp_path / "cache")


def test_marked_deep_image_is_recognised(tmp_path):
    folder = folder_with(tmp_path / "set", marked=0)
    info = PngInfo()
    info.add_text("DigitalSourceType", SOURCE_TYPE)
    values = PIXELS[..., 0].astype(np.uint16) * 200
    Image.fromarray(values).save(next(folder.rglob("*.png")), pnginfo=info)
    with pytest.raises(DataError, match="received 1 of 8"):
        ImageSet.from_directory(folder, 24)


def test_dicom_that_says_so_is_recognised(tmp_path):
    folder = folder_with(tmp_path / "set", marked=0)
    dataset = dataset_of(PIXELS[..., 0], bits=8)
    dataset.SyntheticData = "YES"
    write_dicom(dataset, next(folder.iterdir()) / "drawn.dcm")
    with pytest.raises(DataError, match="received 1 of 9"):
        ImageSet.from_directory(folder, 24)
    assert pydicom.dcmread(next(folder.rglob("*.dcm"))).SyntheticData == "YES"


def test_data_check_and_split_say_so(tmp_path, capsys):
    folder = folder_with(tmp_path / "set", marked=2)
    assert main(["data", "check", str(folder)]) == 0
    assert "2 images: marked as synthetic." in capsys.readouterr().out
    config = tmp_path / "x.yaml"
    config.write_text("name: x\ndata: {image_size: 32}\nsplit: {train: 0.3, test: 0.3}\n")
    command = ["data", "split", str(config), "--data", str(folder), "--out", str(tmp_path / "run")]
    assert main(command) == 2
    assert "set data.synthetic: allow" in capsys.readouterr().err


def test_every_image_of_a_study_is_marked_with_its_set(tiny_run):
    run = RunFolder(tiny_run)
    paths = sorted(run.synthetic.rglob("*.png"))
    marks = [mark_of(path) for path in paths]
    assert all(mark is not None for mark in marks)
    assert {mark.set_id for mark in marks} == {marks[0].set_id}
    assert len({mark.number for mark in marks}) == len(paths)
    text = str([info_of(path) for path in paths[:3]])
    assert str(tiny_run) not in text
    assert "clear" not in text
