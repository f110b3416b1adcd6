"""Training and inference of one U-Net: kerasmed's against diffusers' UNet2DModel on torch.

    python benchmarks/unet_against_diffusers.py --rival-python PATH [--rounds 3] [--batch 16]

PATH is the interpreter of an environment with torch and diffusers (see benchmarks/rivals.py). Both
networks have the widths and blocks of one preset, its 2x2 patches as 12 channels of 32x32
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


def measure_keras(precision: str, batch: int, widths: list[int], blocks: int) -> dict:
    """kerasmed's denoiser."""
    from kerasmed.diffusion.config import DiffusionConfig
    from kerasmed.parallel.config import RuntimeConfig
    from kerasmed.parallel.resolve import resolve_runtime
    from kerasmed.runtime.backend import load_keras, precision_policy
    from kerasmed.runtime.versions import versions

    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    load_keras()
    import keras
    import numpy as np

    from kerasmed.diffusion.cost import forward_flops
    from kerasmed.diffusion.optimizer import EmaAdamW
    from kerasmed.diffusion.unet import build_denoiser

    runtime = resolve_runtime(RuntimeConfig())
    warm_up, steps = _repeats(runtime.on_gpu)
    with precision_policy(policy):
        settings = DiffusionConfig(widths=widths, blocks=blocks)
        model = build_denoiser(SIZE, 4, settings)
    optimizer = EmaAdamW(learning_rate=1e-4, weight_decay=0.01, global_clipnorm=1.0)
    model.compile(optimizer=optimizer, loss="mse", jit_compile=runtime.jit_compile)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, SIZE, SIZE, 3), dtype=np.float32)
    inputs = {
        "noisy_images": images,
        "timesteps": np.arange(batch, dtype=np.int32),
        "labels": np.zeros(batch, np.int32),
    }

    class OneBatch(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index: int):
            return inputs, images

    def train(times: int) -> None:
        model.fit(OneBatch(), steps_per_epoch=times, shuffle=False, verbose=0)

    def forward(times: int) -> None:
        for _ in range(times):
            model.predict_on_batch(inputs)

    backend = runtime.backend
    return {
        "train": _rate(train, batch, warm_up, steps),
        "forward": _rate(forward, batch, warm_up, steps),
        "parameters": model.count_params(),
        "gflop": forward_flops(model) / 1e9,
        "version": f"{backend} {versions()[backend]} on {runtime.device}",
    }


def measure_torch(precision: str, batch: int, widths: list[int], blocks: int) -> dict:
    """diffusers' network of the same shape; on a GPU compiled, as its documentation advises."""
    import torch
    from rivals import unet_of_our_shape
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(0)
    on_gpu = torch.cuda.is_available()
    warm_up, steps = _repeats(on_gpu)
    device = "cuda" if on_gpu else "cpu"
    torch.set_float32_matmul_precision("high")  # TensorFloat-32 on a GPU, as JAX does by itself
    torch.backends.cudnn.allow_tf32 = True
    network = unet_of_our_shape(SIZE, widths, blocks).to(device)
    images = torch.randn(batch, 12, SIZE // 2, SIZE // 2, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    timesteps = torch.arange(batch, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images, timesteps, class_labels=labels)
    model = torch.compile(network) if on_gpu else network
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=on_gpu)

    def forward():
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            return model(images, timesteps, class_labels=labels).sample

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    def train(times: int) -> None:
        for _ in range(times):
            torch.nn.functional.mse_loss(forward().float(), images).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        wait()

    def infer(times: int) -> None:
        with torch.no_grad():
            for _ in range(times):
                forward()
        wait()

    return {
        "train": _rate(train, batch, warm_up, steps),
        "forward": _rate(infer, batch, warm_up, steps),
        "parameters": sum(p.numel() for p in network.parameters()),
        "gflop": counter.get_total_flops() / batch / 1e9,
        "version": f"torch {torch.__version__} on {device}",
    }


def _repeats(on_gpu: bool) -> tuple[int, int]:
    """Steps to warm up, and steps that are timed."""
    return (20, 200) if on_gpu else (4, 12)


def _rate(step, batch: int, warm_up: int, steps: int) -> float:
    """Images a second."""
    step(warm_up)
    started = time.perf_counter()
    step(steps)
    return steps * batch / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rival-python", help="with torch and diffusers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--preset", default="cpu", help="whose widths and blocks both have")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("float32", "bfloat16"),
        default=("float32", "bfloat16"),
    )
    parser.add_argument("--side", help="used by itself: a JSON list of name and arguments")
    arguments = parser.parse_args()
    if arguments.side:
        name, *rest = json.loads(arguments.side)
        print(json.dumps((measure_keras if name == "keras" else measure_torch)(*rest)))
        return
    if arguments.rival_python is None:
        parser.error("--rival-python is missing")
    from kerasmed.diffusion.config import DiffusionConfig
    from kerasmed.runtime.hardware import machine

    settings = DiffusionConfig.model_validate({"preset": arguments.preset})
    rest = [arguments.batch, settings.widths, settings.blocks]
    print(json.dumps(machine()))
    sides = {"keras": sys.executable, "torch": arguments.rival_python}
    for precision in arguments.precisions:
        rounds: dict[str, list[dict]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, python in sides.items():
                side = json.dumps([name, precision, *rest])
                command = [python, __file__, "--side", side]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                rounds[name].append(json.loads(done.stdout.splitlines()[-1]))
        medians = {
            name: {key: statistics.median(r[key] for r in rows) for key in ("train", "forward")}
            for name, rows in rounds.items()
        }
        for name, rows in rounds.items():
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
