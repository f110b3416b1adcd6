import dataclasses

import keras
import numpy as np
import pytest
from classify.small_network import pretrained, small_network
from conftest import phantom_set

from kerasmed.classify import network
from kerasmed.classify.backbones import build_network
from kerasmed.classify.calibration import calibrated_loss
from kerasmed.classify.config import ClassifierConfig
from kerasmed.classify.model import ImageClassifier
from kerasmed.classify.network import build_classifier, predict_outputs
from kerasmed.classify.optimizer import ClippedAdam, cosine_schedule, freeze_lower_layers
from kerasmed.classify.recipes import Phase, phases_of
from kerasmed.classify.training import train_best_classifier, train_classifier
from kerasmed.errors import ConfigError, StageError
from kerasmed.parallel.resolve import Runtime
from kerasmed.saved_models import load_model

FLOAT32 = Runtime("tensorflow", "CPU", "float32", False)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A quick backbone, since these tests are about the training."""
    monkeypatch.setattr(network, "build_network", small_network)


def _settings(**changes):
    tiny = {"weights": "none", "input_size": 32, "batch_size": 8, "finetune_epochs": 1}
    return ClassifierConfig(**{**tiny, "augment": "none", **changes})


def _train(phantoms, folder, runtime=FLOAT32, **changes):
    phases = [Phase(phantoms, _settings(**changes))]
    return train_classifier("MobileNet", phases, phantoms, "mirror", 0, runtime, folder)


def _changed_by_a_step(model, images, labels):
    """By layer of the backbone: its kind, and whether one step of training changed it."""
    layers = next(layer for layer in model.layers if isinstance(layer, keras.Model)).layers
    before = [layer.get_weights() for layer in layers]
    trained = keras.Model(model.input, model.output["logits"])
    trained.compile(
        keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    trained.train_on_batch(images, labels)
    return [
        (type(layer), any(not np.array_equal(a, b) for a, b in zip(old, new, strict=True)))
        for layer, old in zip(layers, before, strict=True)
        if (new := layer.get_weights())
    ]


def test_training_leaves_a_float32_model_and_its_history(phantoms, tmp_path):
    classifier, result = _train(phantoms, tmp_path)
    saved = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(saved.predict(phantoms), classifier.predict(phantoms))
    assert saved.dtype_policy.name == "float32"
    header, row = (tmp_path / "history.csv").read_text().splitlines()
    assert header == "phase,epoch,loss,accuracy,val_loss,val_accuracy"
    assert row.startswith("finetune,1,")
    assert result["n_train"] == 20
    assert result["precision"] == "float32"


@pytest.mark.parametrize(("images_per_epoch", "steps"), [(None, 6), (41, 12)])
def test_an_epoch_shows_as_many_images_as_asked(images_per_epoch, steps, phantoms, tmp_path):
    _, result = train_classifier(
        "MobileNet",
        [Phase(phantoms, _settings(finetune_epochs=2))],
        phantoms,
        "mirror",
        0,
        FLOAT32,
        tmp_path,
        images_per_epoch,
    )
    assert result["steps"] == steps


def test_head_is_fitted_on_frozen_features_of_pretrained_weights(phantoms, tmp_path):
    donor = build_classifier("MobileNet", 2, 16, 32, "none", 0.2)
    path = tmp_path / "own.weights.h5"
    backbone = next(layer for layer in donor.layers if isinstance(layer, keras.Model))
    backbone.save_weights(path)
    classifier, _ = _train(phantoms, tmp_path / "run", weights=str(path), finetune_epochs=0)
    layers = classifier.network.layers
    trained = next(layer for layer in layers if isinstance(layer, keras.Model))
    for before, after in zip(backbone.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    phases = (tmp_path / "run" / "history.csv").read_text()
    assert "head,1," in phases
    assert "finetune" not in phases


def test_only_the_upper_layers_are_trained_where_asked(phantoms, tmp_path):
    model = build_classifier("MobileNet", 2, 16, 32, str(pretrained(tmp_path)), 0.0)
    freeze_lower_layers(model, 0.3)
    changes = _changed_by_a_step(model, phantoms.images, phantoms.labels)
    changed = [changed for kind, changed in changes if kind is not keras.layers.BatchNormalization]
    first = changed.index(True)
    assert not any(changed[:first])
    assert all(changed[first:])
    assert 0.5 < first / len(changed) < 0.9


@pytest.mark.parametrize(("precision", "jit"), [("mixed_bfloat16", True), ("mixed_float16", False)])
def test_mixed_precision_and_xla_are_what_ran(phantoms, tmp_path, precision, jit):
    runtime = Runtime("tensorflow", "CPU", precision, jit)
    classifier, result = _train(phantoms, tmp_path, runtime)
    assert (result["precision"], result["jit_compile"]) == (precision, jit)
    saved = load_model(tmp_path / "model.keras").network
    for model in (classifier.inference_network(), saved):
        assert {layer.compute_dtype for layer in model.layers} <= {"float32", "uint8"}


def test_best_weights_are_kept_and_training_ends_without_progress(phantoms, tmp_path):
    # The first steps are good and the rest are ever worse: a rate that destroys the network.
    rows = []
    classifier, result = _train(
        phantoms, tmp_path, finetune_epochs=9, patience=2, finetune_learning_rate=0.01
    )
    for line in (tmp_path / "history.csv").read_text().splitlines()[1:]:
        rows.append([float(value) for value in line.split(",")[1:]])
    losses = [row[3] for row in rows]  # rounded, so that several may be the least
    best = [epoch for epoch, loss in enumerate(losses) if loss == min(losses)]
    assert len(rows) in {min(9, max(epoch, 4) + 1 + 2) for epoch in best}
    assert result["steps"] == 3 * len(rows)
    logits = predict_outputs(classifier.inference_network(), phantoms.images)["logits"]
    assert calibrated_loss(logits, phantoms.labels) == pytest.approx(min(losses), abs=1e-4)


def test_smoothed_labels_bound_the_loss(phantoms, tmp_path):
    # Between two classes with a smoothing of 0.9 no loss is below the entropy of 0.55 and 0.45.
    for smoothing, is_bounded in ((0.0, False), (0.9, True)):
        recipe = {"label_smoothing": smoothing, "finetune_epochs": 12, "patience": 12}
        _train(phantoms, tmp_path, finetune_learning_rate=0.003, **recipe)
        lines = (tmp_path / "history.csv").read_text().splitlines()[1:]
        assert (min(float(line.split(",")[2]) for line in lines) >= 0.688) == is_bounded


def test_head_is_kept_where_nothing_is_better(phantoms, tmp_path, monkeypatch):
    # The features of the small network are too poor for a good head.
    monkeypatch.setattr(network, "build_network", build_network)
    path = str(pretrained(tmp_path, build_network))
    _train(phantoms, tmp_path / "head", weights=path, finetune_epochs=0)
    _, result = _train(
        phantoms, tmp_path / "both", weights=path, finetune_epochs=2, finetune_learning_rate=10.0
    )
    assert result["kept"] == "head"
    head, both = (
        load_model(tmp_path / name / "model.keras").get_weights() for name in ("head", "both")
    )
    for one, other in zip(head, both, strict=True):
        np.testing.assert_array_equal(one, other)


def test_head_gives_way_to_what_is_not_worse_beyond_chance(phantoms, tmp_path):
    path = str(pretrained(tmp_path))
    _, result = _train(
        phantoms, tmp_path / "both", weights=path, finetune_epochs=1, finetune_learning_rate=1e-9
    )
    assert result["kept"] == "finetune"


def test_loss_that_is_not_finite_ends_the_training(phantoms, tmp_path):
    with pytest.raises(StageError, match=r"The loss of MobileNet became .* in epoch 1: expected"):
        _train(phantoms, tmp_path, finetune_learning_rate=1e30)
    assert not (tmp_path / "model.keras").exists()


def test_batch_that_does_not_divide_is_refused(phantoms, tmp_path):
    three = Runtime("tensorflow", "3 x GPU", "float32", False, "mirrored", 3)
    with pytest.raises(ConfigError, match=r"classifiers.batch_size: expected a multiple of the 3"):
        _train(phantoms, tmp_path, three)


def test_pretrained_statistics_stay_while_training(phantoms, tmp_path):
    model = build_classifier("MobileNet", 2, 16, 32, str(pretrained(tmp_path)), 0.0)
    one, other = (
        np.array(model(phantoms.images, training=training)["features"])
        for training in (True, False)
    )
    np.testing.assert_array_equal(one, other)
    for kind, changed in _changed_by_a_step(model, phantoms.images, phantoms.labels):
        assert changed == (kind is not keras.layers.BatchNormalization)


@pytest.mark.parametrize("steps", [1, 2, 19, 20, 1000])
def test_rate_rises_to_its_peak_and_falls_to_nothing(steps):
    schedule = cosine_schedule(0.01, steps)

    rates = [float(schedule(step)) for step in range(steps + 1)]

    warmup_steps = max(1, steps // 20)
    assert rates[0] == 0
    assert rates[warmup_steps] == max(rates) == pytest.approx(0.01)
    # Where there is a step after the peak.
    assert rates[-1] == pytest.approx(0 if steps > warmup_steps else 0.01, abs=1e-8)
    assert rates[warmup_steps:] == sorted(rates[warmup_steps:], reverse=True)


def test_optimizer_is_saved_with_the_model(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(ClippedAdam(cosine_schedule(0.01, 40), global_clipnorm=0.5), "mse")
    model.train_on_batch(np.ones((4, 3)), np.ones((4, 1)))
    model.save(tmp_path / "saved.keras")
    loaded = keras.saving.load_model(tmp_path / "saved.keras").optimizer
    assert isinstance(loaded, ClippedAdam)
    assert loaded.get_config() == model.optimizer.get_config()
    for one, other in zip(model.optimizer.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def _phased(regime, phantoms, synthetic, folder, **changes):
    settings = _settings(**{"finetune_epochs": 4, **changes})
    phases = phases_of(regime, settings, {"train": phantoms, "synthetic": synthetic})
    return train_classifier("MobileNet", phases, phantoms, "mirror", 0, FLOAT32, folder, 40)


def test_the_recipe_with_the_lowest_validation_loss_is_kept(phantoms, tmp_path):
    plain = [Phase(phantoms, _settings(finetune_epochs=1, finetune_learning_rate=1e-9))]
    better = [Phase(phantoms, _settings(finetune_epochs=8, finetune_learning_rate=0.01))]
    slower = [Phase(phantoms, _settings(finetune_epochs=2, finetune_learning_rate=1e-9))]
    recipes = {"first": plain, "best": better, "last": slower, "again": plain}
    result = train_best_classifier(
        "MobileNet", recipes, phantoms, "mirror", 0, FLOAT32, tmp_path, 40
    )
    assert result["recipe"] == "best"
    assert result["validation_loss"] == min(result["recipe_losses"].values())
    assert list(result["recipe_losses"]) == ["first", "best", "last"]  # the same one only once
    kept = load_model(tmp_path / "model.keras")
    assert kept.evaluate(phantoms)["loss"] == pytest.approx(result["validation_loss"], rel=1e-4)
    assert {path.name for path in tmp_path.iterdir()} == {"model.keras", "history.csv"}


@pytest.mark.parametrize(("regime", "images"), [("pretrained", 40), ("real_twice", 20)])
def test_two_phases_divide_the_epochs(regime, images, phantoms, tmp_path):
    synthetic = phantom_set(family="ct", per_class=10)
    _, result = _phased(regime, phantoms, synthetic, tmp_path, first_phase=0.25)
    rows = [line.split(",")[:2] for line in (tmp_path / "history.csv").read_text().split()[1:]]
    assert rows == [["finetune", "1"], ["second", "1"], ["second", "2"], ["second", "3"]]
    assert result["n_train"] == images
    assert result["steps"] == 15


def test_second_phase_has_a_rate_and_layers_of_its_own(phantoms, tmp_path, monkeypatch):
    fits = []
    fit = ImageClassifier.fit

    def watched(model, x, **options):
        trainable = len(model.trainable_variables)
        fits.append((model.settings.finetune_learning_rate, trainable, x is phantoms))
        return fit(model, x, **options)

    monkeypatch.setattr(ImageClassifier, "fit", watched)
    path = tmp_path / "own.weights.h5"
    donor = build_classifier("MobileNet", 2, 16, 32, "none", 0.2)
    next(layer for layer in donor.layers if isinstance(layer, keras.Model)).save_weights(path)
    _phased(
        "pretrained", phantoms, phantom_set(), tmp_path, weights=str(path),
        finetune_learning_rate=1e-3, second_learning_rate=1e-5, second_finetune_fraction=0.3,
    )  # fmt: skip
    (first_rate, first_layers, of_real), (second_rate, second_layers, of_real_then) = fits
    assert (first_rate, second_rate) == (1e-3, 1e-5)
    assert (of_real, of_real_then) == (False, True)
    assert second_layers < first_layers


def test_layers_of_the_first_phase_can_be_fewer(phantoms, tmp_path):
    model = ImageClassifier.from_preset(
        "MobileNet", phantoms, weights=str(pretrained(tmp_path)), input_size=32,
        finetune_fraction=0.3,
    )  # fmt: skip
    model.compile()
    few = len(model.trainable_variables)
    model.settings = model.settings.model_copy(update={"finetune_fraction": 1.0})
    model.compile()
    assert len(model.trainable_variables) > few
    changes = _changed_by_a_step(model.network, phantoms.images, phantoms.labels)
    for kind, changed in changes:  # pretrained statistics stay
        assert changed == (kind is not keras.layers.BatchNormalization)


def test_layer_that_a_user_froze_stays_frozen(phantoms):
    model = ImageClassifier.from_preset("MobileNet", phantoms, weights="none", input_size=32)
    backbone = next(layer for layer in model.network.layers if isinstance(layer, keras.Model))
    first = next(layer for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D))
    first.trainable = False
    for fraction in (0.3, 1.0):
        model.settings = model.settings.model_copy(update={"finetune_fraction": fraction})
        model.compile()
    assert not first.trainable


def test_second_phase_that_harms_is_undone(phantoms, tmp_path):
    """Weights from before are kept if the later ones make more mistakes beyond chance."""
    wrong = dataclasses.replace(phantoms, labels=1 - phantoms.labels)
    settings = _settings(finetune_epochs=12, finetune_learning_rate=0.01)
    phases = [Phase(phantoms, settings), Phase(wrong, settings)]
    model, result = train_classifier(
        "MobileNet", phases, phantoms, "mirror", 0, FLOAT32, tmp_path, 80
    )
    assert result["kept"] == "first_phase"
    assert model.evaluate(phantoms)["accuracy"] > 0.9
