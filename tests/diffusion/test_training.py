"""Training the denoiser, on TensorFlow here and on JAX in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import phantom_set

from kerasmed.config import DiffusionConfig
from kerasmed.diffusion.training import EmaAdamW, train_denoiser
from kerasmed.errors import StageError
from kerasmed.runtime import Runtime

FLOAT32 = Runtime("tensorflow", "CPU", "float32", False)


def _settings(**changes):
    tiny = {"widths": [8], "steps": 6, "steps_per_epoch": 3, "batch_size": 4, "warmup_steps": 2}
    return DiffusionConfig(**{**tiny, "preview_every": 1, **changes})


def _train(phantoms, folder, runtime=FLOAT32, **changes):
    return train_denoiser(phantoms, phantoms, _settings(**changes), "mirror", 0, runtime, folder)


def _history(folder):
    return [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]


def test_training_lowers_the_loss_and_leaves_its_files(phantoms, tmp_path):
    result = _train(phantoms, tmp_path, steps=60, steps_per_epoch=20, learning_rate=3e-3)
    losses = [float(row[2]) for row in _history(tmp_path)[1:]]
    assert losses[-1] < 0.7 * losses[0]
    assert result["steps"] == 60
    assert result["precision"] == "float32"
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000040.npz",
        "step-00000060.npz",
    ]
    assert (tmp_path / "previews" / "step-00000060.png").exists()
    assert keras.saving.load_model(tmp_path / "denoiser.keras").count_params() > 0


def test_resumed_training_equals_the_uninterrupted_one(phantoms, tmp_path):
    _train(phantoms, tmp_path / "whole")
    _train(phantoms, tmp_path / "parts", steps=3)
    _train(phantoms, tmp_path / "parts")
    whole = keras.saving.load_model(tmp_path / "whole" / "denoiser.keras").get_weights()
    parts = keras.saving.load_model(tmp_path / "parts" / "denoiser.keras").get_weights()
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    assert len(_history(tmp_path / "parts")) == 3


def test_checkpoint_of_another_recipe_is_refused(phantoms, tmp_path):
    _train(phantoms, tmp_path, steps=3)
    with pytest.raises(StageError, match=r"learning_rate 0\.001, received 0\.01"):
        _train(phantoms, tmp_path, learning_rate=0.01)


def test_checkpoint_of_another_size_or_precision_is_refused(phantoms, tmp_path):
    _train(phantoms, tmp_path, steps=3)
    with pytest.raises(StageError, match="made with precision float32, received mixed_bfloat16"):
        _train(phantoms, tmp_path, Runtime("tensorflow", "CPU", "mixed_bfloat16", False))
    with pytest.raises(StageError, match="made with image_size 16, received 32"):
        _train(phantom_set(size=32), tmp_path)


def test_loss_that_is_no_number_stops_with_the_last_good_checkpoint(phantoms, tmp_path):
    _train(phantoms, tmp_path, steps=3)
    newest = tmp_path / "checkpoints" / "step-00000003.npz"
    with np.load(newest) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["m0"] = np.full_like(arrays["m0"], np.nan)
    np.savez(newest, **arrays)

    with pytest.raises(StageError, match=r"nan between steps 3 and 6, at the learning rate 0\.001"):
        _train(phantoms, tmp_path)

    names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert names == ["step-00000003.npz"]
    assert len(_history(tmp_path)) == 2


def test_learning_rate_falls_over_the_end_of_the_budget(phantoms, tmp_path):
    _train(phantoms, tmp_path / "cooled", steps=12, cooldown=0.5)
    _train(phantoms, tmp_path / "plain", steps=12, cooldown=0.0)

    header, *rows = _history(tmp_path / "cooled")
    rates = [float(row[header.index("learning_rate")]) for row in rows]
    # Four epochs of three steps, begun with 1, 3/4, 1/2 and 1/4 of the budget left.
    assert rates == [1e-3, 1e-3, 1e-3, 5e-4]
    cooled, plain = (
        keras.saving.load_model(tmp_path / name / "denoiser.keras").get_weights()
        for name in ("cooled", "plain")
    )
    assert any((one != other).any() for one, other in zip(cooled, plain, strict=True))


def test_truncated_checkpoint_falls_back_to_the_one_before(phantoms, tmp_path, capsys):
    _train(phantoms, tmp_path)
    newest = tmp_path / "checkpoints" / "step-00000006.npz"
    newest.write_bytes(newest.read_bytes()[:1000])
    _train(phantoms, tmp_path)
    assert "step-00000006.npz is not readable" in " ".join(capsys.readouterr().err.split())
    assert len(_history(tmp_path)) == 3


def test_time_budget_ends_the_training(phantoms, tmp_path):
    assert _train(phantoms, tmp_path, steps=3000, max_minutes=1e-6)["steps"] == 3


@pytest.mark.parametrize(("precision", "jit"), [("mixed_bfloat16", True), ("mixed_float16", False)])
def test_mixed_precision_and_xla_are_what_ran(phantoms, tmp_path, precision, jit):
    runtime = Runtime("tensorflow", "CPU", precision, jit)
    result = _train(phantoms, tmp_path, runtime, steps=3)
    assert (result["precision"], result["jit_compile"]) == (precision, jit)
    saved = keras.saving.load_model(tmp_path / "denoiser.keras")
    assert {layer.compute_dtype for layer in saved.layers} <= {"float32", "int32"}


def test_average_warms_up_and_leaves_the_weights_alone():
    variable = keras.Variable([0.0])
    optimizer = EmaAdamW(ema_decay=0.999, learning_rate=1.0, weight_decay=0.0)
    optimizer.build([variable])
    expected, averages = 0.0, []
    for step in range(3):
        optimizer.apply([keras.ops.convert_to_tensor([-1.0])], [variable])
        decay = (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * float(variable.numpy()[0])
        averages.append(optimizer.averaged_weights()[0][0])
    before = float(variable.numpy()[0])
    optimizer.finalize_variable_values([variable])
    assert averages[-1] == pytest.approx(expected, rel=1e-5)
    assert float(variable.numpy()[0]) == before


JAX_TRAINING = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import keras
from conftest import phantom_set
from kerasmed.config import DiffusionConfig
from kerasmed.diffusion.training import train_denoiser
from kerasmed.runtime import Runtime

settings = DiffusionConfig(widths=[8], steps=6, steps_per_epoch=3, batch_size=4, warmup_steps=2)
runtime = Runtime(keras.backend.backend(), "CPU", "float32", True)
images, folder = phantom_set(), Path(sys.argv[2])
print(json.dumps(train_denoiser(images, images, settings, "mirror", 0, runtime, folder)))
"""


def test_the_same_code_trains_on_jax(tmp_path):
    pytest.importorskip("jax")
    tests = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", JAX_TRAINING, str(tests), str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["steps"] == 6
    assert np.isfinite(result["validation_loss"])
    assert keras.saving.load_model(tmp_path / "denoiser.keras").count_params() > 0
