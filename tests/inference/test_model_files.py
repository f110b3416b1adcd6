"""One model and files that belong to no study: volumes, ranges, lists and hidden files."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from conftest import TINY
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.data.find_images import find_images, read_list
from kerasmed.errors import DataError, DataWarning, InputError
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.evaluate import evaluate_folder
from kerasmed.inference.predict import predict_files

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

VOLUME = np.stack([np.full((4, 4), grey, np.uint8) for grey in (0, 51, 255)], axis=2)


def volume(path: Path, values: np.ndarray = VOLUME) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)
    return path


def trained_on(model: Path, **formats: Any) -> Path:
    """The model with what its training images were read by."""
    proto = onnx.load(model)
    proto.metadata_props.add(key="kerasmed.formats", value=json.dumps(formats))
    onnx.save(proto, model)
    return model


def deep(path: Path, value: int) -> Path:
    Image.fromarray(np.full((4, 4), value, np.uint16)).save(path)
    return path


def red_of(rows: list[dict]) -> list[float]:
    """Mean red of 0 to 1, from which the hand-made model makes its probabilities."""
    return [float(np.log(row["probabilities"]["r"] / row["probabilities"]["g"])) for row in rows]


# Volumes and frames


def test_each_slice_of_a_volume_is_a_row(model_path, tmp_path):
    paths = [volume(tmp_path / "x.nii.gz"), deep(tmp_path / "y.png", 3), volume(tmp_path / "z.nii")]

    rows = list(predict_files(OnnxClassifier(model_path, grey_range=(0, 4095)), paths))

    assert [row["image"] for row in rows] == [
        *(f"{paths[0]}#{i}" for i in range(3)),
        str(paths[1]),
        *(f"{paths[2]}#{i}" for i in range(3)),
    ]


def test_slices_are_those_of_the_volume_in_order(model_path, tmp_path):
    engine = OnnxClassifier(model_path)

    features = [
        engine.features([pixels])[0, 0] for _, pixels in engine.read_all(volume(tmp_path / "x.nii"))
    ]

    np.testing.assert_allclose(features, [0, 0.2, 1], atol=1e-6)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_one_slice_may_be_named(model_path, tmp_path, number):
    path = tmp_path / f"{volume(tmp_path / 'x.nii.gz').name}#{number}"
    engine = OnnxClassifier(model_path)

    [row] = predict_files(engine, [path])

    assert row["image"] == str(path)
    np.testing.assert_allclose(engine.features([path])[0, 0], [0, 0.2, 1][number], atol=1e-6)


def test_a_slice_that_is_not_there_is_refused(model_path, tmp_path):
    volume(tmp_path / "x.nii.gz")

    [row] = predict_files(OnnxClassifier(model_path), [tmp_path / "x.nii.gz#3"])

    assert "expected the number of one of its slices, up to 2" in row["error"]


def test_frames_of_dicom_and_volumes_of_a_series_are_rows(model_path, tmp_path):
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.CTImageStorage, "1.2.3"
    dataset.Rows = dataset.Columns = 4
    dataset.NumberOfFrames, dataset.BitsAllocated = 10, 16
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 15, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelData = np.arange(160, dtype="<u2").tobytes()
    dataset.save_as(tmp_path / "frames.dcm", enforce_file_format=True)
    volume(tmp_path / "series.nii", np.stack([VOLUME, VOLUME], axis=3))
    engine = OnnxClassifier(model_path, grey_range=(0, 1000))

    rows = list(predict_files(engine, [tmp_path / "frames.dcm", tmp_path / "series.nii"]))

    names = [Path(row["image"]).name for row in rows]
    assert names[:10] == [f"frames.dcm#{i}" for i in range(10)]
    assert names[10:] == [f"series.nii#{i}" for i in range(6)]


def test_a_file_that_breaks_off_does_not_end_the_others(model_path, tmp_path):
    (tmp_path / "x.nii").write_bytes(volume(tmp_path / "y.nii").read_bytes()[:-5])

    rows = list(predict_files(OnnxClassifier(model_path), [tmp_path / "x.nii", tmp_path / "y.nii"]))

    assert "error" in rows[0]
    assert len(rows) == 4


def test_one_file_for_one_image_names_the_slices(model_path, tmp_path):
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(tmp_path / "one.png")
    assert len(list(OnnxClassifier(model_path).read_all(tmp_path / "one.png#0"))) == 1
    with pytest.raises(DataError, match=r"expected one; name one, such as x.nii#0"):
        OnnxClassifier(model_path).predict([volume(tmp_path / "x.nii")])


# Ranges


def test_a_model_shows_values_as_its_training_images_were_shown(model_path, tmp_path):
    engine = OnnxClassifier(trained_on(model_path, grey_range=[1000, 2000]))

    features = engine.features([deep(tmp_path / f"{v}.png", v) for v in (900, 1200, 2500)])

    np.testing.assert_allclose(features[:, 0], [0, 0.2, 1], atol=1e-6)


def test_a_model_without_a_range_asks_for_one(model_path, tmp_path, capsys):
    path = deep(tmp_path / "x.png", 1200)

    assert main(["predict", str(model_path), str(path)]) == 2
    assert "--grey-range LOW,HIGH" in capsys.readouterr().err
    arguments = ["predict", str(model_path), str(path), "--json", "--grey-range=1000,2000"]
    assert main(arguments) == 0
    row = json.loads(capsys.readouterr().out)
    assert red_of([row]) == pytest.approx([0], abs=1e-6)  # grey: all channels alike


@pytest.mark.parametrize("given", ["2000,1000", "1000", "a,b", "1,2,3"])
def test_a_range_that_is_none_is_refused(model_path, tmp_path, capsys, given):
    path = deep(tmp_path / "x.png", 1200)

    assert main(["predict", str(model_path), str(path), f"--grey-range={given}"]) == 2
    assert "LOW" in capsys.readouterr().err


def test_a_model_with_a_range_takes_no_other(model_path):
    trained_on(model_path, grey_range=[1000, 2000])

    with pytest.raises(InputError, match=r"was trained with the grey range \[1000, 2000\]"):
        OnnxClassifier(model_path, grey_range=(0, 1))


def test_faults_that_were_passed_over_are_said_once(model_path, tmp_path, capsys):
    values = VOLUME.astype(np.float32)
    values[0, 0] = np.nan
    paths = [str(volume(tmp_path / f"{i}.nii", values)) for i in range(3)]

    assert main(["predict", str(model_path), *paths, "--grey-range=0,255"]) == 0

    assert capsys.readouterr().err.count("shown black; set data.nan_value") == 1
    with pytest.warns(DataWarning, match="shown black"):
        list(OnnxClassifier(model_path, grey_range=(0, 255)).read_all(Path(paths[0])))


@pytest.fixture(scope="module")
def deep_study(tmp_path_factory) -> Path:
    """A study of 12-bit images in files of 16 bits, up to its exported CNN."""
    folder = tmp_path_factory.mktemp("deep")
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 2000)):
        (folder / "set" / name).mkdir(parents=True)
        for i in range(30):
            pixels = rng.integers(low, low + 2096, (24, 24), dtype=np.uint16)
            Image.fromarray(pixels).save(folder / "set" / name / f"{i}.png")
    settings = {**TINY, "data": {"source": str(folder / "set"), "image_size": 16}}
    (folder / "x.yaml").write_text(yaml.safe_dump(settings))
    arguments = [str(folder / "x.yaml"), "--out", str(folder / "run")]
    real = ["--set", "classifiers.train_on=[real]"]
    assert main(["train", "classifier", *arguments, *real]) == 0
    assert main(["export", *arguments, *real]) == 0
    return folder


def test_the_range_of_the_training_images_is_in_the_record_and_in_the_model(deep_study):
    record = json.loads((deep_study / "run" / "run.json").read_text())
    low, high = record["stages"]["data"]["result"]["grey_range"]
    [path] = (deep_study / "run" / "exported").glob("*.onnx")

    engine = OnnxClassifier(path)

    assert (low < 100, high > 3900) == (True, True)
    assert engine.formats["grey_range"] == [low, high]
    files = json.loads((deep_study / "run" / "split.json").read_text())["files"]
    decoded = np.load(deep_study / "run" / "cache" / "real-16.npy")
    read = np.stack([engine.read_one(Path(file["path"])) for file in files])
    np.testing.assert_array_equal(read, decoded)


def test_leakage_is_measured_in_the_range_of_the_study(deep_study):
    arguments = [str(deep_study / "x.yaml"), "--out", str(deep_study / "run")]

    assert main(["data", "leakage", *arguments, "--set", "classifiers.train_on=[real]"]) == 0


def test_evaluate_shows_the_network_what_it_was_trained_on(deep_study):
    [path] = (deep_study / "run" / "exported").glob("*.onnx")
    files = json.loads((deep_study / "run" / "split.json").read_text())["files"]
    decoded = np.load(deep_study / "run" / "cache" / "real-16.npy")
    predicted = OnnxClassifier(path).predict(decoded).argmax(axis=1)
    names = ["dark", "light"]
    right = np.mean([names[p] == f["class"] for p, f in zip(predicted, files, strict=True)])

    metrics = evaluate_folder(path, deep_study / "set")

    assert metrics["accuracy"] == pytest.approx(right)


# Lists and hidden files


def test_standard_input_is_not_read_unless_it_is_asked_for(model_path, tmp_path, monkeypatch):
    class Untouched:
        def __getattr__(self, name):
            raise AssertionError(f"{name} of standard input was asked for")

    image = deep(tmp_path / "x.png", 3)
    monkeypatch.setattr("sys.stdin", Untouched())
    assert main(["predict", str(model_path), str(image), "--grey-range=0,9"]) == 0
    monkeypatch.setattr("sys.stdin", None)
    assert main(["predict", str(model_path), str(image), "--grey-range=0,9"]) == 0
    assert main(["predict", str(model_path), "-"]) == 2


def test_names_of_one_folder_are_told_apart_by_their_endings(model_path, tmp_path):
    for name in ("s.png", "s.bmp"):
        Image.fromarray(np.full((4, 4), 9, np.uint8)).save(tmp_path / name)
    arguments = ["explain", str(model_path), str(tmp_path), "--out", str(tmp_path / "out")]
    few = ["--set", "explain.num_samples=20", "--set", "explain.min_samples=10"]

    assert main([*arguments, *few, "--set", "explain.checks=false"]) == 0

    names = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert names == {"s.png.png", "s.bmp.png"}


@pytest.mark.parametrize(
    ("encoding", "newline"),
    [("utf-8", "\n"), ("utf-8", "\r\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\r\n")],
)
def test_lists_of_other_systems_are_read(encoding, newline):
    names = ["a.png", "größe 日本.png", " two words .png", ""]
    content = newline.join([*names, ""]).encode(encoding)
    stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)), encoding="utf-8")

    assert list(find_images(["-"], read_list(stream))) == [Path(name) for name in names[:3]]


def test_a_list_that_is_text_already(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeffa.png\r\nb.png\n"))

    assert list(find_images(["-"], read_list(sys.stdin))) == [Path("a.png"), Path("b.png")]


def test_names_of_a_list_need_not_be_utf8():
    stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(b"\xf6.png\n")))

    assert list(find_images(["-"], read_list(stream))) == [Path("\udcf6.png")]


HIDDEN = (".x.png", "._x.png", ".cache/x.png", "__MACOSX/x.png", "sub/.x.png", "sub/@eaDir/x.png")


def test_hidden_files_are_left_out(tmp_path):
    for name in ("x.png", "sub/x.png", *HIDDEN):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    inside = list(find_images([str(tmp_path)], []))
    matched = list(find_images([f"{tmp_path}/*.png"], []))
    deeper = list(find_images([f"{tmp_path}/**/*.png", f"{tmp_path}/*/x.png"], []))

    assert inside == [tmp_path / "sub" / "x.png", tmp_path / "x.png"]
    assert matched == [tmp_path / "x.png"]
    assert deeper == [*inside, tmp_path / "sub" / "x.png"]
    named = [str(tmp_path / ".x.png"), f"{tmp_path}/.x*"]
    assert list(find_images(named, [])) == [tmp_path / ".x.png"] * 2


# Explanations and test sets


def test_slices_and_images_of_one_name_are_all_explained(model_path, tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        volume(tmp_path / folder / "scan.nii.gz")
    arguments = ["explain", str(model_path), str(tmp_path), "--out", str(tmp_path / "out")]
    few = ["--set", "explain.num_samples=20", "--set", "explain.min_samples=10"]
    grid = ["--set", "explain.segmentation=grid", "--set", "explain.superpixels=4"]

    assert main([*arguments, *few, *grid, "--set", "explain.checks=false"]) == 0

    names = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert names == {f"{folder}-scan#{i}.png" for folder in "ab" for i in range(3)}
    record = json.loads((tmp_path / "out" / "a-scan#1.json").read_text())
    assert record["image"] == "scan.nii.gz#1"


def classes(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for i, name in enumerate("rgb"):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 100, (16, 16, 3), dtype=np.uint8)
            pixels[..., i] += 100
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def test_masks_are_not_tested_on_and_counted(model_path, tmp_path, capsys):
    folder = classes(tmp_path / "set")
    mask = np.zeros((16, 16), np.uint8)
    mask[4:8] = 255
    for name in "rgb":
        Image.fromarray(mask).save(folder / name / "0_mask.png")

    assert evaluate_folder(model_path, folder)["n_test"] == 6
    assert "Left out as masks: 3 files" in capsys.readouterr().err


def test_subsets_of_a_set_are_refused_or_merged(model_path, tmp_path, capsys):
    for subset in ("train", "test"):
        classes(tmp_path / "set" / subset)
    arguments = ["evaluate", str(model_path), str(tmp_path / "set")]

    assert main(arguments) == 2
    assert "data.official_split: merge" in capsys.readouterr().err
    assert main([*arguments, "--set", "data.official_split=merge"]) == 0
    assert "12 test images" in capsys.readouterr().out
    assert main([*arguments, "--set", "data.official_split=keep"]) == 0
    assert "6 test images" in capsys.readouterr().out


def test_one_patient_for_all_is_named_with_the_setting(model_path, tmp_path, capsys):
    folder = classes(tmp_path / "set")
    rows = [f"set/{name}/{i}.png,{name},ANONYMOUS" for name in "rgb" for i in range(2)]
    (tmp_path / "set.csv").write_text("path,label,patient\n" + "\n".join(rows))
    arguments = ["evaluate", str(model_path), str(tmp_path / "set.csv")]

    assert main(arguments) == 0
    printed = capsys.readouterr().err
    assert "All 6 images name one patient" in printed
    assert "split.patient: ignore" in printed
    assert main([*arguments, "--set", "split.patient=ignore"]) == 0
    assert "one patient" not in capsys.readouterr().err
    assert folder.is_dir()
