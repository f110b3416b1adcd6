"""Solvers, checked on denoisers whose answer is known in closed form."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import norm

from kerasmed.diffusion.schedule import alphas_cumprod
from kerasmed.diffusion.solvers import (
    DEFAULT_STEPS,
    SOLVERS,
    sampling_timesteps,
    to_no_noise,
)
from kerasmed.errors import InputError

SHAPE = (3, 4, 4, 3)
DETERMINISTIC = ["ddim", "dpmpp_2m", "unipc"]
MU, S = 0.3, 0.5


def start(shape=SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def noise_source(shape=SHAPE, seed: int = 1):
    rng = np.random.default_rng(seed)
    return lambda: rng.standard_normal(shape, dtype=np.float32)


def gaussian_denoiser(x_t: np.ndarray, timestep: int) -> np.ndarray:
    """E[x_0 | x_t] for pixels drawn from N(MU, S^2).

    x_0 and x_t = sqrt(a) x_0 + sqrt(1 - a) eps are jointly normal, so the mean is
    MU + cov(x_0, x_t) / var(x_t) * (x_t - E[x_t]).
    """
    a = alphas_cumprod()[timestep]
    gain = np.sqrt(a) * S**2 / (a * S**2 + 1 - a)
    return (MU + gain * (x_t - np.sqrt(a) * MU)).astype(np.float32)


def exact_end(x_t: np.ndarray, first: int, last: int) -> np.ndarray:
    """Where the probability-flow ODE takes x_t: denoised at the last timestep that is visited.

    The flow is linear for a Gaussian: (x_t - sqrt(a) MU) / sqrt(a S^2 + 1 - a) stays the same.
    """
    a, b = alphas_cumprod()[[first, last]]
    standard = (x_t.astype(np.float64) - np.sqrt(a) * MU) / np.sqrt(a * S**2 + 1 - a)
    at_last = np.sqrt(b) * MU + np.sqrt(b * S**2 + 1 - b) * standard
    return gaussian_denoiser(at_last, last)


def test_importing_solvers_does_not_load_keras():
    code = (
        "import sys, kerasmed.diffusion.schedule, kerasmed.diffusion.solvers; "
        "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_shape_and_dtype(solver, steps):
    images = SOLVERS[solver](gaussian_denoiser, start(), sampling_timesteps(steps), noise_source())

    assert images.shape == SHAPE
    assert images.dtype == np.float32


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 13])
def test_denoiser_that_is_certain_is_believed(solver, steps):
    image = np.linspace(-1, 1, 48, dtype=np.float32).reshape(1, 4, 4, 3).repeat(3, axis=0)

    images = SOLVERS[solver](lambda x, t: image, start(), sampling_timesteps(steps), noise_source())

    np.testing.assert_allclose(images, image, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_step_is_one_call_of_the_denoiser(solver):
    x_t = start()

    images = SOLVERS[solver](gaussian_denoiser, x_t, sampling_timesteps(1), noise_source())

    expected = gaussian_denoiser(x_t, sampling_timesteps(1)[0])
    np.testing.assert_allclose(images, expected, atol=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_denoiser_receives_float32_at_each_timestep_in_turn(solver):
    visited = []

    def denoise(x_t, timestep):
        assert (x_t.dtype, x_t.shape) == (np.float32, SHAPE)
        visited.append(timestep)
        return gaussian_denoiser(x_t, timestep)

    SOLVERS[solver](denoise, start(), np.array([900, 400, 30]), noise_source())

    assert visited == [900, 400, 30]
    assert all(type(timestep) is int for timestep in visited)


@pytest.mark.parametrize("solver", SOLVERS)
def test_starting_noise_is_left_as_it_was(solver):
    x_t = start()

    SOLVERS[solver](gaussian_denoiser, x_t, sampling_timesteps(5), noise_source())

    np.testing.assert_array_equal(x_t, start())


@pytest.mark.parametrize("solver", SOLVERS)
def test_images_of_a_batch_do_not_touch_each_other(solver):
    x_t, timesteps = start(), sampling_timesteps(6)
    fresh = np.random.default_rng(2).standard_normal((10, *SHAPE), dtype=np.float32)

    def run(rows):
        draws = iter(fresh[:, rows])
        return SOLVERS[solver](gaussian_denoiser, x_t[rows], timesteps, lambda: next(draws))

    together = run(slice(None))

    np.testing.assert_allclose(run(slice(1, 2)), together[1:2], atol=1e-6)


@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_deterministic_solvers_draw_no_noise(solver):
    def draw_noise():
        raise AssertionError("noise was drawn")

    SOLVERS[solver](gaussian_denoiser, start(), sampling_timesteps(5), draw_noise)


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_order_of_convergence_to_the_exact_flow(solver, order):
    x_t = start((1, 8, 8, 3))
    means = []
    for steps in (28, 56, 112):
        timesteps = sampling_timesteps(steps)
        images = SOLVERS[solver](gaussian_denoiser, x_t, timesteps, None)
        means.append(np.abs(images - exact_end(x_t, timesteps[0], timesteps[-1])).mean())

    assert means[0] < 0.1
    observed = np.log2(means[0] / means[2]) / 2
    assert observed == pytest.approx(order, abs=0.35)


WEIGHTS, MEANS, DEVIATIONS = np.array([0.4, 0.6]), np.array([-0.6, 0.5]), np.array([0.15, 0.25])


def mixture_at(timestep: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations of the two Gaussians of x_t."""
    a = alphas_cumprod()[timestep]
    return np.sqrt(a) * MEANS, np.sqrt(a * DEVIATIONS**2 + 1 - a)


def mixture_denoiser(x_t: np.ndarray, timestep: int) -> np.ndarray:
    """E[x_0 | x_t]: that of each Gaussian, weighted by how likely x_t came from it."""
    a = alphas_cumprod()[timestep]
    means, deviations = mixture_at(timestep)
    likely = WEIGHTS * norm.pdf(x_t[..., None], means, deviations)
    likely = likely / likely.sum(axis=-1, keepdims=True)
    expected = MEANS + np.sqrt(a) * DEVIATIONS**2 / deviations**2 * (x_t[..., None] - means)
    return (likely * expected).sum(axis=-1)


def exact_mixture_end(x_t: np.ndarray, first: int, last: int) -> np.ndarray:
    """In one dimension the flow keeps quantiles: the same fraction of the mixture lies below."""

    def fraction_below(x: np.ndarray, timestep: int) -> np.ndarray:
        means, deviations = mixture_at(timestep)
        return (WEIGHTS * norm.cdf(x[..., None], means, deviations)).sum(axis=-1)

    grid = np.linspace(-5, 5, 200_001)
    at_last = np.interp(fraction_below(x_t, first), fraction_below(grid, last), grid)
    return mixture_denoiser(at_last, last)


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2), ("unipc", 2.7)])
def test_order_of_convergence_on_a_mixture_of_gaussians(solver, order):
    first, last = 900, 100
    x_t = np.linspace(-2, 2, 101)
    exact = exact_mixture_end(x_t, first, last)
    errors = []
    for steps in (21, 41, 81):
        timesteps = np.linspace(first, last, steps).round().astype(int)
        images = SOLVERS[solver](mixture_denoiser, x_t, timesteps, None)
        errors.append(np.sqrt(np.mean((images - exact) ** 2)))

    assert errors[0] < 0.03
    assert np.log2(errors[0] / errors[2]) / 2 == pytest.approx(order, abs=0.4)


def test_unipc_is_the_most_accurate_at_the_same_steps():
    x_t = np.linspace(-2, 2, 101)
    timesteps = np.linspace(900, 100, 41).round().astype(int)
    exact = exact_mixture_end(x_t, 900, 100)

    errors = [
        np.abs(SOLVERS[solver](mixture_denoiser, x_t, timesteps, None) - exact).mean()
        for solver in ("ddim", "dpmpp_2m", "unipc")
    ]

    assert errors[2] < errors[1] / 1.5 < errors[0] / 3


def test_second_order_beats_first_order_at_100_steps():
    x_t, timesteps = start(), sampling_timesteps(100)
    exact = exact_end(x_t, timesteps[0], timesteps[-1])

    error = {
        solver: np.abs(SOLVERS[solver](gaussian_denoiser, x_t, timesteps, None) - exact).mean()
        for solver in DETERMINISTIC
    }

    assert error["dpmpp_2m"] < error["ddim"] / 3


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [250, 666])
def test_samples_have_the_mean_and_spread_of_the_data(solver, steps):
    shape = (100, 8, 8, 3)

    images = SOLVERS[solver](
        gaussian_denoiser, start(shape), sampling_timesteps(steps), noise_source(shape)
    )

    # 19,200 pixels: standard errors are 0.0036 of the mean and 0.0026 of the deviation.
    assert images.mean() == pytest.approx(MU, abs=0.012)
    assert images.std() == pytest.approx(S, abs=0.012)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [667, 1000])
def test_every_allowed_number_of_steps_gives_finite_images(solver, steps):
    images = SOLVERS[solver](gaussian_denoiser, start(), sampling_timesteps(steps), noise_source())

    assert np.isfinite(images).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_noise_left_after_a_long_step_is_that_of_the_schedule(solver):
    shape, image, noisy = (100, 8, 8, 3), np.float32(0.7), []
    first, second = alphas_cumprod()[[900, 400]]

    def denoise(x_t, timestep):
        noisy.append(x_t)
        return np.full_like(x_t, image)

    x_t = (np.sqrt(first) * image + np.sqrt(1 - first) * start(shape)).astype(np.float32)
    SOLVERS[solver](denoise, x_t, np.array([900, 400]), noise_source(shape))

    # x_t given x_0 is N(sqrt(a) x_0, 1 - a), at the second timestep as at the first.
    assert noisy[1].mean() == pytest.approx(np.sqrt(second) * image, abs=0.02)
    assert noisy[1].std() == pytest.approx(np.sqrt(1 - second), abs=0.02)


def test_dpmpp_2m_extrapolates_over_uneven_steps_by_hand():
    predictions, noisy = {900: 0.2, 500: -0.4, 300: 0.9}, []

    def denoise(x_t, timestep):
        noisy.append(x_t)
        return np.full_like(x_t, predictions[timestep])

    SOLVERS["dpmpp_2m"](denoise, start(), np.array([900, 500, 300]), None)

    # Lu et al., arXiv:2211.01095, algorithm 2: r = h_1 / h_2, D = (1 + 1/2r) x_1 - 1/2r x_0.
    signal = alphas_cumprod()[[900, 500, 300]]
    alpha, sigma = np.sqrt(signal), np.sqrt(1 - signal)
    h_1, h_2 = np.diff(np.log(alpha / sigma))
    r = h_1 / h_2
    x_1 = sigma[1] / sigma[0] * noisy[0] - alpha[1] * (np.exp(-h_1) - 1) * 0.2
    combined = (1 + 1 / (2 * r)) * -0.4 - 1 / (2 * r) * 0.2
    x_2 = sigma[2] / sigma[1] * x_1 - alpha[2] * (np.exp(-h_2) - 1) * combined
    np.testing.assert_allclose(noisy[1], x_1, atol=1e-6)
    np.testing.assert_allclose(noisy[2], x_2, atol=1e-6)


def test_ddpm_depends_on_the_fresh_noise():
    images = [
        SOLVERS["ddpm"](gaussian_denoiser, start(), sampling_timesteps(5), noise_source(seed=seed))
        for seed in (1, 1, 2)
    ]

    np.testing.assert_array_equal(images[0], images[1])
    assert np.abs(images[0] - images[2]).max() > 0.01


def test_timesteps_fall_from_the_noisiest_to_the_cleanest():
    np.testing.assert_array_equal(sampling_timesteps(1000), np.arange(999, -1, -1))
    # tan(pi/2 (992/1000 + 0.008) / 1.008) = 80.2 is the sigma nearest to 80.
    assert sampling_timesteps(1).tolist() == [991]
    assert sampling_timesteps(2).tolist() == [991, 0]


# In the network's units: from the finest detail of images of 64 pixels to their mean brightness.
SCALES = np.array([0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 4, 10, 16])


def drawn_over_true(solver: str, timesteps: np.ndarray) -> np.ndarray:
    """Deviation of drawn over that of true Gaussian structure of each of SCALES.

    The components are independent, as the frequencies of images are, and the solvers are linear in
    the noise. So the column i of the result is what the noise i contributes, and their squares add.
    """
    deviations = SCALES[:, None, None, None]

    def denoise(x_t, timestep):
        a = alphas_cumprod()[timestep]
        gain = np.sqrt(a) * deviations**2 / (a * deviations**2 + 1 - a)
        return (gain * x_t).astype(np.float32)

    noises = iter(np.eye(len(timesteps) + 1, dtype=np.float32))

    def draw_noise():
        return np.tile(next(noises)[None, :, None, None], (len(SCALES), 1, 1, 1))

    denoise = to_no_noise(denoise, timesteps)
    drawn = SOLVERS[solver](denoise, draw_noise(), timesteps, draw_noise)
    return np.sqrt(np.square(drawn / deviations).sum(axis=(1, 2, 3)))


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_scale_is_drawn_at_its_true_strength_at_the_default_steps(solver):
    ratios = drawn_over_true(solver, sampling_timesteps(DEFAULT_STEPS[solver]))
    np.testing.assert_allclose(ratios[SCALES >= 0.05], 1.0, atol=0.03)
    assert ratios[0] == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize("steps", [25, 50, 250, 1000])
def test_more_steps_are_no_worse(steps):
    ratios = drawn_over_true("unipc", sampling_timesteps(steps))
    np.testing.assert_allclose(ratios[SCALES >= 0.05], 1.0, atol=0.02)


def test_last_prediction_is_extrapolated_by_hand():
    signal = alphas_cumprod()[[40, 12, 3, 0]]
    variances = (1 - signal) / signal
    predictions = {40: 9.0, 12: 0.5, 3: 0.7, 0: 0.8}
    denoise = to_no_noise(lambda x_t, timestep: predictions[timestep], np.array([40, 12, 3, 0]))
    received = [float(denoise(None, timestep)) for timestep in (40, 12, 3, 0)]
    # At timestep 3 there is 1.3 times the last noise, at timestep 12 more than 1.4 times.
    assert np.sqrt(variances[2] / variances[3]) < 1.4 < np.sqrt(variances[1] / variances[3])
    weight = variances[3] / (variances[1] - variances[3])
    assert received == pytest.approx([9.0, 0.5, 0.7, 0.8 + weight * 0.3])


def test_single_prediction_is_not_extrapolated():
    denoise = to_no_noise(lambda x_t, timestep: x_t, sampling_timesteps(1))
    assert denoise(0.25, 991) == 0.25


@pytest.mark.parametrize("steps", [3, 37, 100, 250, 666, 999])
def test_timesteps_are_whole_and_distinct(steps):
    timesteps = sampling_timesteps(steps)
    assert timesteps.dtype == np.int64
    assert len(timesteps) == steps
    assert np.diff(timesteps).max() <= -1
    assert 991 <= timesteps[0] <= 999
    assert timesteps[-1] == 0


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(InputError, match=f"expected 1 to 1000, received {steps}; correct sampling"):
        sampling_timesteps(steps)
