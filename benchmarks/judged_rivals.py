"""The three answers about the synthetic sets of other packages and of ours.

    python benchmarks/judged_rivals.py CONFIG --data DIR --weights PATH --out DIR [--seeds 2]

DIR of --out is one that benchmarks/time_to_quality.py has filled: the trained packages' sets lie
there as .npz. Each is judged by `kerasmed.judge` on the roles of that run, with MobileNet at 160
pixels; its page goes to DIR/judged/NAME/report.html. One line a set is printed.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from recipe import judged_parser

import kerasmed as km
from kerasmed.data.image_set import Roles
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import load_config
from kerasmed.study.inputs import load_grouped_split
from kerasmed.study.run_folder import RunFolder


def main() -> None:
    parser = judged_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    config = load_config(arguments.config, arguments.set, arguments.data)
    image_set, split, groups = load_grouped_split(config, RunFolder(arguments.out))
    grouped = replace(image_set, groups=groups)
    roles = Roles(**{role: grouped.subset(positions) for role, positions in split.items()})
    for path in sorted(arguments.out.glob("*.npz")):
        if path.name == "images.npz":  # the training images
            continue
        with np.load(path) as arrays:
            drawn = km.ImageSet.from_arrays(
                arrays["images"], arrays["labels"], list(image_set.class_names)
            )
        verdicts = km.judge(
            roles, drawn, ["MobileNet"], arguments.seeds, symmetry=config.data.symmetry,
            weights=arguments.weights, input_size=160, finetune_epochs=5,
        )  # fmt: skip
        folder = arguments.out / "judged" / path.stem
        verdicts.to_directory(folder)
        answers = {answer.question: answer.light for answer in verdicts.answers}
        print(json.dumps({"set": path.stem, "images": len(drawn), **answers}), flush=True)
        for answer in verdicts.answers:
            print(f"  {answer.question}: {answer.answer}", flush=True)


if __name__ == "__main__":
    main()
