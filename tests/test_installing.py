"""What an installation needs: NumPy, Pillow and onnxruntime to run exported models."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import kerasmed
from kerasmed.cli import doctor
from kerasmed.cli.main import main
from kerasmed.inference.classifier import OnnxClassifier

ROOT = Path(__file__).parents[1]

# Hides what else is installed from the import system.
HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        allowed = {"kerasmed", "numpy", "PIL", "onnxruntime", *sys.stdlib_module_names}
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"hidden: {name}", name=name)

sys.meta_path.insert(0, Hidden())
"""
# What another program does: it runs both kinds of model, and asks for what is not installed.
EMBED = """
import json, operator, sys
import numpy as np
import kerasmed as km

probabilities = km.OnnxClassifier("model.onnx").predict(["scan.png"])
noise = np.ones((2, 4, 4, 3), np.float32)
clean = km.OnnxDenoiser("denoiser.onnx")(noise, np.int32([9, 9]), np.int32([0, 1]))
refusals = {}
for name in [*km.__all__, *(f"metrics.{name}" for name in km.metrics.__all__)]:
    try:
        operator.attrgetter(name)(km)
    except ImportError as error:
        refusals[name] = str(error)
try:
    km.OnnxClassifier("model.onnx").read(["scan.dcm"])
except Exception as error:
    refusals["scan.dcm"] = f"{type(error).__name__}: {error}"
result = {
    "file": km.__file__,
    "probabilities": probabilities.tolist(),
    "clean": clean.tolist(),
    "refusals": refusals,
}
print(json.dumps(result))
sys.argv = ["kerasmed", "doctor"]
from kerasmed.__main__ import entry
entry()
"""


@pytest.fixture
def embedding_folder(model_path):
    """The working directory of another program: two models, a picture and a DICOM file."""
    folder = model_path.parent
    helper, kinds = onnx.helper, onnx.TensorProto
    shapes = {"noisy_images": ["n", 4, 4, 3], "timesteps": ["n"], "labels": ["n"]}
    types = {"noisy_images": kinds.FLOAT, "timesteps": kinds.INT32, "labels": kinds.INT32}
    graph = helper.make_graph(
        [helper.make_node("Neg", ["noisy_images"], ["clean_images"])],
        "hand-made",
        [helper.make_tensor_value_info(name, types[name], shapes[name]) for name in shapes],
        [helper.make_tensor_value_info("clean_images", kinds.FLOAT, ["n", 4, 4, 3])],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    own = {"kind": "denoiser", "image_size": 4, "pixel_mean": [0, 0, 0], "pixel_scale": 1}
    helper.set_model_props(model, {f"kerasmed.{k}": json.dumps(v) for k, v in own.items()})
    onnx.save(model, folder / "denoiser.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "scan.png")
    (folder / "scan.dcm").write_bytes(b"\0" * 128 + b"DICM")
    return folder


def _check_embedding(command: list[str], folder: Path, **options) -> Path:
    """Run EMBED and check its answers; returns where its kerasmed is."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, **options
    )
    assert done.returncode == 2, done.stderr  # the command line is refused, as the last thing
    assert "kerasmed: The command line needs typer" in done.stderr
    result = json.loads(done.stdout)
    expected = OnnxClassifier(folder / "model.onnx").predict([folder / "scan.png"])
    np.testing.assert_allclose(result["probabilities"], expected, atol=1e-6)
    np.testing.assert_array_equal(result["clean"], -np.ones((2, 4, 4, 3)))
    refusals = result["refusals"]
    dicom = refusals.pop("scan.dcm")
    assert dicom.startswith("MachineError: Cannot read scan.dcm")
    assert "run pip install 'kerasmed[medical]'" in dicom
    metrics = {f"metrics.{name}" for name in kerasmed.metrics.__all__}
    assert set(refusals) == {*kerasmed.__all__, *metrics} - {
        *("OnnxClassifier", "OnnxDenoiser", "OnnxUpscaler", "metrics", "metrics.sample")
    }
    for name, refusal in refusals.items():
        assert refusal.startswith(f"kerasmed.{name} needs ")
        assert "which is not installed; run `pip install kerasmed`, which brings it." in refusal
    return Path(result["file"])


def test_numpy_pillow_and_onnxruntime_are_enough(embedding_folder):
    _check_embedding([sys.executable, "-c", HIDE + EMBED], embedding_folder)


def test_command_names_the_package_that_it_lacks(monkeypatch, capsys):
    def lacks(package):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(doctor, "examine", lambda: lacks("not_there.inner"))
    assert main(["doctor"]) == 2
    refusal = capsys.readouterr().err
    assert "This command needs not_there.inner, which is not installed" in refusal
    assert "run `pip install kerasmed`" in refusal
    monkeypatch.setattr(doctor, "examine", lambda: lacks("json.nothing"))
    with pytest.raises(ModuleNotFoundError):  # json is there, so this is a bug
        main(["doctor"])


# Without a path to the checkout.
OUTSIDE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    """Its output; the test fails with both streams where the command fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd, env=OUTSIDE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built like the sdist from a copy of the source."""
    source = tmp_path_factory.mktemp("source")  # it is built in the folder that it is built from
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    shutil.copytree(ROOT / "kerasmed", source / "kerasmed")
    _run(sys.executable, "-m", "build", cwd=source)
    sdist, wheel = sorted((source / "dist").iterdir(), key=lambda path: path.suffix)
    assert (sdist.suffixes[-1], wheel.suffix) == (".gz", ".whl")
    _run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    return wheel


def _environment(folder: Path) -> Path:
    """The Python of a new environment."""
    venv.create(folder, with_pip=True)
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


@pytest.mark.slow
def test_wheel_runs_models_in_a_bare_environment(wheel, embedding_folder, tmp_path):
    python = _environment(tmp_path / "bare")
    _run(python, "-m", "pip", "install", "--quiet", "numpy", "pillow", "onnxruntime")
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    location = _check_embedding([str(python), "-c", EMBED], embedding_folder, env=OUTSIDE)
    assert location.is_relative_to(tmp_path / "bare")


TINY_DEMO = {
    "data.image_size": 16,
    "data.phantoms.per_class": 40,
    "diffusion.widths": [8, 16],
    "diffusion.max_images": 32,
    "diffusion.checkpoint_steps": 4,
    "diffusion.batch_size": 4,
    "sampling.steps": 3,
    "classifiers.input_size": 32,
    "classifiers.finetune_epochs": 2,
    "evaluation.bootstrap_samples": 100,
    "explain.num_samples": 30,
    "explain.superpixels": 10,
}


@pytest.mark.slow
def test_wheel_with_its_dependencies_runs_the_demo(wheel, tmp_path):
    python = _environment(tmp_path / "full")
    constraints = ROOT / "constraints.txt"
    _run(python, "-m", "pip", "install", "--quiet", "--no-compile", "-c", constraints, wheel)
    settings = [word for key, value in TINY_DEMO.items() for word in ("--set", f"{key}={value}")]
    _run(python.with_name("kerasmed"), "demo", *settings, cwd=tmp_path)
    assert "<html" in (tmp_path / "runs" / "demo" / "report.html").read_text(encoding="utf-8")
    location = _run(python, "-c", "import kerasmed; print(kerasmed.__file__)", cwd=tmp_path)
    assert Path(location.strip()).is_relative_to(tmp_path / "full")
