"""How good a choice among uses of synthetic images is, by how many validation images it rests on.

    python benchmarks/choosing.py OUT OUT ...

Each OUT is a draw of benchmarks/uses.py: what each use names each of some thousand real images. Of
these a few hundred times some groups are drawn as validation images, by which a use is chosen:
once by the rule of the regime `best`, and once as the use with the highest accuracy. The others say
what that gains over the use without synthetic images. Whole groups are drawn.
"""

import sys
from pathlib import Path

import numpy as np
from uses import Draw

from kerasmed.audit.choice import choose_regime
from kerasmed.audit.comparison import TrainedOn

VALIDATION = (50, 100, 200, 400)
REPEATS = 300
PLAIN = TrainedOn("head", "real")


def gains(drawn: Draw, images: int, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """Points gained on the other images by the rule, and by the use with the highest accuracy."""
    right = {PLAIN: drawn.right["real"]}
    for name, of_images in drawn.right.items():
        if not name.startswith("real, ") and name != "real" and not name.endswith("alone"):
            right[TrainedOn("head", "both", name)] = of_images
    _, group = np.unique(drawn.groups, return_inverse=True)
    sizes = np.bincount(group)
    by_rule, by_accuracy = [], []
    for _ in range(REPEATS):
        order = rng.permutation(len(sizes))
        count = int(np.searchsorted(np.cumsum(sizes[order]), images)) + 1
        is_validation = np.isin(group, order[:count])
        of_validation = {key: [values[is_validation]] for key, values in right.items()}
        losses = {key: 1 - values[0].mean() for key, values in of_validation.items()}
        choice = choose_regime(of_validation, losses, group[is_validation])
        chosen = TrainedOn("head", choice["regime"], choice["variant"])
        highest = min(losses, key=losses.__getitem__)
        for key, found in ((chosen, by_rule), (highest, by_accuracy)):
            found.append(100 * float((right[key] - right[PLAIN])[~is_validation].mean()))
    return by_rule, by_accuracy


def main() -> None:
    rng = np.random.default_rng(0)
    print("| set | validation images | rule of `best`: chosen, gain, harm | highest accuracy |")
    print("|---|---|---|---|")
    for folder in sys.argv[1:]:
        drawn = Draw(Path(folder))
        for images in VALIDATION:
            columns = [
                f"{np.mean(np.array(of_kind) != 0):.0%}, {np.mean(of_kind):+.1f}, "
                f"{np.mean(np.array(of_kind) < 0):.0%}"
                for of_kind in gains(drawn, images, rng)
            ]
            print(f"| {Path(folder).name} | {images} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
