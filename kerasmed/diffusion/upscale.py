"""Images enlarged by an upscaler, each with detail from its own seed."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from kerasmed.diffusion.config import FACTOR
from kerasmed.diffusion.enlarge import enlarge, padded
from kerasmed.diffusion.solvers import SOLVERS, sampling_timesteps, to_no_noise
from kerasmed.inference.pixels import DetailRange
from kerasmed.random_streams import Purpose, random_stream

# upscaler(noisy_images, timesteps, labels, base_images, base_noise) -> clean_images, from a Keras
# model or an ONNX session.
UpscalerNetwork = Callable[..., np.ndarray]

DEFAULT_STEPS = 6
_SOLVER = "unipc"
# Detail has no layout, which would need more noise, and a tenth of its deviation is one grey level.
_GREATEST_SIGMA, _LEAST_SIGMA = 20.0, 0.05


def upscaling_timesteps(steps: int) -> np.ndarray:
    """``steps`` timesteps for the upscaler, int (steps,), falling."""
    return sampling_timesteps(steps, _GREATEST_SIGMA, _LEAST_SIGMA)


def in_tiles(network: UpscalerNetwork, tile_size: int, reach: int, stride: int) -> UpscalerNetwork:
    """The network, run on one tile of its images after another, so that its memory is bounded.

    Each tile comes with as many pixels around it as reach its inside, so the result is that of the
    whole image but for rounding.

    Args:
        network: see ``UpscalerNetwork``.
        tile_size: height and width of the tiles.
        reach: pixels from a pixel to the farthest one that changes it.
        stride: tiles begin at its multiples, which are also whole pixels of the small images.
    """
    stride = max(stride, FACTOR)
    tile = max(stride, tile_size // stride * stride)
    margin = -(-reach // stride) * stride

    def spans(length: int) -> Iterator[tuple[slice, slice, slice]]:
        """Of each tile: its place, its place with the margin, and its place within that."""
        for start in range(0, length, tile):
            stop = min(length, start + tile)
            first, last = max(0, start - margin), min(length, stop + margin)
            yield slice(start, stop), slice(first, last), slice(start - first, stop - first)

    def run(noisy, timesteps, labels, base, base_noise):
        height, width = noisy.shape[1:3]
        if max(height, width) <= tile:
            return network(noisy, timesteps, labels, base, base_noise)
        clean = np.empty_like(noisy)
        for rows, wide_rows, inner_rows in spans(height):
            for columns, wide_columns, inner_columns in spans(width):
                of_base = tuple(
                    slice(wide.start // FACTOR, wide.stop // FACTOR)
                    for wide in (wide_rows, wide_columns)
                )
                predicted = network(
                    np.ascontiguousarray(noisy[:, wide_rows, wide_columns]), timesteps, labels,
                    np.ascontiguousarray(base[:, *of_base]), base_noise,
                )  # fmt: skip
                clean[:, rows, columns] = predicted[:, inner_rows, inner_columns]
        return clean

    return run


def upscale_images(
    network: UpscalerNetwork,
    ranges: DetailRange,
    base_images: np.ndarray,
    wanted: Sequence[tuple[int, ...]],
    seed: int,
    timesteps: np.ndarray,
    base_noise: float = 0.0,
    batch_size: int = 4,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Images four times as wide, one after the other, made in batches.

    Image ``i`` of class ``c``, at attempt ``a``, draws only from a random stream of its own, and
    the last batch is padded to the same size. So the set does not depend on batches or shards.

    Args:
        network: predicts clean detail; see ``in_tiles`` for large images.
        ranges: ranges of the network.
        base_images: uint8 (n, height, width, 3).
        wanted: class index and image index of each image, and optionally the attempt, 0 if omitted.
        seed: the set's seed.
        timesteps: timesteps to visit, see ``upscaling_timesteps``.
        base_noise: deviation of the noise that is added to the small images, which hides their
            faults from the network.
        batch_size: images made at once.

    Yields:
        Class index, image index, uint8 (4 * height, 4 * width, 3).
    """
    for start in range(0, len(wanted), batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), len(wanted) - 1)
        keys = [(*wanted[row], 0)[:3] for row in rows]
        rngs = [random_stream(seed, Purpose.UPSCALED_IMAGE, *key) for key in keys]
        small = np.asarray(base_images[rows])
        shape = (FACTOR * small.shape[1], FACTOR * small.shape[2], 3)

        def draw_noise(
            rngs: list[np.random.Generator] = rngs, shape: tuple[int, ...] = shape
        ) -> np.ndarray:
            return np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in rngs])

        noise_of_base = np.float32(base_noise) * draw_noise(shape=small.shape[1:])
        base = ranges.pixels.to_model(small) + noise_of_base
        enlarged = enlarge(padded(small))
        labels = np.array([label for label, *_ in keys], np.int32)
        deviations = np.full(len(keys), base_noise, np.float32)

        def denoise(x_t, timestep, base=base, enlarged=enlarged, labels=labels, noise=deviations):
            steps = np.full(len(x_t), timestep, np.int32)
            return ranges.clip(network(x_t, steps, labels, base, noise), enlarged)

        detail = SOLVERS[_SOLVER](
            to_no_noise(denoise, timesteps), draw_noise(), timesteps, draw_noise
        )
        images = ranges.to_uint8(detail, enlarged)
        for row, image in zip(
            range(start, min(start + batch_size, len(wanted))), images, strict=False
        ):
            label, index, *_ = wanted[row]
            yield label, index, image
