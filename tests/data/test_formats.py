"""A whole tiny study from each format that an archive may have."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TINY
from PIL import Image

from kerasmed.cli.main import main
from kerasmed.data.phantoms import draw_phantom
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.evaluate import evaluate_folder

CLASSES = ("clear", "ground_glass")
PER_CLASS = 40


def grey(class_name: str, index: int, size: int = 24) -> np.ndarray:
    return draw_phantom("ct", class_name, index, size, 0)[0][..., 0]


def write_folder(root: Path) -> Path:
    for name in CLASSES:
        (root / "set" / name).mkdir(parents=True)
        for i in range(PER_CLASS):
            Image.fromarray(grey(name, i)).save(root / "set" / name / f"{i}.png")
    return root / "set"


def write_table(root: Path) -> Path:
    write_folder(root)
    with (root / "set.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "label", "patient"])
        for name in CLASSES:
            table.writerows([f"set/{name}/{i}.png", name, f"{i // 2}"] for i in range(PER_CLASS))
    return root / "set.csv"


def write_npz(root: Path) -> Path:
    images = np.stack([grey(name, i) for name in CLASSES for i in range(PER_CLASS)])
    labels = np.repeat([0, 1], PER_CLASS)[:, None]
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:60], order[60:]
    np.savez_compressed(
        root / "set.npz",
        train_images=images[train], train_labels=labels[train],
        test_images=images[test], test_labels=labels[test],
    )  # fmt: skip
    return root / "set.npz"


def write_dicom(root: Path) -> Path:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian

    for name in CLASSES:
        (root / "set" / name).mkdir(parents=True)
        for i in range(PER_CLASS):
            dataset = pydicom.Dataset()
            dataset.file_meta = pydicom.dataset.FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
            dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{i}"
            dataset.PatientID = f"patient {name} {i // 2}"
            dataset.Rows = dataset.Columns = 24
            dataset.SamplesPerPixel = 1
            dataset.PhotometricInterpretation = "MONOCHROME2"
            dataset.BitsAllocated = dataset.BitsStored = 16
            dataset.HighBit = 15
            dataset.PixelRepresentation = 0
            dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1000
            dataset.WindowCenter, dataset.WindowWidth = -745, 510
            dataset.PixelData = (grey(name, i).astype(np.uint16) * 2).tobytes()
            dataset.save_as(root / "set" / name / f"1.2.{i}", enforce_file_format=True)
    return root / "set"


def write_nifti(root: Path) -> Path:
    nibabel = pytest.importorskip("nibabel")
    for name in CLASSES:
        (root / "set" / name).mkdir(parents=True)
        for i in range(PER_CLASS // 4):
            slices = [np.rot90(grey(name, 4 * i + k), -1) for k in range(4)]
            volume = nibabel.Nifti1Image(np.stack(slices, axis=2), np.eye(4))
            nibabel.save(volume, root / "set" / name / f"{i}.nii.gz")
    return root / "set"


FORMATS = (write_folder, write_table, write_npz, write_dicom, write_nifti)


@pytest.fixture(params=FORMATS, ids=lambda write: write.__name__.removeprefix("write_"))
def source(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "data": {"source": "nowhere", "image_size": 16}}))
    return path


def test_every_format_gives_the_same_images(source, config, tmp_path):
    run = tmp_path / "run"

    assert main(["data", "split", str(config), "--data", str(source), "--out", str(run)]) == 0

    files = json.loads((run / "split.json").read_text())["files"]
    assert len(files) == len({(file["path"], file.get("frame")) for file in files}) == 2 * PER_CLASS
    # In whatever order.
    images = np.load(run / "cache" / "real-16.npy").astype(float)
    wanted = np.array(
        [
            np.asarray(Image.fromarray(grey(name, i)).resize((16, 16), Image.Resampling.BICUBIC))
            for name in CLASSES
            for i in range(PER_CLASS)
        ]
    )
    differences = np.sort(images.mean(axis=(1, 2, 3))) - np.sort(wanted.mean(axis=(1, 2)))
    assert np.abs(differences).max() <= 1


@pytest.mark.slow
def test_study_runs_from_values_of_more_than_8_bits(config, tmp_path):
    folder = write_folder(tmp_path)
    for path in folder.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 15).save(path)
    run = tmp_path / "run"

    assert main(["study", str(config), "--data", str(folder), "--out", str(run)]) == 0

    assert "(white), by the training images" in (run / "report.html").read_text()


@pytest.mark.slow
def test_study_runs_from_every_format(source, config, tmp_path):
    run = tmp_path / "run"

    assert main(["study", str(config), "--data", str(source), "--out", str(run)]) == 0

    assert (run / "report.html").exists()
    assert json.loads((run / "evaluation" / "leakage.json").read_text())["features_of"]


# In another order than their folders, whose names begin with "%2E" and "+".
LABELS = ("+肺/炎 [1]", ".5 mm $x$_{a} %")


@pytest.mark.slow
def test_study_runs_with_labels_of_any_signs(config, tmp_path):
    table = write_table(tmp_path)
    text = table.read_text()
    for name, label in zip(CLASSES, LABELS, strict=True):
        text = text.replace(f",{name},", f",{label},")
    table.write_text(text, encoding="utf-8")
    run, handed = tmp_path / "run", tmp_path / "handed"

    assert main(["study", str(config), "--data", str(table), "--out", str(run)]) == 0
    assert main(["release", str(run), str(handed)]) == 0

    folders = ["%2E5 mm $x$_{a} %25", "+肺%2F炎 [1]"]
    assert sorted(path.name for path in (run / "synthetic").iterdir() if path.is_dir()) == folders
    model = next((run / "exported").glob("*-real-*.onnx"))
    assert OnnxClassifier(model).class_names == list(LABELS)
    manifest = json.loads((run / "synthetic" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["classes"] == list(LABELS)
    report = (run / "report.html").read_text(encoding="utf-8")
    assert all(f"<td>{label}</td>" in report for label in LABELS)
    explained = sorted(path.name for path in (run / "explanations").glob("*/*.png"))
    assert {name.rsplit("-", 1)[0] for name in explained} == set(folders)
    with (handed / "labels.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["label"] for row in rows} == set(LABELS)
    assert all((handed / row["file"]).exists() for row in rows)
    sheet = (handed / "DATASHEET.md").read_text(encoding="utf-8")
    assert r"| .5 mm \$x\$\_\{a\} % |" in sheet
    for source in (table, handed / "images"):
        figures = evaluate_folder(model, source)
        assert list(figures["per_class"]) == list(LABELS)
        assert "not_computed" not in figures
