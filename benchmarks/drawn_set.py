"""What the synthetic set of a study is worth before a CNN is trained on it, and how it looks.

    python benchmarks/drawn_set.py CONFIG --data DIR --weights PATH --run RUN

RUN is the folder of a study whose synthetic set is drawn. It is judged as in benchmarks/recipe.py,
on the role `reserve`, in parts with as many images of each class as the role `train` holds, so
that the figures compare with those of other recipes; how far the parts differ is what chance does.
The same of the real images comes first. `off_the_middle` means something where a picture shows one
thing that lies in its middle, such as a head.
"""

import json
from pathlib import Path

import numpy as np
from recipe import Judge, brightness_deviation, judged_parser

from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import load_config
from kerasmed.study.inputs import load_synthetic
from kerasmed.study.run_folder import RunFolder


def off_the_middle(images: np.ndarray) -> float:
    """Share of images whose centre of brightness is over 5/64 of the width off the middle line."""
    columns = images.mean(axis=(1, 3)) + 1e-6
    width = columns.shape[1]
    centre = columns @ np.arange(width) / columns.sum(axis=1)
    return round(float(np.mean(np.abs(centre - (width - 1) / 2) > width * 5 / 64)), 4)


def look(images: np.ndarray, labels: np.ndarray) -> dict:
    return {
        "images": len(images),
        "brightness_deviation": brightness_deviation(images, labels),
        "off_the_middle": off_the_middle(images),
    }


def main() -> None:
    parser = judged_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True)
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    config = load_config(arguments.config, arguments.set, arguments.data)
    run = RunFolder(arguments.run)
    judge, drawn = Judge(config, run, arguments.weights), load_synthetic(config, run)
    print(json.dumps({"set": "real", **look(judge.seen.images, judge.seen.labels)}), flush=True)
    counts = np.bincount(judge.seen.labels)
    rows = [np.flatnonzero(drawn.labels == label) for label in range(len(counts))]
    for part in range(min(len(row) // count for row, count in zip(rows, counts, strict=True))):
        here = [row[part * n : (part + 1) * n] for row, n in zip(rows, counts, strict=True)]
        taken = np.concatenate(here)
        images, labels = drawn.images[taken], drawn.labels[taken]
        found = {"set": f"part {part}", **look(images, labels), **judge.verdict(images, labels)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
