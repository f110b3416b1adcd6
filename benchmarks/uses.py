"""Which uses of synthetic images help where real images are few, by a linear head.

    python benchmarks/uses.py draw CONFIG --data DIR --weights PATH --recipe RECIPE --out OUT
    python benchmarks/uses.py pool OUT OUT ...

RECIPE is the folder of a run of benchmarks/recipe.py with the same settings (such as `--set
split.train=0.1 --set seed=1`), whose variant `cpu` is the denoiser. `draw` makes a plain set, more
candidates, a guided set and variations of training images, and writes them to OUT/sets.npz. For
each use it fits a logistic regression to features of a frozen MobileNet. Real images come in all
flips and turns that `data.symmetry` allows. All uses have the same sum of weights, that of the real
images, so that they are regularised alike. They are tested on the role `reserve`, never on `test`:
OUT/predictions.csv has the number of the class that each use names for each of its images, and
OUT/validation.json the loss on the validation images.

`pool` takes draws of the real images, each with a generator of its own, of any number of sets. It
prints the accuracy of each use, and its difference from the best use without synthetic images,
which the validation loss chooses, with intervals over draws and groups of images.
"""

import csv
import io
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from recipe import Judge, judged_parser, save_grid
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from kerasmed.audit.confirmation import Confirmation
from kerasmed.audit.covering import covering
from kerasmed.classify.calibration import mean_cross_entropy
from kerasmed.data.symmetry import all_versions
from kerasmed.diffusion.denoisers import open_denoiser
from kerasmed.diffusion.generate import generate_images
from kerasmed.diffusion.solvers import sampling_timesteps
from kerasmed.errors import InputError
from kerasmed.files import write_json, write_text
from kerasmed.metrics.jackknife import Figure, mean_figure
from kerasmed.metrics.linear_probe import INVERSE_REGULARISATION, Probe, fit_probe
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import Config, load_config
from kerasmed.study.run_folder import RunFolder
from kerasmed.text import counted

TIMES = 2  # images of each class in a set, over those of the largest class of `train`
CANDIDATES = 2  # times as many are drawn, to choose from
STEPS = 15
BASELINES = ("real", "real, C 0.1", "real, as they are")

Learned = tuple[np.ndarray, np.ndarray, np.ndarray]  # features, targets, weights


class Denoiser:
    """Draws images of a denoiser.

    Args:
        judge: the real images.
        config: settings with the seed.
        denoiser: file of the denoiser.
    """

    def __init__(self, judge: Judge, config: Config, denoiser: Path):
        self._judge, self._config = judge, config
        self._opened = open_denoiser(denoiser)
        labels = judge.train.labels
        self.per_class = TIMES * int(np.bincount(labels).max())
        self.of_class = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]

    def _original(self, label: int, index: int) -> np.ndarray:
        rows = self.of_class[label]
        return np.asarray(self._judge.train.images[rows[index % len(rows)]])

    def draw(self, times: int = 1, guidance: float = 1.0, strength: float = 1.0) -> np.ndarray:
        """Images uint8 (classes * times * per_class, size, size, 3), class after class."""
        timesteps = sampling_timesteps(STEPS)[-round(strength * STEPS) :]
        count, classes = times * self.per_class, len(self.of_class)
        wanted = [(label, i) for label in range(classes) for i in range(count)]
        size, seed = self._judge.train.image_size, self._config.seed
        original = None if strength == 1 else self._original
        drawn = generate_images(
            *self._opened, wanted, classes, size, seed, "unipc", timesteps, guidance, 32, original
        )
        return np.stack([image for *_, image in drawn])


def drawn_sets(judge: Judge, config: Config, denoiser: Path, path: Path) -> dict[str, np.ndarray]:
    """The sets, drawn if the file does not hold them yet; images of each class after another."""
    if path.exists():
        return dict(np.load(path))
    drawing = Denoiser(judge, config, denoiser)
    sets = {
        "candidates": drawing.draw(times=CANDIDATES),
        "guided": drawing.draw(guidance=2.0),
        "variations 0.5": drawing.draw(strength=0.5),
        "variations 0.25": drawing.draw(strength=0.25),
    }
    np.savez(path, **sets)
    labels = np.repeat(np.arange(len(drawing.of_class)), drawing.per_class)
    save_grid(sets["guided"], labels, path.with_name("guided.png"))
    save_grid(sets["variations 0.5"], labels, path.with_name("variations.png"))
    return sets


def uses_of(
    judge: Judge, config: Config, sets: Mapping[str, np.ndarray], features: Callable
) -> tuple[dict[str, Callable[[], Probe]], dict[str, float]]:
    """What fits the linear head of each use, and facts about the sets."""
    labels, classes = judge.train.labels, len(judge.train.class_names)
    real = features(judge.train.images), np.eye(classes)[labels]
    of_sets = {name: features(images) for name, images in sets.items()}
    label_of = {name: np.repeat(np.arange(classes), len(x) // classes) for name, x in sets.items()}
    candidates, of_candidates = of_sets["candidates"], label_of["candidates"]
    per_class = len(candidates) // classes // CANDIDATES
    place = np.arange(len(candidates)) % (len(candidates) // classes)
    try:
        confirmation = Confirmation(real[0], labels, judge.groups["train"], classes)
    except InputError as error:
        print(f"Without confirmed and soft: {error}", flush=True)
        probabilities = None
    else:
        probabilities = confirmation.probabilities(candidates)
    covers = np.concatenate(
        [
            rows[covering(real[0][labels == label], candidates[rows], per_class, config.seed)]
            for label in range(classes)
            for rows in [np.flatnonzero(of_candidates == label)]
        ]
    )
    plain = place < per_class
    hard = np.eye(classes)[of_candidates]
    learned = {
        "synthetic": (candidates[plain], hard[plain]),
        "coverage": (candidates[covers], hard[covers]),
        **{
            name: (of_sets[name], np.eye(classes)[label_of[name]])
            for name in ("guided", "variations 0.5", "variations 0.25")
        },
    }
    facts = {"train": len(labels), "plain": int(plain.sum())}
    if probabilities is not None:
        sure = probabilities[np.arange(len(candidates)), of_candidates] >= 0.5
        confirmed = np.concatenate(
            [np.flatnonzero(sure & (of_candidates == c))[:per_class] for c in range(classes)]
        )
        learned["confirmed"] = candidates[confirmed], hard[confirmed]
        learned["soft"] = candidates[plain], probabilities[plain]
        facts |= {
            "confirmed": len(confirmed),
            "confirmed_fraction": float(sure.mean()),
            "named_as_labelled": float((probabilities.argmax(axis=1) == of_candidates).mean()),
        }
    turned = all_versions(np.asarray(judge.train.images), config.data.symmetry)
    flat = turned.reshape(-1, *turned.shape[2:])
    every_version = features(flat), np.repeat(real[1], turned.shape[1], axis=0)

    def fit(*of: tuple[tuple[np.ndarray, np.ndarray], float], c: float = INVERSE_REGULARISATION):
        """A head from sets, each with its fraction of the weight."""
        rows, targets, weights = [], [], []
        for (of_set, targets_of_set), fraction in of:
            rows.append(of_set)
            targets.append(targets_of_set)
            weights.append(np.full(len(of_set), fraction * len(labels) / len(of_set)))
        every, at = np.concatenate(targets), np.concatenate(weights)
        images, of_images = np.nonzero(every)
        weights_of = every[images, of_images] * at[images]
        return fit_probe(np.concatenate(rows)[images], of_images, classes, weights_of, c)

    uses: dict[str, Callable[[], Probe]] = {
        "real, as they are": lambda: fit((real, 1)),
        "real": lambda: fit((every_version, 1)),
        "real, C 0.1": lambda: fit((every_version, 1), c=0.1),
        "pretrained": lambda: adapted(fit((learned["synthetic"], 1)), *every_version, len(labels)),
        "both, each image alike": lambda: fit(
            (every_version, len(labels) / (len(labels) + plain.sum())),
            (learned["synthetic"], plain.sum() / (len(labels) + plain.sum())),
        ),
        "both, a quarter synthetic": lambda: fit(
            (every_version, 0.75), (learned["synthetic"], 0.25)
        ),
    }
    for name, images in learned.items():
        uses[f"{name} alone"] = lambda images=images: fit((images, 1))
        uses[f"real and {name}"] = lambda images=images: fit((every_version, 0.5), (images, 0.5))
    return uses, facts


def adapted(prior: Probe, features: np.ndarray, targets: np.ndarray, weight: float) -> Probe:
    """A head fitted to real images of that sum of weights, regularised towards a synthetic one."""
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    standardised = (features - mean) / scale
    before, shape = prior.logits(features), prior.kernel.shape
    c = INVERSE_REGULARISATION * weight / len(features)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = np.split(flat, [np.prod(shape)])
        logits = before + standardised @ kernel.reshape(shape) + bias
        error = softmax(logits, axis=1) - targets
        value = -(targets * log_softmax(logits, axis=1)).sum() * c
        gradient = c * (standardised.T @ error)
        slopes = np.append(gradient.ravel() + kernel, c * error.sum(axis=0))
        return value + 0.5 * kernel @ kernel, slopes

    found = minimize(loss, np.zeros(np.prod(shape) + shape[1]), jac=True, method="L-BFGS-B").x
    kernel, bias = np.split(found, [np.prod(shape)])
    kernel = kernel.reshape(shape) / scale[:, None]
    return Probe(prior.kernel + kernel, prior.bias + bias - mean @ kernel)


def draw(arguments: Namespace) -> None:
    config = load_config(arguments.config, arguments.set, arguments.data)
    arguments.out.mkdir(parents=True, exist_ok=True)
    judge = Judge(config, RunFolder(arguments.recipe), arguments.weights)
    denoiser = arguments.recipe / "cpu" / "denoiser.keras"
    sets = drawn_sets(judge, config, denoiser, arguments.out / "sets.npz")
    uses, facts = uses_of(judge, config, sets, judge.features)
    reserve, validation = judge.reserve, judge.validation
    of_reserve, of_validation = judge.features(reserve.images), judge.features(validation.images)
    columns: dict[str, np.ndarray] = {}
    losses: dict[str, float] = {}
    for name, fitted in uses.items():
        head = fitted()
        columns[name] = head.logits(of_reserve).argmax(axis=1)
        losses[name] = mean_cross_entropy(head.logits(of_validation), validation.labels)
        accuracy = (columns[name] == reserve.labels).mean()
        print(json.dumps({"use": name, "accuracy": round(float(accuracy), 4)}), flush=True)
    print(json.dumps(facts))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "group", "class", *columns])
    names = [f"{file.path.parent.name}/{file.path.name}" for file in reserve.files]
    of_images = names, [group[:12] for group in judge.groups["reserve"]]
    writer.writerows(zip(*of_images, reserve.labels, *columns.values(), strict=True))
    write_text(arguments.out / "predictions.csv", text.getvalue())
    record = {"set": config.name, "seed": config.seed, "classes": reserve.class_names, **facts}
    record["losses"] = losses
    write_json(arguments.out / "validation.json", {**record, **machine(), **versions()})


class Draw:
    """One draw of one set: what each use names each image of the role `reserve`."""

    def __init__(self, folder: Path):
        record = json.loads((folder / "validation.json").read_text())
        self.set, self.losses = record["set"], record["losses"]
        self.classes = record["classes"]
        rows = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
        self.groups = [row["group"] for row in rows]
        self.labels = np.array([int(row["class"]) for row in rows])
        self.right = {
            name: np.array([row[name] == row["class"] for row in rows], float)
            for name in rows[0]
            if name not in ("image", "group", "class")
        }


def difference(draws: list[Draw], use: str, baseline: str, classes: list[int]) -> Figure:
    """Accuracy on these classes of a use less that of the baseline, over groups and draws."""
    of_draws = [
        (drawn.right[use] - drawn.right[baseline])[np.isin(drawn.labels, classes)]
        for drawn in draws
    ]
    groups = np.concatenate(
        [np.array(drawn.groups)[np.isin(drawn.labels, classes)] for drawn in draws]
    )
    _, group = np.unique(groups, return_inverse=True)
    figure = mean_figure(np.concatenate(of_draws), {"groups": group}, (1, -1))
    without = dict(figure.without)
    if len(draws) > 1:
        means = np.array([values.mean() for values in of_draws])
        without |= mean_figure(means, {"draws": np.arange(len(draws))}).without
    return Figure(figure.value, without)


def pool(folders: list[Path]) -> None:
    by_set: dict[str, list[Draw]] = {}
    for drawn in map(Draw, folders):
        by_set.setdefault(drawn.set, []).append(drawn)
    baselines = {
        name: min(BASELINES, key=lambda use: np.mean([d.losses[use] for d in draws]))
        for name, draws in by_set.items()
    }
    heads = [
        f"{name}, {counted(len(draws), 'draw')}, from {baselines[name]}"
        for name, draws in by_set.items()
    ]
    uses = list(dict.fromkeys(use for draws in by_set.values() for use in draws[0].right))
    print("Accuracy in %, and points from the best use without synthetic images (95% interval)\n")
    print(f"| use | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for use in uses:
        columns = [_points(draws, use, baselines[name]) for name, draws in by_set.items()]
        print(f"| {use} | {' | '.join(columns)} |")
    print("\nPoints in balanced accuracy, and of the class that loses most\n")
    print(f"| use | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
    for use in uses:
        columns = [_classes(draws, use, baselines[name]) for name, draws in by_set.items()]
        print(f"| {use} | {' | '.join(columns)} |")


def _points(draws: list[Draw], use: str, baseline: str) -> str:
    if use not in draws[0].right:
        return "-"
    accuracy = np.mean([drawn.right[use].mean() for drawn in draws])
    classes = sorted(set(draws[0].labels.tolist()))
    figure = difference(draws, use, baseline, classes)
    low, high = figure.interval()
    if use == baseline:
        return f"{100 * accuracy:.1f}"
    points = f"{100 * figure.value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{100 * accuracy:.1f}; {points}"


def _classes(draws: list[Draw], use: str, baseline: str) -> str:
    if use not in draws[0].right or use == baseline:
        return "-"
    classes = sorted(set(draws[0].labels.tolist()))
    of_class = {c: difference(draws, use, baseline, [c]).value for c in classes}
    worst = min(of_class, key=of_class.__getitem__)
    balanced = np.mean(list(of_class.values()))
    return f"{100 * balanced:+.1f}; {draws[0].classes[worst]} {100 * of_class[worst]:+.1f}"


def main() -> None:
    if sys.argv[1:2] == ["pool"]:
        return pool([Path(folder) for folder in sys.argv[2:]])
    parser = judged_parser(__doc__)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return draw(parser.parse_args(sys.argv[2:] if sys.argv[1:2] == ["draw"] else None))


if __name__ == "__main__":
    main()
