"""The other packages, trained and sampled as their documentation says, in an environment of theirs.

    pip install torch==2.13.0 diffusers==0.42.1 denoising-diffusion-pytorch==2.3.4
    python benchmarks/rivals.py NAME DATA.npz OUT.npz --minutes 60 --threads 2

NAME is one of RIVALS. DATA.npz holds `images` uint8 (n, size, size, 3) and `labels`. OUT.npz then
holds drawn `images`, their `labels`, and `log`, a JSON string. Minutes are processor time divided
by threads, so that other work on the machine costs the rival nothing.
`benchmarks/time_to_quality.py` calls it and judges what comes out.

denoising-diffusion-pytorch: class-conditional U-Net and settings of its README (dim 64, multipliers
1, 2, 4, 8, batch 32, Adam at 8e-5, average 0.995 every 10 steps), its default guidance, and 250
steps of its stochastic DDIM in the place of its default 1000, which would take hours here (15, as
when the published table was made, keep too little deviation).
diffusers: network and settings of its unconditional training example (113.7 million parameters,
batch 16, AdamW at 1e-4 with warm-up over 500 steps, average with its inverse-gamma warm-up), with
an embedding of the class added, and 15 steps of DPM-Solver++. Both under bfloat16 autocast, which
is faster here. With --small both have networks of three levels from 32 channels up, for a
training of some minutes, and the former draws in 50 steps.
"""

import argparse
import json
import sys
import time
import types
from pathlib import Path

import numpy as np
import torch


class DenoisingDiffusionPytorch:
    """denoising-diffusion-pytorch, class-conditional."""

    batch_size = 32
    _sampling_steps = 250

    def __init__(self, size: int, num_classes: int, small: bool = False):
        if "torchvision" not in sys.modules:  # imported there for a data loader not used here
            package = types.ModuleType("torchvision")
            package.transforms = package.utils = types.ModuleType("torchvision.transforms")
            sys.modules["torchvision"] = package
        from denoising_diffusion_pytorch.classifier_free_guidance import GaussianDiffusion, Unet
        from ema_pytorch import EMA

        dim, multipliers = (32, (1, 2, 4)) if small else (64, (1, 2, 4, 8))
        network = Unet(dim=dim, dim_mults=multipliers, num_classes=num_classes)
        self.model = GaussianDiffusion(
            network,
            image_size=size,
            timesteps=1000,
            sampling_timesteps=50 if small else self._sampling_steps,
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=8e-5, betas=(0.9, 0.99))
        self.average = EMA(self.model, beta=0.995, update_every=10)

    def train_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = self.model((images + 1) / 2, classes=labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update()

    def sample(self, labels: torch.Tensor) -> torch.Tensor:
        """Images in [-1, 1]."""
        with torch.autocast("cpu", torch.bfloat16):
            return self.average.ema_model.sample(labels) * 2 - 1


class Diffusers:
    """diffusers, its unconditional example with a class embedding."""

    batch_size = 16
    _warmup_steps = 500
    _sampling_steps = 15

    def __init__(self, size: int, num_classes: int, small: bool = False):
        from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
        from diffusers.training_utils import EMAModel

        self.size = size
        widths = (32, 64, 128) if small else (128, 128, 256, 256, 512, 512)
        plain = len(widths) - 2  # attention is on the last level but one
        self.model = UNet2DModel(
            sample_size=size,
            in_channels=3,
            out_channels=3,
            layers_per_block=2,
            block_out_channels=widths,
            down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * plain,
            num_class_embeds=num_classes,
        ).to(memory_format=torch.channels_last)
        self.noise = DDPMScheduler(num_train_timesteps=1000)
        self.solver = DPMSolverMultistepScheduler.from_config(self.noise.config)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6
        )
        self.rate = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / self._warmup_steps)
        )
        self.average = EMAModel(
            self.model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75
        )

    def train_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        noise, timesteps = torch.randn_like(images), torch.randint(0, 1000, (len(images),))
        noisy = self.noise.add_noise(images, noise, timesteps)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.model(noisy, timesteps, class_labels=labels).sample
        torch.nn.functional.mse_loss(predicted.float(), noise).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.rate.step()
        self.optimizer.zero_grad()
        self.average.step(self.model.parameters())

    def sample(self, labels: torch.Tensor) -> torch.Tensor:
        """Images in [-1, 1]."""
        self.average.store(self.model.parameters())
        self.average.copy_to(self.model.parameters())
        images = torch.randn(len(labels), 3, self.size, self.size)
        self.solver.set_timesteps(self._sampling_steps)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for timestep in self.solver.timesteps:
                noise = self.model(images, timestep, class_labels=labels).sample
                images = self.solver.step(noise.float(), timestep, images).prev_sample
        self.average.restore(self.model.parameters())
        return images


RIVALS = {"denoising-diffusion-pytorch": DenoisingDiffusionPytorch, "diffusers": Diffusers}


def ddpm_seconds(size: int, images: int, batch: int = 32, measured: int = 10) -> float:
    """Seconds of denoising-diffusion-pytorch's 1000 guided steps, from ``measured`` of them."""
    rival = DenoisingDiffusionPytorch(size, 4)
    noisy, labels = torch.randn(batch, 3, size, size), torch.zeros(batch, dtype=torch.long)

    def step(timestep: int) -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            rival.model.p_sample(noisy, timestep, labels)

    step(999)
    started = time.perf_counter()
    for timestep in range(measured):
        step(500 + timestep)
    return (time.perf_counter() - started) / measured * 1000 * images / batch


def unet_of_our_shape(size: int, widths: list[int], blocks: int):
    """diffusers' U-Net with our widths and blocks, on 2x2 patches as 12 channels."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=size // 2,
        in_channels=12,
        out_channels=12,
        layers_per_block=blocks,
        block_out_channels=tuple(widths),
        down_block_types=("DownBlock2D",) * len(widths),
        up_block_types=("UpBlock2D",) * len(widths),
        num_class_embeds=5,
        norm_num_groups=16,
    ).to(memory_format=torch.channels_last)


def dpm_solver_seconds(
    size: int, images: int, steps: int, widths: list[int], blocks: int, bfloat16: bool
) -> float:
    """Seconds of diffusers' DPM-Solver++ over a UNet2DModel of the shape of ours."""
    from diffusers import DPMSolverMultistepScheduler

    edge, batch = size // 2, 32
    model = unet_of_our_shape(size, widths, blocks)
    solver = DPMSolverMultistepScheduler(prediction_type="sample")
    labels = torch.zeros(batch, dtype=torch.long)

    def draw() -> None:
        noisy = torch.randn(batch, 12, edge, edge)
        solver.set_timesteps(steps)
        for timestep in solver.timesteps:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                clean = model(noisy, timestep, class_labels=labels).sample
            noisy = solver.step(clean.float(), timestep, noisy).prev_sample

    draw()
    batches = -(-images // batch)
    started = time.perf_counter()
    for _ in range(batches):
        draw()
    return (time.perf_counter() - started) * images / (batches * batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=RIVALS)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="networks of three levels")
    parser.add_argument("--per-class", type=int, help="images drawn; as many as in DATA if omitted")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with np.load(arguments.data) as data:
        images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2).float() / 127.5 - 1
        labels = torch.from_numpy(data["labels"]).long()
    rival = RIVALS[arguments.name](images.shape[-1], int(labels.max()) + 1, arguments.small)

    def minutes() -> float:
        return time.process_time() / 60 / arguments.threads

    started, steps = minutes(), 0
    while minutes() - started < arguments.minutes:
        batch = torch.randint(0, len(images), (rival.batch_size,))
        mirrored = torch.rand(rival.batch_size) < 0.5
        shown = torch.where(mirrored[:, None, None, None], images[batch].flip(-1), images[batch])
        rival.train_step(shown, labels[batch])
        steps += 1
    trained = minutes()
    if arguments.per_class is not None:
        labels = torch.arange(int(labels.max()) + 1).repeat_interleave(arguments.per_class)
    batches = [rival.sample(batch_labels) for batch_labels in labels.split(40)]
    log = {
        "rival": arguments.name,
        "parameters": sum(p.numel() for p in rival.model.parameters()),
        "minutes": round(trained - started, 2),
        "steps": steps,
        "images_per_s": round(steps * rival.batch_size / 60 / (trained - started), 2),
        "drawn": len(labels),
        "sampling_minutes": round(minutes() - trained, 2),
        "threads": arguments.threads,
        "torch": torch.__version__,
    }
    drawn = torch.cat(batches).float().clamp(-1, 1).add(1).mul(127.5).round().byte()
    np.savez(
        arguments.out,
        images=drawn.permute(0, 2, 3, 1).numpy(),
        labels=labels.numpy(),
        log=json.dumps(log),
    )
    print(json.dumps(log))


if __name__ == "__main__":
    main()
