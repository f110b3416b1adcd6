"""DICOM files of several frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import FRAMES, IDENTITY, dataset_of, pictures, refusal, row_of, write_dicom
from pydicom import Dataset, uid

from kerasmed.data.config import DataConfig, DicomConfig
from kerasmed.data.image_set import read_images


def test_several_frames_are_refused_with_the_remedy(tmp_path):
    path = write_dicom(dataset_of(FRAMES, NumberOfFrames=3), tmp_path / "a.dcm")

    message = refusal(path)

    assert "expected one frame, received 3; set data.dicom.frames: split" in message


def test_several_frames_are_split_in_order(tmp_path):
    path = write_dicom(dataset_of(FRAMES, NumberOfFrames=3, **IDENTITY), tmp_path / "a.dcm")

    frames = pictures(path, frames="split")

    assert [picture.frame for picture in frames] == [0, 1, 2]
    assert [row_of(picture) for picture in frames] == FRAMES[:, 0].tolist()


def test_one_frame_is_no_part(tmp_path):
    path = write_dicom(dataset_of(FRAMES[:1], NumberOfFrames=1, **IDENTITY), tmp_path / "a.dcm")

    assert [picture.frame for picture in pictures(path, frames="split")] == [None]


def test_fewer_frames_than_promised_are_refused(tmp_path):
    refusal(write_dicom(dataset_of(FRAMES, NumberOfFrames=4), tmp_path / "a.dcm"), frames="split")


@pytest.mark.parametrize("count", [-1, 0, None])
def test_number_of_frames_that_is_none_is_one(tmp_path, count):
    path = write_dicom(dataset_of(FRAMES[0], NumberOfFrames=count, **IDENTITY), tmp_path / "a.dcm")

    assert [row_of(picture) for picture in pictures(path)] == [FRAMES[0][0].tolist()]


def groups_of(rescale: dict[str, float] | None, window: dict[str, Any] | None) -> Dataset:
    """An item of the functional groups (PS3.3 C.7.6.16.2.9 and C.7.6.16.2.10)."""
    item = Dataset()
    for name, values in (
        ("PixelValueTransformationSequence", rescale),
        ("FrameVOILUTSequence", window),
    ):
        if values is not None:
            inner = Dataset()
            for keyword, value in values.items():
                setattr(inner, keyword, value)
            setattr(item, name, [inner])
    return item


SAME = {"RescaleSlope": 1, "RescaleIntercept": 0}
TWICE = {"RescaleSlope": 2, "RescaleIntercept": -100}
# Shows x as x / 2: the lower end is 255 - 510 / 2 = 0, the upper 510.
HALF = {"WindowCenter": 255.5, "WindowWidth": 511}


def test_enhanced_frames_have_their_own_rescaling_and_window(tmp_path):
    frames = np.array([[[0, 100, 204]]] * 3, dtype=np.uint16)
    exact = {"WindowCenter": 100, "WindowWidth": 200, "VOILUTFunction": "LINEAR_EXACT"}
    path = write_dicom(
        dataset_of(
            frames,
            NumberOfFrames=3,
            PerFrameFunctionalGroupsSequence=[
                groups_of(SAME, HALF),  # halved
                groups_of(TWICE, IDENTITY),  # -100, 100 and 308
                groups_of(SAME, exact),  # 100 / 200 * 255 = 127.5, and above the end
            ],
        ),
        tmp_path / "a.dcm",
    )

    rows = [row_of(picture) for picture in pictures(path, frames="split")]

    assert rows[:2] == [[0, 50, 102], [0, 100, 255]]
    assert rows[2][0] == 0
    assert rows[2][1] in (127, 128)
    assert rows[2][2] == 255


def test_enhanced_frames_share_groups(tmp_path):
    dataset = dataset_of(
        FRAMES,
        NumberOfFrames=3,
        SharedFunctionalGroupsSequence=[groups_of(TWICE, None)],
        PerFrameFunctionalGroupsSequence=[groups_of(None, w) for w in (IDENTITY, HALF, IDENTITY)],
    )
    path = write_dicom(dataset, tmp_path / "a.dcm")

    # 2 * stored - 100: -100, 100, 308; then -98, -96, -94; then 308, 0, -100.
    rows = [row_of(picture) for picture in pictures(path, frames="split")]

    assert rows == [[0, 100, 255], [0, 0, 0], [255, 0, 0]]


def test_chosen_window_overrides_that_of_every_frame(tmp_path):
    dataset = dataset_of(
        FRAMES,
        NumberOfFrames=3,
        PerFrameFunctionalGroupsSequence=[groups_of(SAME, HALF) for _ in FRAMES],
    )
    path = write_dicom(dataset, tmp_path / "a.dcm")

    frames = pictures(path, window=(128, 256), frames="split")

    assert [row_of(picture) for picture in frames] == FRAMES[:, 0].tolist()


def test_frames_become_images_of_one_group(tmp_path):
    for name in ("x", "y"):
        frames = FRAMES.repeat(8, axis=1) + ord(name)
        path = tmp_path / "set" / name / f"{name}.dcm"
        write_dicom(dataset_of(frames, NumberOfFrames=3, **IDENTITY), path)
    data = DataConfig(
        source=tmp_path / "set", image_size=16, dicom=DicomConfig(frames="split", window=(128, 256))
    )

    images = read_images(data, tmp_path / "cache")

    assert [file.frame for file in images.files] == [0, 1, 2] * 2
    assert [Path(file.name).name for file in images.files[:2]] == ["x.dcm#0", "x.dcm#1"]
    assert len({file.sha256 for file in images.files}) == 6


def test_segmentation_of_several_frames_is_a_mask(tmp_path):
    dataset = dataset_of(FRAMES, NumberOfFrames=3, SOPClassUID=uid.SegmentationStorage)

    assert [p.is_mask for p in pictures(write_dicom(dataset, tmp_path / "a.dcm"))] == [True] * 3
