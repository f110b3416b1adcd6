"""``kerasmed doctor`` answers on a machine where something is missing or broken."""

import sys

import pytest

from kerasmed.cli import doctor
from kerasmed.cli.doctor import examine
from kerasmed.cli.main import main
from kerasmed.errors import MachineError
from kerasmed.runtime.hardware import CoreLimits


def _fail(error):
    def fail(*_, **__):
        raise error

    return fail


def test_cores_are_named_with_the_reason(monkeypatch):
    limits = CoreLimits(64, 64, quota=2.0)
    monkeypatch.setattr(doctor, "core_limits", lambda: limits)
    assert examine()["cores"] == str(limits)


def test_rate_of_matrix_products_is_measured():
    [(name, rate)] = [(k, v) for k, v in examine().items() if k.startswith("matrix products")]
    assert name in ("matrix products (float32)", "matrix products (bfloat16)")
    assert float(rate.removesuffix(" GFLOP/s")) >= 1


def test_settings_that_are_passed_over_are_shown(monkeypatch, tmp_path):
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first"}')
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_MAX_EPOCHS", "1")
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    findings = examine()
    assert findings["KERAS_MAX_EPOCHS"] == findings["TF_USE_LEGACY_KERAS"] == "1 (ignored)"
    file = str(tmp_path / "keras.json")
    assert findings[file] == "image_data_format channels_first (ignored)"
    assert findings["Keras backend"] == "tensorflow"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MachineError("No TensorFlow:\nexpected one; install it."),
         "none: No TensorFlow: expected one; install it."),
        (AttributeError("x has no y"),
         "none: AttributeError: x has no y; install kerasmed again."),
    ],
)  # fmt: skip
def test_keras_that_does_not_start_is_a_row(monkeypatch, error, expected):
    monkeypatch.setattr(doctor, "resolve_runtime", _fail(error))
    findings = examine()
    assert findings["Keras backend"] == expected
    assert "device" not in findings
    assert findings["onnxruntime provider"] == "CPUExecutionProvider"


def test_unknown_backend_is_a_row(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    assert main(["doctor"]) == 0
    printed = capsys.readouterr()
    assert "none: KERAS_BACKEND: expected tensorflow or jax, received 'theano'" in printed.out
    assert "CPUExecutionProvider" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_package_of_onnx_is_a_row(monkeypatch, package):
    for name in [name for name in sys.modules if name.startswith("kerasmed.inference")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    findings = examine()
    assert findings["onnxruntime provider"].startswith("none: ModuleNotFoundError")
    assert findings["onnxruntime provider"].endswith("install onnx and onnxruntime again.")
    assert findings["Keras backend"] == "tensorflow"
