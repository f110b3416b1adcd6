"""What each preset of the diffusion model costs: size, arithmetic, speed and peak memory.

    python benchmarks/presets.py [--presets cpu small] [--image-size 64] [--batch-size 16] \
        [--optimizer muon]

Each preset runs in processes of its own, since the peak of a process never falls: one trains for a
few steps on images of noise, one draws two batches through the exported denoiser.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

SAMPLES = 64


def train(preset: str, size: int, own: dict, folder: Path) -> dict:
    """A few steps, and the export."""
    from kerasmed.parallel.resolve import resolve_runtime
    from kerasmed.runtime.backend import load_keras

    load_keras()
    import numpy as np

    from kerasmed.data.image_file import ImageFile
    from kerasmed.data.image_set import ImageSet
    from kerasmed.diffusion.config import DiffusionConfig
    from kerasmed.diffusion.cost import TRAINING_PASSES, matrix_product_rate
    from kerasmed.diffusion.model import DiffusionModel, load_diffusion_model
    from kerasmed.diffusion.training import train_model
    from kerasmed.parallel.config import RuntimeConfig

    values = {"preset": preset, "checkpoint_steps": 4, "preview_every": 1000, **own}
    settings = DiffusionConfig.model_validate(values)
    settings = settings.model_copy(update={"max_images": 8 * settings.batch_size})
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, size, size, 3), dtype=np.uint8)
    files = tuple(ImageFile(Path(str(i)), str(i), "ab"[i % 2]) for i in range(64))
    image_set = ImageSet(images, np.arange(64, dtype=np.int32) % 2, ("a", "b"), files)
    runtime = resolve_runtime(RuntimeConfig())
    result = train_model(DiffusionModel, image_set, image_set, settings, "none", 0, runtime, folder)
    history = (folder / "history.csv").read_text().splitlines()
    column = history[0].split(",").index("images_per_s")
    images_per_s = float(history[-1].split(",")[column])
    trained, started = _peak_gib(), time.perf_counter()
    load_diffusion_model(folder / "denoiser.keras").export(folder / "denoiser.onnx")
    export_s = time.perf_counter() - started
    exported = _peak_gib()
    possible = matrix_product_rate(result["precision"].removeprefix("mixed_"))
    fraction = TRAINING_PASSES * 1e9 * result["gflop_per_image"] * images_per_s / possible
    return {
        "parameters": result["parameters"],
        "gflop_per_image": result["gflop_per_image"],
        "precision": result["precision"],
        "batch_size": settings.batch_size,
        "first_step_s": result["first_step_s"],
        "images_per_s": images_per_s,
        "fraction_of_matrix_product_rate": round(fraction, 3),
        "training_peak_gib": trained,
        "export_s": round(export_s, 1),
        "peak_gib_with_export": exported,
    }


def sample(size: int, folder: Path) -> dict:
    """Two batches of 32 images."""
    from kerasmed.diffusion.generate import generate_images
    from kerasmed.diffusion.solvers import sampling_timesteps
    from kerasmed.inference.denoiser import OnnxDenoiser
    from kerasmed.inference.pixels import PixelRange

    denoiser = OnnxDenoiser(folder / "denoiser.onnx")
    metadata = denoiser.metadata
    pixels = PixelRange(tuple(metadata["pixel_mean"]), metadata["pixel_scale"])
    wanted = [(0, i) for i in range(SAMPLES)]
    started = time.perf_counter()
    for _ in generate_images(
        denoiser, pixels, wanted, 2, size, 0, "unipc", sampling_timesteps(15), 1.0
    ):
        pass
    return {
        "sampling_s_per_image": round((time.perf_counter() - started) / SAMPLES, 3),
        "sampling_peak_gib": _peak_gib(),
    }


def _peak_gib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def main() -> None:
    from kerasmed.diffusion.presets import PRESETS
    from kerasmed.runtime.hardware import machine
    from kerasmed.runtime.versions import versions

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, help="instead of the preset's own")
    parser.add_argument("--optimizer", choices=["muon", "adamw"], default="muon")
    arguments = parser.parse_args()
    own = {"optimizer": arguments.optimizer}
    if arguments.batch_size is not None:
        own["batch_size"] = arguments.batch_size
    print(json.dumps({**machine(), **versions()}))
    context = multiprocessing.get_context("spawn")
    for preset in arguments.presets:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            row: dict = {"preset": preset}
            for work, rest in (
                (train, (preset, arguments.image_size, own, folder)),
                (sample, (arguments.image_size, folder)),
            ):
                with context.Pool(1) as pool:
                    row |= pool.apply(work, rest)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
