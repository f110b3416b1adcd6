"""Training and inference of one U-Net: kerasmed's against diffusers' UNet2DModel on torch.

    python benchmarks/unet_against_diffusers.py --rival-python PATH [--rounds 3] [--batch 16]

PATH is the interpreter of an environment with torch and diffusers (see benchmarks/rivals.py). Both
networks have the widths and blocks of the preset `cpu`, its 2x2 patches as 12 channels of 32x32
positions, and attention at the lowest resolution; both run forward, backward, clipping and AdamW,
each in a process of its own, in turn. Ours keeps a moving average of its weights as well.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

SIZE = 64
WARM_UP, STEPS = 4, 12


def measure_keras(precision: str, batch: int) -> dict:
    """kerasmed's denoiser."""
    from kerasmed.runtime import load_keras, precision_policy, versions

    load_keras()
    import numpy as np

    from kerasmed.config import DiffusionConfig
    from kerasmed.diffusion.cost import forward_flops
    from kerasmed.diffusion.optimizer import EmaAdamW
    from kerasmed.diffusion.pixels import PixelRange
    from kerasmed.diffusion.unet import build_denoiser

    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    with precision_policy(policy):
        pixels = PixelRange((127.5,) * 3, 127.5)
        model = build_denoiser(SIZE, 4, DiffusionConfig(), pixels)
    optimizer = EmaAdamW(learning_rate=1e-4, decay=0.01, global_clipnorm=1.0)
    model.compile(optimizer=optimizer, loss="mse", jit_compile=False)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, SIZE, SIZE, 3), dtype=np.float32)
    inputs = {
        "noisy_images": images,
        "timesteps": np.arange(batch, dtype=np.int32),
        "labels": np.zeros(batch, np.int32),
    }
    return {
        "train": _rate(lambda: model.train_on_batch(inputs, images), batch),
        "forward": _rate(lambda: model.predict_on_batch(inputs), batch),
        "parameters": model.count_params(),
        "gflop": forward_flops(model) / 1e9,
        "version": f"tensorflow {versions()['tensorflow']}",
    }


def measure_torch(precision: str, batch: int, widths: list[int], blocks: int) -> dict:
    """diffusers' network of the same shape."""
    import torch
    from rivals import unet_of_our_shape
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    model = unet_of_our_shape(SIZE, widths, blocks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randn(batch, 12, SIZE // 2, SIZE // 2)
    images = images.contiguous(memory_format=torch.channels_last)
    timesteps, labels = torch.arange(batch), torch.zeros(batch, dtype=torch.long)

    def forward():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return model(images, timesteps, class_labels=labels).sample

    def train() -> None:
        torch.nn.functional.mse_loss(forward().float(), images).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    def infer() -> None:
        with torch.no_grad():
            forward()

    with FlopCounterMode(display=False) as counter:
        infer()
    return {
        "train": _rate(train, batch),
        "forward": _rate(infer, batch),
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflop": counter.get_total_flops() / batch / 1e9,
        "version": f"torch {torch.__version__}",
    }


def _rate(step, batch: int) -> float:
    """Images a second."""
    for _ in range(WARM_UP):
        step()
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    return STEPS * batch / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rival-python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", help="used by itself: a JSON list of name and arguments")
    arguments = parser.parse_args()
    if arguments.side:
        name, *rest = json.loads(arguments.side)
        print(json.dumps((measure_keras if name == "keras" else measure_torch)(*rest)))
        return
    from kerasmed.config import DiffusionConfig
    from kerasmed.hardware import machine

    settings = DiffusionConfig()
    print(json.dumps(machine()))
    for precision in ("float32", "bfloat16"):
        sides = {
            "keras": (sys.executable, [precision, arguments.batch]),
            "torch": (
                arguments.rival_python,
                [precision, arguments.batch, settings.widths, settings.blocks],
            ),
        }
        found: dict[str, list[dict]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, (python, rest) in sides.items():
                side = json.dumps([name, *rest])
                command = [python, __file__, "--side", side]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
        medians = {
            name: {key: statistics.median(r[key] for r in rows) for key in ("train", "forward")}
            for name, rows in found.items()
        }
        for name, rows in found.items():
            first = rows[0]
            print(
                f"{precision} {name}: {medians[name]['train']:.1f} images/s training, "
                f"{medians[name]['forward']:.1f} forward; {first['parameters'] / 1e6:.2f} million "
                f"parameters, {first['gflop']:.2f} GFLOP an image; {first['version']}"
            )
        ratio = {key: medians["keras"][key] / medians["torch"][key] for key in ("train", "forward")}
        print(
            f"{precision} ours / diffusers: {ratio['train']:.2f} training, "
            f"{ratio['forward']:.2f} forward"
        )


if __name__ == "__main__":
    main()
