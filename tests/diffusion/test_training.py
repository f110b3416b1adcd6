"""Training the denoiser, on TensorFlow here and on JAX in a process of its own."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import no_levels, phantom_set
from PIL import Image

from kerasmed.diffusion import denoising_model, model, unet
from kerasmed.diffusion.config import DiffusionConfig, UpscalerConfig
from kerasmed.diffusion.model import DiffusionModel, load_diffusion_model
from kerasmed.diffusion.recorder import Recorder
from kerasmed.diffusion.training import train_model
from kerasmed.diffusion.upscaler import Upscaler, load_upscaler
from kerasmed.errors import StageError
from kerasmed.parallel.resolve import Runtime

FLOAT32 = Runtime("tensorflow", "CPU", "float32", False)


def _settings(**changes):
    tiny = {"widths": [8], "checkpoint_steps": 3, "batch_size": 4, "warmup_steps": 2}
    if "steps" in changes:
        changes["max_images"] = 4 * changes.pop("steps")
    return DiffusionConfig(**{**tiny, "max_images": 24, "preview_every": 1, **changes})


pytestmark = pytest.mark.usefixtures("few_layers")


@pytest.fixture
def whole(few_layers):
    """The network of a study, and not one level of convolutions."""
    few_layers.undo()


def _train(phantoms, folder, runtime=FLOAT32, validation=None, **changes):
    return train_model(
        DiffusionModel,
        phantoms,
        validation or phantoms,
        _settings(**changes),
        "mirror",
        0,
        runtime,
        folder,
    )


def _saved(folder: Path) -> list[np.ndarray]:
    """The averaged weights in a folder's file."""
    return load_diffusion_model(folder / "denoiser.keras").inference_network().get_weights()


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    """Folders of a training after three steps and after six."""
    folders = {steps: tmp_path_factory.mktemp(f"steps-{steps}") for steps in (3, 6)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "_down_and_up", no_levels)
        for steps, folder in folders.items():
            _train(phantom_set(), folder, steps=steps)
    return folders


@pytest.fixture
def three_steps(trainings, tmp_path):
    """A folder in which a training of three steps has ended."""
    return Path(shutil.copytree(trainings[3], tmp_path / "three"))


@pytest.fixture
def six_steps(trainings, tmp_path):
    """A folder in which a training of six steps, with a checkpoint after three, has ended."""
    return Path(shutil.copytree(trainings[6], tmp_path / "six"))


def _history(folder):
    return [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]


@pytest.mark.usefixtures("whole")
def test_training_lowers_the_loss_and_leaves_its_files(phantoms, tmp_path):
    recipe = {"checkpoint_steps": 20, "learning_rate": 3e-3}
    result = _train(phantoms, tmp_path, steps=60, **recipe)
    losses = [float(row[2]) for row in _history(tmp_path)[1:]]
    assert losses[-1] < 0.7 * losses[0]
    assert result["steps"] == 60
    assert result["precision"] == "float32"
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        "best.npz",
        "step-00000040.npz",
        "step-00000060.npz",
    ]
    assert (tmp_path / "previews" / "step-00000060.png").exists()
    _assert_best_is_saved(tmp_path)


def _assert_best_is_saved(folder: Path) -> None:
    """The file holds the averages with the lowest validation loss."""
    saved = _saved(folder)
    with np.load(folder / "checkpoints" / "best.npz") as best:
        for at, weights in enumerate(saved):
            np.testing.assert_array_equal(weights, best[f"w{at}"])
        assert len(best.files) == len(saved) + 1  # and their row of the history


def _assert_same_checkpoint(first: Path, second: Path, step: int):
    """Weights, optimiser, averages and the state of dropout, bit for bit."""
    name = f"step-{step:08d}.npz"
    with (
        np.load(first / "checkpoints" / name) as one,
        np.load(second / "checkpoints" / name) as other,
    ):
        assert set(one.files) == set(other.files)
        for key in set(one.files) - {"meta"}:
            np.testing.assert_array_equal(one[key], other[key])


RECIPE = {"dropout": 0.2, "augment": 0.3}


def test_resumed_training_equals_the_uninterrupted_one(phantoms, tmp_path):
    _train(phantoms, tmp_path / "whole", **RECIPE)
    _train(phantoms, tmp_path / "resumed", steps=3, **RECIPE)
    _train(phantoms, tmp_path / "resumed", **RECIPE)
    _assert_same_checkpoint(tmp_path / "whole", tmp_path / "resumed", 6)
    whole, resumed = _history(tmp_path / "whole"), _history(tmp_path / "resumed")
    assert [row[:1] + row[2:4] for row in whole] == [row[:1] + row[2:4] for row in resumed]


def test_resumed_training_of_an_upscaler_equals_the_uninterrupted_one(phantoms, tmp_path):
    def train(folder, max_images):
        settings = UpscalerConfig(
            widths=[8], crop_size=8, max_images=max_images, checkpoint_steps=3, batch_size=4,
            preview_every=1, warmup_steps=2,
        )  # fmt: skip
        return train_model(Upscaler, phantoms, phantoms, settings, "mirror", 0, FLOAT32, folder)

    result = train(tmp_path / "whole", 24)
    train(tmp_path / "resumed", 12)
    train(tmp_path / "resumed", 24)
    _assert_same_checkpoint(tmp_path / "whole", tmp_path / "resumed", 6)
    assert (result["steps"], result["precision"]) == (6, "float32")
    assert load_upscaler(tmp_path / "whole" / "upscaler.keras").base_size == 4
    header, *rows = _history(tmp_path / "whole")
    assert len(rows) == 2
    assert "closer_to_train" not in header
    assert (tmp_path / "whole" / "previews" / "step-00000006.png").exists()


def test_loss_of_an_upscaler_that_is_not_finite_names_its_section(phantoms, tmp_path):
    settings = UpscalerConfig(
        widths=[8], crop_size=8, max_images=24, checkpoint_steps=3, batch_size=4, warmup_steps=1,
        learning_rate=1e30, clip_norm=1e30,
    )  # fmt: skip
    with pytest.raises(StageError, match=r"lower upscaler\.learning_rate"):
        train_model(Upscaler, phantoms, phantoms, settings, "none", 0, FLOAT32, tmp_path)


def test_several_threads_feed_the_same_batches_in_the_same_order(phantoms, tmp_path, monkeypatch):
    _train(phantoms, tmp_path / "one", **RECIPE)
    monkeypatch.setattr(denoising_model, "list_gpus", lambda: ["gpu:0"])
    monkeypatch.setattr(denoising_model, "cpu_cores", lambda: 3)
    _train(phantoms, tmp_path / "three", **RECIPE)
    _assert_same_checkpoint(tmp_path / "one", tmp_path / "three", 6)


KILLED_TRAINING = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
import kerasmed.diffusion.checkpoints as checkpoints
from diffusion.test_training import FLOAT32, RECIPE, _train, unet
from conftest import no_levels, phantom_set

class HalfWritten:
    load = staticmethod(np.load)
    inf, nan = np.inf, np.nan

    @staticmethod
    def savez(path, **arrays):
        np.savez(path, **arrays)
        if "step-00000006" in path.name:
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

checkpoints.np = HalfWritten
unet._down_and_up = no_levels
_train(phantom_set(), Path(sys.argv[2]), steps=9, **RECIPE)
"""


def test_training_killed_in_the_middle_of_a_checkpoint_goes_on_exactly(phantoms, tmp_path):
    tests = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", KILLED_TRAINING, tests, str(tmp_path / "killed")]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    left = [path.name for path in (tmp_path / "killed" / "checkpoints").glob("step-*.npz")]
    assert left == ["step-00000003.npz"]

    _train(phantoms, tmp_path / "killed", steps=9, **RECIPE)
    _train(phantoms, tmp_path / "whole", steps=9, **RECIPE)
    kept = sorted(path.name for path in (tmp_path / "killed" / "checkpoints").iterdir())
    assert kept == ["best.npz", "step-00000006.npz", "step-00000009.npz"]
    _assert_same_checkpoint(tmp_path / "whole", tmp_path / "killed", 9)


def test_average_with_the_lowest_validation_loss_is_exported(phantoms, tmp_path, monkeypatch):
    _train(phantoms, tmp_path / "short")  # ends where the loss below is lowest
    losses = iter([3.0, 1.0, 2.0, 1.5])
    _validate_as(monkeypatch, losses)
    result = _train(phantoms, tmp_path / "long", steps=12)
    assert (result["steps"], result["exported_step"], result["validation_loss"]) == (12, 6, 1.0)
    short, long = (_saved(tmp_path / name) for name in ("short", "long"))
    for one, other in zip(short, long, strict=True):
        np.testing.assert_array_equal(one, other)


def test_averages_are_exported_and_not_the_weights_themselves(three_steps):
    saved = load_diffusion_model(three_steps / "denoiser.keras")
    averages = saved.inference_network().get_weights()
    with np.load(three_steps / "checkpoints" / "step-00000003.npz") as kept:
        raw = [kept[f"m{i}"] for i in range(len(averages))]
    for weight, expected in zip(saved.network.get_weights(), raw, strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert not all(map(np.array_equal, averages, raw))


def _validate_as(monkeypatch, losses) -> None:
    """Let the validation find these losses, one after the other."""
    monkeypatch.setattr(
        model.DiffusionModel, "validation_losses", lambda self, batch: {"loss": next(losses)}
    )


def test_finished_training_that_is_called_again_leaves_its_file(phantoms, six_steps):
    before = (six_steps / "denoiser.keras").read_bytes()
    _train(phantoms, six_steps)
    assert (six_steps / "denoiser.keras").read_bytes() == before

    (six_steps / "denoiser.keras").write_bytes(before[:1000])
    _train(phantoms, six_steps)
    _assert_best_is_saved(six_steps)
    _train(phantoms, six_steps, steps=12)
    assert (six_steps / "denoiser.keras").read_bytes() != before


def test_unreadable_best_average_is_said_and_the_last_is_exported(phantoms, six_steps, capsys):
    (six_steps / "checkpoints" / "best.npz").write_bytes(b"PK")
    assert _train(phantoms, six_steps)["exported_step"] == 6
    assert "best.npz is not readable" in " ".join(capsys.readouterr().err.split())


def test_training_ends_when_the_validation_loss_no_longer_falls(phantoms, tmp_path, capsys):
    frozen = {"learning_rate": 1e-12, "weight_decay": 0.0, "patience": 2}
    assert _train(phantoms, tmp_path, steps=300, **frozen)["steps"] == 9
    assert "has not fallen for 2 checkpoints" in " ".join(capsys.readouterr().err.split())


def test_budget_in_epochs_ends_at_the_next_checkpoint(phantoms, tmp_path):
    # Twenty images in batches of four: one epoch is five steps, checkpoints come every three.
    assert _train(phantoms, tmp_path, max_images=None, max_epochs=1)["steps"] == 6


def test_preview_says_how_many_lie_closer_to_train(phantoms, tmp_path):
    _train(phantoms, tmp_path, preview_every=2)
    header, first, last = _history(tmp_path)
    for row in (first, last):
        assert 0 <= float(row[header.index("closer_to_train")]) <= 1
    with Image.open(tmp_path / "previews" / "step-00000006.png") as page:
        assert page.width == 24 * 16
        assert page.height > 2 * 16


def test_checkpoint_of_another_recipe_is_refused(phantoms, three_steps):
    with pytest.raises(
        StageError,
        match=r"step-00000003\.npz: `diffusion\.learning_rate` was 0\.001 .* is 0\.01 now\. "
        r"Restore 0\.001, .* delete .*checkpoints",
    ):
        _train(phantoms, three_steps, learning_rate=0.01)
    others = phantom_set(per_class=9)
    with pytest.raises(StageError, match="`training images` was"):
        _train(others, three_steps)
    with pytest.raises(StageError, match="`validation images` was"):
        _train(phantoms, three_steps, validation=others)


def _rewrite(path, change):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    change(arrays)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays.pop("o5"),
        lambda arrays: arrays.update(m99=np.zeros(3)),
        lambda arrays: arrays.update(m0=arrays["m0"][..., :1]),
    ],
    ids=["missing", "further", "shape"],
)
def test_checkpoint_of_another_network_is_refused(phantoms, three_steps, change):
    newest = three_steps / "checkpoints" / "step-00000003.npz"
    _rewrite(newest, change)
    before = newest.read_bytes()
    with pytest.raises(StageError, match=r"step-00000003\.npz holds another network"):
        _train(phantoms, three_steps)
    assert newest.read_bytes() == before


def test_best_average_of_another_network_gives_way_to_the_last(phantoms, six_steps, capsys):
    _rewrite(six_steps / "checkpoints" / "best.npz", lambda a: a.update(w0=a["w0"][..., :1]))
    assert _train(phantoms, six_steps, steps=6)["exported_step"] == 6
    assert "the last average is used" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_history_that_was_cut_is_refused(phantoms, six_steps, cut):
    path = six_steps / "history.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:cut]) + ("6,0.1" if cut == 2 else ""))
    with pytest.raises(StageError, match=r"history\.csv is incomplete: expected its rows up to st"):
        _train(phantoms, six_steps, steps=9)


def test_equal_losses_are_equal_after_a_pause_too(phantoms, tmp_path, monkeypatch):
    _validate_as(monkeypatch, itertools.repeat(0.0123456789987))
    _train(phantoms, tmp_path, steps=3)
    assert _train(phantoms, tmp_path, steps=9)["exported_step"] == 3


def test_checkpoint_of_another_size_or_precision_is_refused(phantoms, three_steps):
    with pytest.raises(StageError, match=r"`runtime\.precision` was float32 .* is mixed_b"):
        _train(phantoms, three_steps, Runtime("tensorflow", "CPU", "mixed_bfloat16", False))
    with pytest.raises(StageError, match=r"`data\.image_size` was 16 .* is 32 now"):
        _train(phantom_set(size=32), three_steps)


def test_loss_that_is_no_number_stops_with_the_last_good_checkpoint(phantoms, three_steps):
    newest = three_steps / "checkpoints" / "step-00000003.npz"
    _rewrite(newest, lambda arrays: arrays.update(m0=np.full_like(arrays["m0"], np.nan)))

    with pytest.raises(StageError, match=r"nan between steps 3 and 6, at the learning rate 0\.001"):
        _train(phantoms, three_steps)

    names = [path.name for path in (three_steps / "checkpoints").iterdir()]
    assert sorted(names) == ["best.npz", "step-00000003.npz"]
    assert len(_history(three_steps)) == 2


def test_average_that_is_no_number_is_not_kept(phantoms, tmp_path, monkeypatch):
    losses = iter([1.0, np.nan])
    _validate_as(monkeypatch, losses)
    with pytest.raises(StageError, match=r"nan between steps 3 and 6"):
        _train(phantoms, tmp_path)
    with np.load(tmp_path / "checkpoints" / "best.npz") as kept:
        assert json.loads(str(kept["meta"]))["step"] == 3


def test_learning_rate_falls_over_the_end_of_the_budget(phantoms, tmp_path):
    _train(phantoms, tmp_path / "cooled", steps=12, cooldown=0.5)
    _train(phantoms, tmp_path / "plain", steps=12, cooldown=0.0)

    header, *rows = _history(tmp_path / "cooled")
    rates = [float(row[header.index("learning_rate")]) for row in rows]
    # Four epochs of three steps, in whose middle 7/8, 5/8, 3/8 and 1/8 of the budget are left.
    assert rates == pytest.approx([1e-3, 1e-3, 7.5e-4, 2.5e-4], rel=1e-6)
    cooled, plain = (_saved(tmp_path / name) for name in ("cooled", "plain"))
    assert any((one != other).any() for one, other in zip(cooled, plain, strict=True))


def test_history_has_the_rates_of_the_warm_up(phantoms, tmp_path):
    _train(phantoms, tmp_path, steps=6, warmup_steps=12)
    header, *rows = _history(tmp_path)
    rates = [float(row[header.index("learning_rate")]) for row in rows]
    assert rates == pytest.approx([1e-3 * 4 / 12, 1e-3 * 7 / 12], rel=1e-6)  # of the next step


def test_truncated_checkpoint_falls_back_to_the_one_before(phantoms, six_steps, capsys):
    newest = six_steps / "checkpoints" / "step-00000006.npz"
    newest.write_bytes(newest.read_bytes()[:1000])
    _train(phantoms, six_steps)
    assert "step-00000006.npz is not readable" in " ".join(capsys.readouterr().err.split())
    assert len(_history(six_steps)) == 3


def test_training_whose_checkpoints_cannot_be_read_does_not_begin_anew(phantoms, six_steps):
    best = (six_steps / "checkpoints" / "best.npz").read_bytes()
    for path in (six_steps / "checkpoints").glob("step-*.npz"):
        path.write_bytes(b"")
    with pytest.raises(StageError, match=r"None of the 2 checkpoints .* can be read; restore one"):
        _train(phantoms, six_steps, steps=12)
    assert (six_steps / "checkpoints" / "best.npz").read_bytes() == best


def test_class_with_one_image_is_learned_like_the_others(phantoms, tmp_path):
    one_of_the_second = phantoms.subset([*range(10), 19])
    assert one_of_the_second.counts() == {"clear": 10, "ground_glass": 1}
    assert _train(one_of_the_second, tmp_path)["steps"] == 6


def test_learning_rate_falls_over_the_end_of_a_budget_in_minutes(phantoms, tmp_path, monkeypatch):
    # Three steps a minute.
    def minutes(recorder):
        return int(recorder.model.optimizer.iterations) / 3 if recorder.model else 0.0

    monkeypatch.setattr(Recorder, "_minutes", minutes)
    _train(phantoms, tmp_path, max_images=None, max_minutes=4, cooldown=0.5)

    header, *rows = _history(tmp_path)
    rates = [float(row[header.index("learning_rate")]) for row in rows]
    assert rates == pytest.approx([1e-3, 1e-3, 7.5e-4, 2.5e-4], rel=1e-6)


def test_time_budget_ends_the_training(phantoms, tmp_path):
    assert _train(phantoms, tmp_path, steps=3000, max_minutes=1e-6)["steps"] == 3


def test_time_before_a_pause_counts(phantoms, three_steps):
    path = three_steps / "history.csv"
    header, row = path.read_text().splitlines()
    step, _, *rest = row.split(",")
    path.write_text("\n".join([header, ",".join([step, "60", *rest])]) + "\n")
    assert _train(phantoms, three_steps, max_images=None, max_minutes=60)["steps"] == 3
    assert _train(phantoms, three_steps, max_minutes=61)["minutes"] > 60


@pytest.mark.parametrize(("minutes", "late"), [(1e-6, True), (60, False)])
def test_budget_that_ends_before_the_first_checkpoint_is_said(
    phantoms, tmp_path, capsys, minutes, late
):
    _train(phantoms, tmp_path, steps=12, checkpoint_steps=12, max_minutes=minutes)
    messages = " ".join(capsys.readouterr().err.split())
    assert ("lower diffusion.checkpoint_steps" in messages) == late


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "jit"), [("mixed_bfloat16", True), ("mixed_float16", False)])
@pytest.mark.usefixtures("whole")
def test_mixed_precision_and_xla_are_what_ran(phantoms, tmp_path, monkeypatch, precision, jit):
    runtime = Runtime("tensorflow", "CPU", precision, jit)
    built = []
    build = unet.build_denoiser
    monkeypatch.setattr(
        model, "build_denoiser", lambda *a, **k: built.append(build(*a, **k)) or built[-1]
    )
    result = _train(phantoms, tmp_path, runtime, steps=3)
    assert (result["precision"], result["jit_compile"]) == (precision, jit)
    trained, validates = built[:2]
    assert precision in {layer.dtype_policy.name for layer in trained.layers}
    assert validates.jit_compile == jit
    saved = load_diffusion_model(tmp_path / "denoiser.keras")
    assert {layer.compute_dtype for layer in saved.network.layers} <= {"float32", "int32"}


JAX_TRAINING = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import phantom_set
from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.diffusion.model import DiffusionModel
from kerasmed.parallel.config import RuntimeConfig
from kerasmed.diffusion.training import train_model
from kerasmed.parallel.resolve import resolve_runtime

settings = DiffusionConfig(
    widths=[8], max_images=24, checkpoint_steps=3, batch_size=4, warmup_steps=2
)
runtime = resolve_runtime(RuntimeConfig(precision=sys.argv[3]))
images, folder = phantom_set(), Path(sys.argv[2])
result = train_model(DiffusionModel, images, images, settings, "mirror", 0, runtime, folder)
print(json.dumps(result))
"""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.usefixtures("whole")
def test_the_same_code_trains_on_jax(precision, phantoms, tmp_path):
    pytest.importorskip("jax")
    tests = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", JAX_TRAINING, str(tests), str(tmp_path), precision],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["steps"], result["precision"], result["jit_compile"]) == (6, precision, True)
    assert np.isfinite(result["validation_loss"])
    # Only TensorFlow can export it; there the training is already finished.
    before = (tmp_path / "denoiser.keras").read_bytes()
    runtime = Runtime("tensorflow", "CPU", precision, False)
    result_on_tensorflow = _train(phantoms, tmp_path, runtime, preview_every=10)
    assert (tmp_path / "denoiser.keras").read_bytes() == before
    ran = {"backend": "jax", "device": result["device"], "jit_compile": True, "steps": 6}
    assert {key: result_on_tensorflow[key] for key in ran} == ran
