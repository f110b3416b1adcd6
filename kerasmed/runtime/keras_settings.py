"""Which settings of Keras kerasmed takes from the user (the backend) and which it passes over.

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

# Limits that Keras 3.15 puts on every training, for debugging.
_CAPS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")
# NNX gives layers another base class; the last makes tf.keras, which KerasCV takes, Keras 2.
_SWITCHES = (*_CAPS, "KERAS_NNX_ENABLED", "TF_USE_LEGACY_KERAS")

# What Keras 3.15 starts with where nothing is configured, and what keras.json can say.
_DEFAULTS: dict[str, Any] = {
    "image_data_format": "channels_last",
    "floatx": "float32",
    "epsilon": 1e-7,
}
_OF_FILE: dict[str, Any] = {**_DEFAULTS, "backend": "tensorflow", "nnx_enabled": False}
_OF_KERAS: dict[str, Any] = {**_DEFAULTS, "max_epochs": None, "max_steps_per_epoch": None}


def requested_backend() -> str:
    """The backend that KERAS_BACKEND names, or TensorFlow.

    Raises:
        ConfigError: kerasmed does not work on it.
        MachineError: it is not installed.
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
    """Hide keras.json and the switches from Keras and TensorFlow, which are imported inside.

    The switches stay unset afterwards, since some are read again later. KERAS_HOME is restored, and
    Keras keeps downloaded weights where it would have kept them.

    Yields:
        The limits on trainings that were set.
    """
    caps = [name for name in _CAPS if name in os.environ]
    for name in _SWITCHES:
        os.environ.pop(name, None)
    home, before = keras_home(), os.environ.get("KERAS_HOME")
    # Below a file there is no keras.json, and Keras cannot write one.
    os.environ["KERAS_HOME"] = os.devnull
    try:
        yield caps
    finally:
        if before is None:
            del os.environ["KERAS_HOME"]
        else:
            os.environ["KERAS_HOME"] = before
        # Keras 3.15 has no public function that sets it.
        if config := sys.modules.get("keras.src.backend.config"):
            vars(config)["_KERAS_DIR"] = str(home)


def check_loaded() -> str:
    """The backend of a Keras that is imported; refuses one that has settings of its own.

    Raises:
        ConfigError: naming what to call.
    """
    import keras

    if (backend := keras.backend.backend()) not in BACKENDS:
        raise ConfigError(
            f"Keras runs on {backend}: expected {' or '.join(BACKENDS)}; set KERAS_BACKEND to one "
            "of them before Keras is imported."
        )
    found = {name: getattr(keras.config, name)() for name in _OF_KERAS}
    wrong = [name for name, value in found.items() if value != _OF_KERAS[name]]
    if wrong:
        received = ", ".join(f"{name} {found[name]}" for name in wrong)
        calls = ", ".join(f"keras.config.set_{name}({_OF_KERAS[name]!r})" for name in wrong)
        raise ConfigError(
            f"Keras was imported before kerasmed and has other settings: received {received}; "
            f"call {calls}."
        )
    return backend


def passed_over() -> dict[str, str]:
    """Settings of this machine that kerasmed does not take: where each is, and what it says."""
    switches = {name: f"{os.environ[name]} (ignored)" for name in _SWITCHES if name in os.environ}
    settings = settings_of_file()
    file = {str(keras_home() / "keras.json"): f"{settings} (ignored)"} if settings else {}
    return {**switches, **file}


def settings_of_file() -> str | None:
    """What keras.json says other than Keras' defaults; None where it says nothing else."""
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
        for name, default in _OF_FILE.items()
        if name in settings and settings[name] != default
    }
    return ", ".join(f"{name} {str(value)[:50]}" for name, value in changed.items()) or None


def keras_home() -> Path:
    """Where Keras 3.15 looks for keras.json and keeps weights."""
    if home := os.environ.get("KERAS_HOME"):
        return Path(os.path.expanduser(home))  # noqa: PTH111 - Path's raises where there is no home
    home = os.path.expanduser("~")  # noqa: PTH111 - as above
    return Path(home if os.access(home, os.W_OK) else "/tmp") / ".keras"
