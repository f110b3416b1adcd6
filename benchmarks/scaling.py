"""What more processes bring: two of them measured against one, and more on paper.

    python benchmarks/scaling.py DIR

Makes a small study of phantoms in DIR (64 pixels, the network of the preset `cpu`, MobileNet). Its
commands, each in processes of its own, are then measured: drawing by one process and by two with
--shard, explaining by one and by two, training by one process and by two workers, the start of a
process, and a task of Ray. From these follows the time of N machines like this one, each with one
process.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from kerasmed.files import read_history, read_json
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import Config, load_config
from kerasmed.study.ray_executor import RayCluster
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stage import Sharding

SETTINGS = """
name: scaling
data: {phantoms: {family: mri, per_class: 120}, image_size: 64}
split: {train: 0.4, test: 0.3}
diffusion: {max_minutes: null, max_images: 4800, checkpoint_steps: 50, preview_every: 1000}
sampling: {per_class: 4, copy_filter: false}
classifiers: {backbones: [MobileNet], weights: none, input_size: 160, finetune_epochs: 1,
              train_on: [real]}
"""
CLASSES, PER_CLASS, EXPLAINED, TASKS = 4, 150, 96, 64
WORKERS, WANTED_IMAGES, WANTED_EXPLANATIONS = (1, 8, 64), 100_000, 10_000


def together(*commands: list[str], **environment: str) -> float:
    """Seconds until all of these commands have ended, started at once."""
    started = time.monotonic()
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "kerasmed", *map(str, command)],
            env={**os.environ, **environment, **tf_config},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command, tf_config in zip(commands, _tf_configs(len(commands)), strict=True)
    ]
    for process in running:
        errors = process.communicate()[1]
        if process.returncode:
            sys.exit(errors)
    return time.monotonic() - started


def _tf_configs(count: int) -> list[dict[str, str]]:
    sockets = [socket.socket() for _ in range(count)]
    for probe in sockets:
        probe.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{probe.getsockname()[1]}" for probe in sockets]
    for probe in sockets:
        probe.close()
    tasks = [{"type": "worker", "index": index} for index in range(count)]
    return [
        {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task})}
        for task in tasks
    ]


def drawing(config: Path, study: Path, per_class: int, processes: int) -> float:
    folder = study.with_name("drawing")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(study, folder, ignore=shutil.ignore_patterns("synthetic"))
    command = ["sample", config, "--out", folder, "--per-class", per_class]
    return together(*([*command, "--shard", f"{i + 1}/{processes}"] for i in range(processes)))


def explaining(model: Path, images: list[Path], processes: int) -> float:
    out = model.parent.with_name("explaining")
    shutil.rmtree(out, ignore_errors=True)
    command = ["explain", model, "--out", out, "--set", "explain.checks=false"]
    return together(*([*command, *images[i::processes]] for i in range(processes)))


def training(config: Path, study: Path, workers: int) -> float:
    """Images a second in the median."""
    folder = study.with_name("training")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(study, folder, ignore=shutil.ignore_patterns("diffusion"))
    command = ["train", "diffusion", config, "--out", folder]
    command += ["--set", "runtime.distribution=multi_worker"] if workers > 1 else []
    together(*[command] * workers)
    rows = read_history(folder / "diffusion" / "history.csv")
    return float(np.median([float(row["images_per_s"]) for row in rows[1:]]))


def nothing(config: Config, run: RunFolder, index: int, shards: int) -> int:
    return 0


def ray_task(config: Config, run: RunFolder) -> float:
    """Seconds that Ray takes for a task that does nothing, once its workers are there."""
    sharding = Sharding(nothing, lambda config, cpus: TASKS, 1, 0.1, wants_gpu=False)
    with RayCluster("ray") as cluster:
        cluster.run_stage("starting", sharding, config, run)
        started = time.monotonic()
        cluster.run_stage("measured", sharding, config, run)
        return (time.monotonic() - started) / TASKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    config, study = folder / "scaling.yaml", folder / "study"
    config.write_text(SETTINGS)
    for command in (["train", "diffusion"], ["sample"], ["train", "classifier"], ["export"]):
        together([*command, config, "--out", study])
    print(machine(), versions())

    few, many = (drawing(config, study, n, 1) for n in (4, PER_CLASS))
    an_image = (many - few) / (CLASSES * (PER_CLASS - 4))
    start = few - 4 * CLASSES * an_image
    two = drawing(config, study, PER_CLASS, 2)
    print(f"{CLASSES * PER_CLASS} images: {many:.1f} s by one process, {two:.1f} s by two;")
    print(f"    {start:.1f} s to start, {an_image:.4f} s an image")

    model = next((study / "exported").glob("*.onnx"))
    images = sorted((study / "images" / "phantoms").glob("*/*.png"))[:EXPLAINED]
    one_of_them, all_of_them = (explaining(model, images[:n], 1) for n in (1, EXPLAINED))
    an_explanation = (all_of_them - one_of_them) / (EXPLAINED - 1)
    start_explaining = one_of_them - an_explanation
    two = explaining(model, images, 2)
    print(f"{EXPLAINED} explanations: {all_of_them:.1f} s by one process, {two:.1f} s by two;")
    print(f"    {start_explaining:.1f} s to start, {an_explanation:.3f} s an explanation")

    one_rate, two_rate = training(config, study, 1), training(config, study, 2)
    record = read_json(study / "run.json", "kerasmed study")["stages"]["diffusion"]["result"]
    moved = 2 * 4 * record["parameters"] / 1e6
    print(f"training: {one_rate:.0f} images/s by one process, {two_rate:.0f} by two workers here;")
    print(f"    {record['parameters']:,} parameters, gradients of {moved:.0f} MB summed a step")

    task = ray_task(load_config(config), RunFolder(study))
    print(f"a task of Ray that does nothing: {1000 * task:.0f} ms")

    print(f"\n| workers | {WANTED_IMAGES:,} images | {WANTED_EXPLANATIONS:,} explanations |")
    print("|---|---|---|")
    for workers in WORKERS:
        draw = start + task + -(-WANTED_IMAGES // workers) * an_image
        explain = start_explaining + task + -(-WANTED_EXPLANATIONS // workers) * an_explanation
        print(f"| {workers} | {_duration(draw)} | {_duration(explain)} |")


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    main()
