"""What ``import kerasmed`` offers: its names, their examples, and what it costs."""

import doctest
import inspect
import shutil
import subprocess
import sys
from operator import attrgetter

import pytest
from conftest import phantom_set

import kerasmed


def test_importing_it_imports_nothing_else():
    code = (
        "import sys, importlib, typing; before = set(sys.modules); import kerasmed\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["kerasmed"]


def test_names_are_found_listed_and_nothing_else():
    assert set(kerasmed.__all__) <= set(dir(kerasmed))
    for name in kerasmed.__all__:
        assert getattr(kerasmed, name).__name__.split(".")[-1] == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = kerasmed.Nothing


@pytest.fixture(scope="module")
def upscaler_file(tmp_path_factory):
    """An exported upscaler."""
    images = phantom_set(size=16)
    upscaler = kerasmed.Upscaler.from_images(images, widths=[8], crop_size=16, batch_size=2)
    upscaler.compile()
    upscaler.fit(images, steps_per_epoch=1, verbose=0)
    path = tmp_path_factory.mktemp("upscaler") / "upscaler.onnx"
    upscaler.export(path)
    return path


@pytest.mark.parametrize(
    "name", [*sorted({*kerasmed.__all__} - {"callbacks"}), "callbacks.Checkpoints",
             "callbacks.Preview"]
)  # fmt: skip
def test_example_of_each_public_name_runs(name, tiny_run, upscaler_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(upscaler_file, "upscaler.onnx")
    shutil.copyfile(tiny_run / "exported" / "MobileNet-real-s0.onnx", "cnn.onnx")
    for suffix in (".keras", ".onnx"):
        shutil.copyfile(tiny_run / "diffusion" / f"denoiser{suffix}", f"denoiser{suffix}")
    shutil.copyfile(sorted((tiny_run / "synthetic").rglob("*.png"))[0], "scan.png")
    public = attrgetter(name)(kerasmed)
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(public), {}, name, None, 0)
    assert test.examples, f"{name} has no example"
    output: list[str] = []
    result = doctest.DocTestRunner().run(test, out=output.append)
    assert result.failed == 0, "".join(output)


def test_all_callbacks_have_an_example_above():
    assert kerasmed.callbacks.__all__ == ["Checkpoints", "Preview"]


def test_modules_of_metrics_are_found():
    for name in kerasmed.metrics.__all__:
        assert getattr(kerasmed.metrics, name).__name__ == f"kerasmed.metrics.{name}"
    assert set(kerasmed.metrics.__all__) <= set(dir(kerasmed.metrics))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = kerasmed.metrics.nothing


def test_keras_objects_are_registered_by_the_first_name_that_needs_keras():
    code = (
        "import kerasmed as km, keras; km.DiffusionModel\n"
        "names = 'DiffusionModel', 'Upscaler', 'ImageClassifier', 'EmaAdamW', 'ClippedAdam'\n"
        "for name in names:\n"
        "    assert keras.saving.get_registered_object('kerasmed>' + name), name"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
