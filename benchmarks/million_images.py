"""A set larger than memory: split, checked for duplicates, trained on and drawn from.

    python benchmarks/million_images.py DIR --images 1000000

Draws the set into DIR once: 4,000 phantoms of 64 pixels are painted, and each image blends two of
them, turned and shifted. Then each command of a study runs in a process of its own. The script
prints its time and the peak of its own memory, without mapped pages of files, which the system
takes back when it needs them. To test a limit that counts these too, draw the images first and run
it again under one, such as `systemd-run --scope -p MemoryMax=4G python ...`.
"""

import argparse
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from kerasmed.data.phantoms import FAMILIES, draw_phantom
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions

SIZE, PAINTED, FAMILY = 64, 4000, "mri"
CLASSES = list(FAMILIES[FAMILY])
SETTINGS = """
name: million
data: {{source: {source}, image_size: {size}}}
split: {{group_by: patient}}
diffusion: {{max_minutes: null, max_images: 1600, checkpoint_steps: 50}}
sampling: {{per_class: 16, copy_filter: false}}
"""


def paint(index: int) -> np.ndarray:
    return draw_phantom(FAMILY, CLASSES[index % len(CLASSES)], index, SIZE, 0)[0]


def blend(folder: Path, painted: np.ndarray, start: int, stop: int) -> None:
    """Images ``start`` to ``stop``: a phantom that sets the class, and a trace of another."""
    for index in range(start, stop):
        rng = np.random.default_rng(index)
        label = index % len(CLASSES)
        own = label + len(CLASSES) * rng.integers(len(painted) // len(CLASSES))
        layers = []
        for which in (own, rng.integers(len(painted))):
            shift = tuple(rng.uniform(-8, 8, 2))
            image = Image.fromarray(painted[which])
            layers.append(
                image.rotate(rng.uniform(0, 360), Image.Resampling.BILINEAR, translate=shift)
            )
        path = folder / CLASSES[label] / f"{index // 10000:03d}" / f"{index:07d}.png"
        Image.blend(*layers, alpha=rng.uniform(0.3, 0.5)).save(path, compress_level=1)


def draw_set(folder: Path, count: int) -> None:
    for label in CLASSES:
        for block in range(-(-count // 10000)):
            (folder / label / f"{block:03d}").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        painted = np.stack(list(pool.map(paint, range(PAINTED), chunksize=50)))
        starts = range(0, count, 5000)
        chunks = [pool.submit(blend, folder, painted, i, min(i + 5000, count)) for i in starts]
        for chunk in chunks:
            chunk.result()


def run(*arguments: str) -> tuple[float, float]:
    """Seconds that a command takes, and GiB that it holds of its own at most."""
    started, most = time.monotonic(), 0.0
    with subprocess.Popen([sys.executable, "-m", "kerasmed", *arguments]) as process:
        while process.poll() is None:
            most = max(most, own_memory(process.pid))
            time.sleep(0.2)
    if process.returncode:
        sys.exit(f"kerasmed {' '.join(arguments)} ended with {process.returncode}")
    return time.monotonic() - started, most


def own_memory(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1_000_000)
    arguments = parser.parse_args()
    source = arguments.folder / f"images-{arguments.images}"
    config = arguments.folder / "million.yaml"
    drawn = arguments.folder / f"drawn-{arguments.images}"
    print(machine(), versions())
    if not drawn.exists():
        started = time.monotonic()
        draw_set(source, arguments.images)
        drawn.touch()
        print(f"drawing {arguments.images:,} phantoms: {time.monotonic() - started:.0f} s")
    config.write_text(SETTINGS.format(source=source, size=SIZE))
    out = ("--out", str(arguments.folder / "run"))
    shutil.rmtree(arguments.folder / "run", ignore_errors=True)  # what is finished takes no time
    print(f"{'command':<24}{'seconds':>9}{'GiB of its own':>16}")
    for command in (("data", "split"), ("train", "diffusion"), ("sample",)):
        seconds, memory = run(*command, str(config), *out)
        print(f"{' '.join(command):<24}{seconds:>9.0f}{memory:>16.2f}", flush=True)


if __name__ == "__main__":
    main()
