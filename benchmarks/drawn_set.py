"""What the synthetic set of a study is worth before a CNN is trained on it, and how it looks.

    python benchmarks/drawn_set.py CONFIG --data DIR --weights PATH --run RUN

RUN is the folder of a study whose synthetic set is drawn. The set is judged on the role `reserve`,
as in benchmarks/recipe.py, in subsets with as many images of each class as the role `train` holds.
So the figures compare with those of other recipes, and the spread between subsets shows chance.
The first line is of the real images. `off_the_middle` applies to pictures of one object in the
middle, such as a head.
"""

import json
from pathlib import Path

import numpy as np
from recipe import Judge, brightness_deviation, judged_parser

from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import load_config
from kerasmed.study.inputs import read_synthetic
from kerasmed.study.run_folder import RunFolder


def off_the_middle(images: np.ndarray) -> float:
    """Fraction of images whose centre of brightness is over 5/64 of the width off centre."""
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
    judge, drawn = Judge(config, run, arguments.weights), read_synthetic(config, run)
    print(json.dumps({"set": "real", **look(judge.train.images, judge.train.labels)}), flush=True)
    counts = np.bincount(judge.train.labels)
    by_class = [np.flatnonzero(drawn.labels == label) for label in range(len(counts))]
    subsets = min(len(rows) // count for rows, count in zip(by_class, counts, strict=True))
    for k in range(subsets):
        chosen = np.concatenate(
            [rows[k * n : (k + 1) * n] for rows, n in zip(by_class, counts, strict=True)]
        )
        images, labels = drawn.images[chosen], drawn.labels[chosen]
        line = {"set": f"subset {k}", **look(images, labels), **judge.verdict(images, labels)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
