import json
import os
import platform
import subprocess
import sys
from importlib.util import find_spec

import keras
import pytest

from kerasmed.cli.main import main
from kerasmed.errors import ConfigError, MachineError
from kerasmed.parallel.config import RuntimeConfig
from kerasmed.parallel.resolve import resolve_runtime
from kerasmed.runtime import hardware
from kerasmed.runtime.backend import load_keras, precision_policy
from kerasmed.runtime.hardware import CoreLimits
from kerasmed.runtime.keras_settings import (
    hidden_settings,
    ignored_settings,
    keras_home,
    requested_backend,
    settings_of_file,
)
from kerasmed.runtime.versions import versions


@pytest.mark.parametrize(("flags", "expected"), [
    ("fpu avx512_bf16", "mixed_bfloat16"), ("fpu amx_bf16", "mixed_bfloat16"), ("fpu", "float32"),
])  # fmt: skip
def test_auto_precision_follows_the_processor(monkeypatch, flags, expected):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: [])
    monkeypatch.setattr(hardware, "cpu_fields", lambda: {"flags": flags})
    resolved = resolve_runtime(RuntimeConfig())
    assert (resolved.precision, resolved.jit_compile) == (expected, False)


def test_classifiers_stay_in_float32_on_a_cpu(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: [])
    monkeypatch.setattr(hardware, "cpu_fields", lambda: {"flags": "fpu avx512_bf16"})
    assert resolve_runtime(RuntimeConfig(), cpu_bfloat16=False).precision == "float32"


def test_auto_on_a_gpu_is_bfloat16_with_xla(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: ["gpu:0"])
    resolved = resolve_runtime(RuntimeConfig())
    assert (resolved.precision, resolved.jit_compile) == ("mixed_bfloat16", True)
    assert resolved.device == "1 x GPU"


def test_jax_is_compiled_on_a_cpu_too(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: [])
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert resolve_runtime(RuntimeConfig()).jit_compile


def test_what_was_asked_for_is_taken():
    requested = RuntimeConfig(precision="mixed_float16", jit_compile=True)
    resolved = resolve_runtime(requested)
    assert (resolved.precision, resolved.jit_compile) == ("mixed_float16", True)


def test_policy_is_restored_also_after_an_error():
    inside = []

    def fail():
        with precision_policy("mixed_bfloat16"):
            inside.append(keras.mixed_precision.dtype_policy().name)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert inside == ["mixed_bfloat16"]
    assert keras.mixed_precision.dtype_policy().name == "float32"


def test_record_names_processor_and_versions():
    assert hardware.machine()["cores"] >= 1
    assert {"python", "keras", "numpy", "kerasmed"} <= versions().keys()


def test_device_counts_the_cores_that_may_be_used(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: [])
    monkeypatch.setattr(hardware, "core_limits", lambda: CoreLimits(64, 64, quota=1.5))
    assert resolve_runtime(RuntimeConfig()).device == "CPU, 2 cores"


@pytest.fixture
def keras_folder(tmp_path, monkeypatch):
    """The folder of keras.json."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras").mkdir()
    return tmp_path / "keras"


@pytest.fixture
def not_loaded(monkeypatch):
    """As in a process that has not imported Keras; which must then not be imported."""
    monkeypatch.delitem(sys.modules, "keras")


UNUSUAL = {
    "image_data_format": "channels_first",
    "floatx": "float16",
    "epsilon": 1e-3,
    "backend": "torch",
    "nnx_enabled": True,
}

LOADED = """
import os, sys
from kerasmed.runtime import hardware
hardware.core_limits = lambda: hardware.CoreLimits(8, 8, quota=1.0)
from kerasmed.runtime.backend import load_keras
load_keras()
import keras, tensorflow
config = keras.config
print(config.backend(), config.image_data_format(), config.floatx(), config.epsilon())
print(config.max_epochs(), config.max_steps_per_epoch(), config.is_nnx_enabled())
print(keras.src.backend.config.keras_home(), os.environ["KERAS_HOME"])
print(tensorflow.keras.__name__, keras.Sequential is tensorflow.keras.Sequential)
threads = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "PJRT_NPROC")
print(*(os.environ[name] for name in threads))
print(os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
"""


@pytest.mark.parametrize(("backend", "content"), [
    (None, json.dumps(UNUSUAL)),
    pytest.param("jax", '["neither Keras nor TensorFlow reads this"]', marks=pytest.mark.slow),
])  # fmt: skip
def test_keras_json_and_switches_change_nothing(keras_folder, backend, content):
    if backend and find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    (keras_folder / "keras.json").write_text(content)
    switches = {
        "KERAS_MAX_EPOCHS": "1",
        "KERAS_MAX_STEPS_PER_EPOCH": "one",
        "KERAS_NNX_ENABLED": "1",
        "TF_USE_LEGACY_KERAS": "1",
        "KERAS_BACKEND": backend or "",
    }
    # This process has set it for itself.
    environment = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        env={**environment, **switches},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        f"{backend or 'tensorflow'} channels_last float32 1e-07",
        "None None False",
        f"{keras_folder} {keras_folder}",
        "keras._tf_keras.keras True",
        "1 1 1",
        "1" if platform.machine() in ("x86_64", "AMD64") else "None",
    ], done.stderr
    assert "KERAS_MAX_EPOCHS and KERAS_MAX_STEPS_PER_EPOCH: ignored" in done.stderr
    assert [path.name for path in keras_folder.iterdir()] == ["keras.json"]
    assert (keras_folder / "keras.json").read_text() == content


def test_settings_are_hidden_only_while_keras_is_imported(monkeypatch, tmp_path):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(keras.src.backend.config, "_KERAS_DIR", "elsewhere")
    monkeypatch.setenv("KERAS_MAX_EPOCHS", "1")
    inside = []

    def fail():
        with hidden_settings() as caps:
            inside.extend([caps, (keras_home() / "keras.json").exists()])
            inside.append("KERAS_MAX_EPOCHS" in os.environ)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert inside == [["KERAS_MAX_EPOCHS"], False, False]
    assert "KERAS_HOME" not in os.environ
    assert keras.src.backend.config.keras_home() == str(tmp_path / ".keras")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, None),
        (b"{}", None),
        (b'{"floatx": "float32", "backend": "tensorflow", "epsilon": 1e-07}', None),
        (b'{"backend": "jax", "image_data_format": "channels_first"}',
         "image_data_format channels_first, backend jax"),
        (b'{"floatx": "bfloat16", "epsilon": 1}', "floatx bfloat16, epsilon 1"),
        (b'{"epsilon": [1]}', "epsilon [1]"),
        (b"[]", "holds no settings but []"),
        (b"null", "holds no settings but None"),
        (b"{", "cannot be read, JSONDecodeError"),
        (b"\xff\xfe", "cannot be read, UnicodeDecodeError"),
        (b"[" * 100_000, "cannot be read, RecursionError"),
    ],
)  # fmt: skip
def test_what_keras_json_says_other_than_keras_itself(keras_folder, content, expected):
    if content is not None:
        (keras_folder / "keras.json").write_bytes(content)
    settings = settings_of_file()
    assert settings == expected or settings.startswith(expected)
    assert list(ignored_settings()) == (
        [] if expected is None else [str(keras_folder / "keras.json")]
    )


def test_keras_json_that_is_no_file_says_nothing(keras_folder):
    (keras_folder / "keras.json").mkdir()
    assert settings_of_file() is None


@pytest.mark.parametrize("backend", ["theano", "torch", "numpy", "TensorFlow", " jax", "os"])
def test_backend_that_kerasmed_does_not_know_is_one_line(
    monkeypatch, capsys, not_loaded, tiny_config, tmp_path, backend
):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    assert main(["study", str(tiny_config), "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"KERAS_BACKEND: expected tensorflow or jax, received {backend!r}" in line


@pytest.mark.parametrize("backend", ["jax", "tensorflow", ""])
def test_backend_that_is_not_installed_is_named(monkeypatch, not_loaded, backend):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setattr("kerasmed.runtime.keras_settings.find_spec", lambda name: None)
    with pytest.raises(MachineError, match=f"run `pip install {backend or 'tensorflow'}`"):
        load_keras()


def test_backend_is_tensorflow_where_none_is_named(monkeypatch):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    assert requested_backend() == "tensorflow"


@pytest.mark.parametrize(
    "error", [ImportError("libx.so: cannot\nopen"), AttributeError("x"), SystemError("x")]
)
def test_backend_that_does_not_start_is_one_line(monkeypatch, capfd, not_loaded, error):
    def fail(name, *_):
        os.write(2, b"a notice of the library")
        raise error

    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    with monkeypatch.context() as broken:
        broken.setattr("builtins.__import__", fail)
        with pytest.raises(MachineError) as caught:
            load_keras()
    assert "Keras does not start on tensorflow: expected" in str(caught.value)
    assert type(error).__name__ in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image_data_format", "channels_first"),
        ("floatx", "float16"),
        ("epsilon", 1e-3),
        ("max_epochs", 1),
        ("max_steps_per_epoch", 1),
    ],
)
def test_other_settings_of_a_program_that_imported_keras_are_refused(name, value):
    get, change = getattr(keras.config, name), getattr(keras.config, f"set_{name}")
    before = get()
    change(value)
    try:
        with pytest.raises(ConfigError) as caught:
            load_keras()
        assert f"received {name} {value}" in str(caught.value)
        call = str(caught.value).partition("call ")[2].rstrip(".")
        eval(call)
        assert get() == before
        load_keras()
    finally:
        change(before)


def test_other_backend_of_a_program_that_imported_keras_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ConfigError, match="Keras runs on torch: expected tensorflow or jax"):
        load_keras()
