"""AdamW and Muon with their average, against the formulas in NumPy."""

import keras
import numpy as np
import pytest

from kerasmed.diffusion.optimizer import EmaAdamW, EmaMuon, orthogonalized

SETTINGS = {"ema_decay": 0.3, "warmup_steps": 3, "weight_decay": 0.1, "learning_rate": 0.5}


def by_formula(weight: float, gradients: list[float]) -> list[tuple[float, float]]:
    """Weight and average after each step."""
    momentum = velocity = average = 0.0
    states = []
    for step, gradient in enumerate(gradients):
        rate = 0.5 * min(1.0, (step + 1) / 3)
        momentum = 0.9 * momentum + 0.1 * gradient
        velocity = 0.99 * velocity + 0.01 * gradient**2
        corrected = momentum / (1 - 0.9 ** (step + 1))
        spread = np.sqrt(velocity / (1 - 0.99 ** (step + 1)))
        weight = weight * (1 - rate * 0.1) - rate * corrected / spread
        kept = min(0.3, step / (9 + step))
        average = kept * average + (1 - kept) * weight
        states.append((weight, average))
    return states


@pytest.mark.parametrize("fused", [True, False])
def test_steps_by_formula(fused, monkeypatch):
    if not fused:
        monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    variable = keras.Variable([2.0, -1.0])
    optimizer = EmaAdamW(**SETTINGS)
    optimizer.build([variable])
    gradients = [1.0, -3.0, 0.5, 0.25, 2.0, -1.0, 4.0]
    expected = by_formula(2.0, gradients)
    for gradient, (weight, average) in zip(gradients, expected, strict=True):
        optimizer.apply([keras.ops.convert_to_tensor([gradient, 0.1])], [variable])
        assert float(variable.numpy()[0]) == pytest.approx(weight, rel=1e-4)
        assert optimizer.average_of(variable).numpy()[0] == pytest.approx(average, rel=1e-4)


def test_rate_that_is_set_warms_up_as_well():
    optimizer = EmaAdamW(**SETTINGS)
    assert float(optimizer.warmed_up(optimizer.learning_rate)) == pytest.approx(0.5 / 3)
    optimizer.learning_rate = 0.3
    assert float(optimizer.learning_rate) == pytest.approx(0.3)
    assert float(optimizer.warmed_up(optimizer.learning_rate)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "callback",
    [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate),
        keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=9),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_callback_that_leaves_the_rate_leaves_it(callback):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile(EmaAdamW(**{**SETTINGS, "warmup_steps": 100}), "mse")
    history = model.fit(np.ones((8, 3)), np.ones((8, 3)), epochs=3, callbacks=[callback], verbose=0)
    assert history.history["learning_rate"] == [0.5] * 3
    assert float(model.optimizer.learning_rate) == 0.5


def test_variable_may_be_excluded_from_the_decay():
    decayed, spared = keras.Variable([2.0]), keras.Variable([2.0], name="spared")
    optimizer = EmaAdamW(**SETTINGS)
    optimizer.exclude_from_weight_decay(var_names=["spared"])
    optimizer.build([decayed, spared])
    gradient = keras.ops.convert_to_tensor([1.0])
    optimizer.apply([gradient, gradient], [decayed, spared])
    # The rate of the first step is 0.5 / 3, and Adam's first step is as long as the rate.
    assert float(decayed.numpy()[0]) == pytest.approx(2.0 * (1 - 0.1 * 0.5 / 3) - 0.5 / 3)
    assert float(spared.numpy()[0]) == pytest.approx(2.0 - 0.5 / 3)


def test_saved_model_goes_on_with_the_same_settings_and_averages(tmp_path):
    rng = np.random.default_rng(0)
    images, targets = rng.standard_normal((2, 8, 3))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)])
    model.compile(EmaAdamW(**SETTINGS, beta_1=0.8, global_clipnorm=0.1), "mse")
    for _ in range(2):
        model.train_on_batch(images, targets)
    model.save(tmp_path / "saved.keras")
    loaded = keras.saving.load_model(tmp_path / "saved.keras")
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert {**loaded.optimizer.get_config(), **SETTINGS} == loaded.optimizer.get_config()
    for trained in (model, loaded):
        trained.train_on_batch(images, targets)
    for one, other in zip(
        model.weights + model.optimizer.variables,
        loaded.weights + loaded.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_end_of_training_leaves_the_weights_as_they_are():
    variable = keras.Variable([3.0])
    optimizer = EmaAdamW(learning_rate=0.1)
    optimizer.build([variable])
    optimizer.apply([keras.ops.convert_to_tensor([1.0])], [variable])
    before = float(variable.numpy()[0])
    optimizer.finalize_variable_values([variable])
    assert float(variable.numpy()[0]) == before


def test_variable_that_is_not_trained_is_its_own_average():
    trained, frozen = keras.Variable([2.0]), keras.Variable([1.0])
    optimizer = EmaAdamW(learning_rate=0.1)
    optimizer.build([trained])
    assert optimizer.average_of(trained) is optimizer.averages[0]
    assert optimizer.average_of(frozen) is frozen


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Five iterations on the matrix itself, in float64."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        x = 3.4445 * x + (-4.7750 * (x @ x.T) + 2.0315 * np.linalg.matrix_power(x @ x.T, 2)) @ x
    return x


@pytest.mark.parametrize("shape", [(72, 8), (9, 40), (16, 16)])
@pytest.mark.parametrize("least", [0.1, 1e-3, 1e-6])
def test_orthogonalized_is_what_newton_and_schulz_give(shape, least):
    rng, rank = np.random.default_rng(0), min(shape)
    left, right = (np.linalg.qr(rng.standard_normal((size, rank)))[0] for size in shape)
    matrix = left * np.geomspace(1, least, rank) @ right.T
    found = keras.ops.convert_to_numpy(orthogonalized(matrix.astype(np.float32)))
    np.testing.assert_allclose(found, newton_schulz(matrix), atol=1e-3)
    if least == 0.1:
        assert np.all(np.abs(np.linalg.svd(found, compute_uv=False) - 0.95) < 0.3)


def test_no_gradient_moves_nothing():
    assert not np.any(keras.ops.convert_to_numpy(orthogonalized(np.zeros((9, 4), np.float32))))


def test_muon_steps_by_formula_and_adam_for_all_else():
    rng = np.random.default_rng(0)
    shapes = (3, 3, 4, 5), (3, 3, 3, 5), (1, 1, 4, 5), (4, 5), (2, 2, 4, 5)
    starts = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    gradients = [[rng.standard_normal(shape) for shape in shapes] for _ in range(3)]
    trained = {}
    for of in (EmaMuon, EmaAdamW):
        variables = trained[of] = [keras.Variable(start) for start in starts]
        optimizer = of(**SETTINGS)
        optimizer.build(variables)
        for step in gradients:
            tensors = [keras.ops.convert_to_tensor(g.astype(np.float32)) for g in step]
            optimizer.apply(tensors, variables)
        trained[of, "average"] = [optimizer.average_of(v).numpy() for v in variables]
    for muon, adam in zip(trained[EmaMuon][1:], trained[EmaAdamW][1:], strict=True):
        np.testing.assert_array_equal(muon, adam)

    kernel, average, momentum = starts[0].astype(float), 0.0, 0.0
    for step, gradient in enumerate(gradients):
        rate = 0.5 * min(1.0, (step + 1) / 3)
        momentum = 0.95 * momentum + 0.05 * gradient[0]
        ahead = (0.95 * momentum + 0.05 * gradient[0]).reshape(36, 5)
        change = newton_schulz(ahead).reshape(3, 3, 4, 5)
        kernel = kernel * (1 - rate * 0.1) - rate * 0.2 * 36**0.5 * change
        kept = min(0.3, step / (9 + step))
        average = kept * average + (1 - kept) * kernel
    np.testing.assert_allclose(trained[EmaMuon][0].numpy(), kernel, atol=1e-3)
    np.testing.assert_allclose(trained[EmaMuon, "average"][0], average, atol=1e-3)
