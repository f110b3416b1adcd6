"""One training on one device and on two, which are logical devices of this machine's CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kerasmed.errors import ConfigError
from kerasmed.parallel import resolve
from kerasmed.parallel.config import RuntimeConfig
from kerasmed.parallel.devices import check_batch
from kerasmed.parallel.resolve import Runtime, resolve_runtime

TWO_DEVICES = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import keras
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    processor = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(processor, devices)
from conftest import phantom_set
from kerasmed.classify.config import ClassifierConfig
from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.parallel.config import RuntimeConfig
from kerasmed.parallel.resolve import resolve_runtime
from kerasmed.saved_models import load_model

images, folder = phantom_set(), Path(sys.argv[2])
for distribution in ("none", "mirrored"):
    runtime = resolve_runtime(
        RuntimeConfig(precision="float32", distribution=distribution), cpu_bfloat16=False
    )
    train(runtime, folder / distribution)
print(json.dumps([runtime.distribution, runtime.replicas]))
"""
DENOISER = """
def train(runtime, folder):
    from kerasmed.diffusion.model import DiffusionModel
    from kerasmed.diffusion.training import train_model
    settings = DiffusionConfig(
        widths=[8], max_images=96, checkpoint_steps=3, batch_size=8, warmup_steps=2, clip_norm=0.05
    )
    train_model(DiffusionModel, images, images, settings, "mirror", 0, runtime, folder)
    load_model(folder / "denoiser.keras")
"""
# From scratch, so that batch normalisation has to see the whole batch; at a low rate, since Adam
# turns the rounding of gradients near zero into whole steps.
CNN = """
def train(runtime, folder):
    from kerasmed.classify.recipes import Phase
    from kerasmed.classify.training import train_classifier
    settings = ClassifierConfig(
        weights="none", input_size=32, finetune_epochs=4, batch_size=8, dropout=0.0,
        augment="medium", mixing="mixup", finetune_learning_rate=1e-6,
    )
    phases = [Phase(images, settings)]
    train_classifier("MobileNet", phases, images, "mirror", 0, runtime, folder)
    load_model(folder / "model.keras")
"""


def _losses(folder: Path) -> list[list[float]]:
    """Over the training and the validation images, in each epoch."""
    header, *rows = (folder / "history.csv").read_text().splitlines()
    names = header.split(",")
    chosen = [i for i, name in enumerate(names) if name in ("loss", "val_loss", "validation_loss")]
    return [[float(row.split(",")[i]) for i in chosen] for row in rows]


@pytest.mark.parametrize(
    ("backend", "network", "tolerance"),
    [
        pytest.param(
            "tensorflow", DENOISER, 1e-4, id="tensorflow-denoiser", marks=pytest.mark.slow
        ),
        pytest.param("tensorflow", CNN, 1e-3, id="tensorflow-cnn", marks=pytest.mark.slow),
        pytest.param("jax", DENOISER, 1e-4, id="jax-denoiser", marks=pytest.mark.slow),
        pytest.param("jax", CNN, 1e-3, id="jax-cnn", marks=pytest.mark.slow),
    ],
)
def test_two_devices_learn_what_one_does(backend, network, tolerance, tmp_path):
    pytest.importorskip(backend)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            network + TWO_DEVICES,
            str(Path(__file__).parents[1]),
            str(tmp_path),
        ],
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
    np.testing.assert_allclose(two, one, rtol=tolerance)


def test_batches_that_do_not_divide_are_refused():
    three = Runtime("jax", "3 x GPU", "float32", True, "mirrored", 3)
    with pytest.raises(ConfigError, match=r"diffusion.batch_size: expected a multiple of the 3"):
        check_batch(8, three, "diffusion.batch_size")


def test_what_does_not_go_with_a_strategy_is_turned_off_and_said(monkeypatch, capsys):
    monkeypatch.setattr(resolve, "list_devices", lambda: ["gpu:0", "gpu:1"])
    requested = RuntimeConfig(precision="mixed_float16", jit_compile=True, distribution="mirrored")
    resolved = resolve_runtime(requested)
    assert (resolved.precision, resolved.jit_compile) == ("mixed_bfloat16", False)
    assert (resolved.distribution, resolved.replicas) == ("mirrored", 2)
    messages = capsys.readouterr().err
    assert "mixed_bfloat16 for mixed_float16" in messages
    assert "XLA is off" in messages
    assert "divided among 2 devices" in messages
