"""One training on one device and on two, which are parts of this machine's processor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kerasmed import runtime
from kerasmed.config import RuntimeConfig
from kerasmed.distribution import check_batch
from kerasmed.errors import ConfigError
from kerasmed.runtime import Runtime, resolve_runtime

TRAINING = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import keras
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    processor = tf.config.list_physical_devices("CPU")[0]
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, parts)
from conftest import phantom_set
from kerasmed.config import DiffusionConfig, RuntimeConfig
from kerasmed.diffusion.training import train_denoiser
from kerasmed.runtime import resolve_runtime

settings = DiffusionConfig(
    widths=[8], max_images=96, checkpoint_steps=3, batch_size=8, warmup_steps=2, clip_norm=0.05
)
images, folder = phantom_set(), Path(sys.argv[2])
for distribution in ("none", "mirrored"):
    runtime = resolve_runtime(RuntimeConfig(precision="float32", distribution=distribution))
    train_denoiser(images, images, settings, "mirror", 0, runtime, folder / distribution)
    keras.saving.load_model(folder / distribution / "denoiser.keras")
print(json.dumps([runtime.distribution, runtime.replicas]))
"""


def _losses(folder: Path) -> list[list[float]]:
    rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    return [[float(value) for value in row[2:4]] for row in rows[1:]]


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_learn_what_one_does(backend, tmp_path):
    pytest.importorskip(backend)
    done = subprocess.run(
        [sys.executable, "-c", TRAINING, str(Path(__file__).parent), str(tmp_path)],
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["mirrored", 2]
    one, two = _losses(tmp_path / "none"), _losses(tmp_path / "mirrored")
    assert len(one) == 4
    np.testing.assert_allclose(two, one, rtol=1e-4)


def test_batches_that_do_not_divide_are_refused():
    three = Runtime("jax", "3 x GPU", "float32", True, "mirrored", 3)
    with pytest.raises(ConfigError, match=r"diffusion.batch_size: expected a multiple of the 3"):
        check_batch(8, three, "diffusion.batch_size")


def test_what_does_not_go_with_a_strategy_is_turned_off_and_said(monkeypatch, capsys):
    monkeypatch.setattr(runtime, "list_devices", lambda: ["gpu:0", "gpu:1"])
    asked = RuntimeConfig(precision="mixed_float16", jit_compile=True, distribution="mirrored")
    found = resolve_runtime(asked)
    assert (found.precision, found.jit_compile) == ("mixed_bfloat16", False)
    assert (found.distribution, found.replicas) == ("mirrored", 2)
    said = capsys.readouterr().err
    assert "mixed_bfloat16 for mixed_float16" in said
    assert "XLA is off" in said
    assert "divided among 2 devices" in said
