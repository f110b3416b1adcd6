"""Keras settings of the user: kerasmed takes the backend and ignores the others.

kerasmed's networks are written for channels_last, float32 and Keras' own epsilon. ``keras.json``
and the switches below would change or break them, and are hidden while Keras is imported.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kerasmed.errors import ConfigError, MachineError

BACKENDS = ("tensorflow", "jax")

# Debugging limits of Keras 3.15 on every training.
_CAPS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")
# NNX gives layers another base class. The last one makes tf.keras, which KerasCV uses, Keras 2.
_SWITCHES = (*_CAPS, "KERAS_NNX_ENABLED", "TF_USE_LEGACY_KERAS")

# Defaults of Keras 3.15, of keras.json, and of the functions of keras.config.
_DEFAULTS: dict[str, Any] = {
    "image_data_format": "channels_last",
    "floatx": "float32",
    "epsilon": 1e-7,
}
_FILE_DEFAULTS: dict[str, Any] = {**_DEFAULTS, "backend": "tensorflow", "nnx_enabled": False}
_CONFIG_DEFAULTS: dict[str, Any] = {**_DEFAULTS, "max_epochs": None, "max_steps_per_epoch": None}


def requested_backend() -> str:
    """The backend that KERAS_BACKEND names, by default TensorFlow.

    Raises:
        ConfigError: kerasmed does not work on this backend.
        MachineError: the backend is not installed.
    """
    named = os.environ.get("KERAS_BACKEND")
    backend = named or "tensorflow"
    if backend not in BACKENDS:
        raise ConfigError(
            f"KERAS_BACKEND: expected {' or '.join(BACKENDS)}, received {backend!r}; set one of "
            "them, or unset it for TensorFlow."
        )
    if find_spec(backend) is None:
        remedy = ", or unset KERAS_BACKEND for TensorFlow" if backend != "tensorflow" else ""
        raise MachineError(
            f"The Keras backend {backend} is not installed: expected the package {backend}; run "
            f"`pip install {backend}`{remedy}."
        )
    return backend


@contextmanager
def hidden_settings() -> Iterator[list[str]]:
    """Hide keras.json and the switches while Keras and TensorFlow are imported.

    The switches stay unset, since some are read again later. KERAS_HOME is restored, and Keras
    keeps downloaded weights in its usual folder.

    Yields:
        The names of the limits on trainings that were set.
    """
    caps = [name for name in _CAPS if name in os.environ]
    for name in _SWITCHES:
        os.environ.pop(name, None)
    home, before = keras_home(), os.environ.get("KERAS_HOME")
    # A file as the folder: it holds no keras.json, and Keras cannot write one.
    os.environ["KERAS_HOME"] = os.devnull
    try:
        yield caps
    finally:
        if before is None:
            del os.environ["KERAS_HOME"]
        else:
            os.environ["KERAS_HOME"] = before
        # Keras 3.15 has no public function that sets this folder.
        if config := sys.modules.get("keras.src.backend.config"):
            vars(config)["_KERAS_DIR"] = str(home)


def check_loaded() -> str:
    """The backend of the imported Keras, whose settings must be the defaults.

    Raises:
        ConfigError: it has another backend or other settings; names the calls that restore them.
    """
    import keras

    if (backend := keras.backend.backend()) not in BACKENDS:
        raise ConfigError(
            f"Keras runs on {backend}: expected {' or '.join(BACKENDS)}; set KERAS_BACKEND to one "
            "of them before Keras is imported."
        )
    current = {name: getattr(keras.config, name)() for name in _CONFIG_DEFAULTS}
    wrong = [name for name, value in current.items() if value != _CONFIG_DEFAULTS[name]]
    if wrong:
        received = ", ".join(f"{name} {current[name]}" for name in wrong)
        calls = ", ".join(f"keras.config.set_{name}({_CONFIG_DEFAULTS[name]!r})" for name in wrong)
        raise ConfigError(
            f"Keras was imported before kerasmed and has other settings: received {received}; "
            f"call {calls}."
        )
    return backend


def ignored_settings() -> dict[str, str]:
    """Settings of this machine that kerasmed ignores: where each is set, and its value."""
    switches = {name: f"{os.environ[name]} (ignored)" for name in _SWITCHES if name in os.environ}
    settings = settings_of_file()
    file = {str(keras_home() / "keras.json"): f"{settings} (ignored)"} if settings else {}
    return {**switches, **file}


def settings_of_file() -> str | None:
    """The settings in keras.json that differ from Keras' defaults; None if there are none."""
    path = keras_home() / "keras.json"
    try:
        if not path.is_file():
            return None
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return f"cannot be read, {' '.join(f'{type(error).__name__}: {error}'.split())[:100]}"
    if not isinstance(settings, dict):
        return f"holds no settings but {str(settings)[:100]}"
    changed = {
        name: settings[name]
        for name, default in _FILE_DEFAULTS.items()
        if name in settings and settings[name] != default
    }
    return ", ".join(f"{name} {str(value)[:50]}" for name, value in changed.items()) or None


def keras_home() -> Path:
    """The folder in which Keras 3.15 looks for keras.json and keeps weights."""
    if home := os.environ.get("KERAS_HOME"):
        return Path(os.path.expanduser(home))  # noqa: PTH111 - Path's raises without a home
    home = os.path.expanduser("~")  # noqa: PTH111 - as above
    return Path(home if os.access(home, os.W_OK) else "/tmp") / ".keras"
