"""How often each light is green on synthetic sets whose faults are known.

    python benchmarks/operating_characteristics.py CONFIG --weights PATH --out DIR \
        [--data DIR] [--draws 200] [--images 1000] [--copies]

Real images of a study stand for a generator's: of each draw of groups, a fifth is `train`, and the
rest `reserve`, `test` and the synthetic set, which then gets one fault: blur, a class that lacks
kinds of images, wrong labels, planted copies and so on. Images are judged as `kerasmed audit`
judges them, in features of a frozen MobileNet; the CNNs are logistic regressions on these features,
three for each set, each on another resample. There is no generator, so the test for membership is
left out.

One line a fault goes to OUT/rates-IMAGES.jsonl, with the fractions of the draws that were green,
amber, red and grey; for `useful` also with the mean ratio of accuracies. OUT/draws-IMAGES.jsonl
holds the figures themselves: with --again they are judged by the rules as they are now. --copies
plants only copies, in sets of thousands of images, and writes to copies-IMAGES.jsonl instead.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from recipe import judged_parser
from scipy.ndimage import gaussian_filter
from sklearn import config_context
from sklearn.cluster import KMeans

from kerasmed.audit import class_distances, fidelity
from kerasmed.audit.comparison import TrainedOn
from kerasmed.audit.copy_search import FRACTIONS, chance_to_notice, fresh_images, more_copies_than
from kerasmed.audit.privacy_verdict import judge_privacy
from kerasmed.audit.usefulness import usefulness
from kerasmed.audit.verdicts import judge_fidelity, judge_usefulness
from kerasmed.metrics.copy_detector import (
    CopyDetector,
    compared_groups,
    features_of_flips,
    features_of_moves,
)
from kerasmed.metrics.detection_power import ALTERATIONS, PLANTED
from kerasmed.metrics.kernel_distance import kernel_distance
from kerasmed.metrics.linear_probe import fit_probe
from kerasmed.metrics.manifold import overlap
from kerasmed.metrics.sample import Sample
from kerasmed.progress import progress_bar
from kerasmed.runtime.backend import load_keras
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import load_config
from kerasmed.study.engine import perform
from kerasmed.study.inputs import load_grouped_split
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages import STAGES

ROLES = {"train": 0.2, "reserve": 0.35, "test": 0.15, "synthetic": 0.3}
SEEDS = 3
# Of a class whose images are cut into so many kinds.
KINDS = 8


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def blurred(images: np.ndarray, pixels: float) -> np.ndarray:
    return as_bytes(gaussian_filter(images.astype(np.float32), (0, pixels, pixels, 0)))


def sharpened(images: np.ndarray, amount: float) -> np.ndarray:
    soft = gaussian_filter(images.astype(np.float32), (0, 1, 1, 0))
    return as_bytes(images + amount * (images - soft))


def grainy(images: np.ndarray, deviation: float) -> np.ndarray:
    return as_bytes(images + np.random.default_rng(0).normal(0, deviation, images.shape))


def tinted(images: np.ndarray, amount: float) -> np.ndarray:
    return as_bytes(images * np.array([1 + amount, 1, 1 - amount]))


def evened(images: np.ndarray, amount: float) -> np.ndarray:
    """Mean brightness moved towards that of all images."""
    means = images.mean(axis=(1, 2, 3), keepdims=True)
    return as_bytes(images - amount * (means - means.mean()))


# Faults of single images: fault -> strength -> images.
PICTURES: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], tuple[float, ...]]] = {
    "blur, pixels": (blurred, (0.3, 0.5, 1.0)),
    "sharpening": (sharpened, (0.25, 0.5, 1.0)),
    "grain, deviation": (grainy, (2, 4, 8)),
    "tint": (tinted, (0.02, 0.05, 0.1)),
    "less variation of brightness": (evened, (0.5, 1.0)),
}
# Faults of the choice of images and labels, made by `chosen`.
KINDS_MISSING = "kinds of a class missing"
GROUPS_MISSING = "groups of a class missing"
LABELS = "wrong labels"
PREVALENCE = "one class so many times as frequent"
CHOICES: dict[str, tuple[float, ...]] = {
    KINDS_MISSING: (0.25, 0.5, 0.75),
    GROUPS_MISSING: (0.25, 0.5, 0.75),
    LABELS: (0.05, 0.1, 0.2, 0.4),
    PREVALENCE: (0.5, 0.25),
}
COPIES = (0.001, 0.005, 0.01, 0.02, 0.05)


class Images(NamedTuple):
    """What is known of the images of a set, computed once."""

    labels: np.ndarray
    groups: np.ndarray
    class_names: list[str]
    features: dict[tuple[str, float], np.ndarray]  # by fault; ("none", 0) without
    flips: np.ndarray
    moves: np.ndarray
    copies: dict[str, np.ndarray]  # features of altered images, by alteration


def known_images(config, run: RunFolder, weights: str, most: int, pictures: dict) -> Images:
    """The images of a study, of which a random choice of groups if there are more than ``most``.

    ``pictures`` are the faults of single images, as in PICTURES.
    """
    if "data" not in run.finished_stages():
        perform(STAGES["data"], config, run)
    image_set, _, groups = load_grouped_split(config, run)
    chosen = some_groups(groups, most)
    images, labels = np.asarray(image_set.images)[chosen], image_set.labels[chosen]
    load_keras()
    from kerasmed.classify.network import build_classifier, predict_outputs

    network = build_classifier("MobileNet", 1, image_set.image_size, 160, weights, 0.0)

    def features(pictures: np.ndarray) -> np.ndarray:
        return predict_outputs(network, pictures)["features"]

    by_fault = {("none", 0.0): features(images)}
    for fault, (change, strengths) in pictures.items():
        for strength in strengths:
            by_fault[fault, strength] = features(change(images, strength))
    rng = np.random.default_rng(0)
    altered = {
        name: features_of_moves(np.stack([alter(image, rng) for image in images]))
        for name, alter in ALTERATIONS.items()
    }
    flips, moves = features_of_flips(images), features_of_moves(images)
    names = list(image_set.class_names)
    return Images(labels, groups[chosen], names, by_fault, flips, moves, altered)


def some_groups(groups: np.ndarray, most: int) -> np.ndarray:
    """Positions of the images of whole groups, about ``most``."""
    names = np.random.default_rng(0).permutation(np.unique(groups))
    ranks = {name: rank for rank, name in enumerate(names)}
    order = np.argsort([ranks[group] for group in groups], kind="stable")
    return np.sort(order[:most])


def split(images: Images, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Positions of each of ROLES, by groups; each role has images of every class."""
    names, group_of_image = np.unique(images.groups, return_inverse=True)
    while True:
        role_of = rng.choice(len(ROLES), len(names), p=list(ROLES.values()))[group_of_image]
        roles = {name: np.flatnonzero(role_of == i) for i, name in enumerate(ROLES)}
        counts = [
            np.bincount(images.labels[at], minlength=len(images.class_names))
            for at in roles.values()
        ]
        if np.min(counts) > 0:
            return roles


def chosen(
    images: Images, pool: np.ndarray, fault: str, strength: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Positions and labels of a faulty set, as many as there are in the pool."""
    labels, names = images.labels[pool].copy(), images.class_names
    if fault == LABELS:
        is_wrong = rng.random(len(pool)) < strength
        labels[is_wrong] += rng.integers(1, len(names), is_wrong.sum())
        return pool, labels % len(names)
    label = rng.integers(len(names))
    of_class = pool[labels == label]
    if fault == PREVALENCE:
        left = rng.choice(of_class, round(strength * len(of_class)), replace=False)
    elif fault == KINDS_MISSING:
        features = images.features["none", 0.0][of_class]
        kinds = KMeans(KINDS, n_init=1, random_state=int(rng.integers(2**31))).fit_predict(features)
        left = without(of_class, kinds, strength, rng)
    else:
        left = without(of_class, images.groups[of_class], strength, rng)
    if fault != PREVALENCE:
        left = rng.choice(left, len(of_class))  # the generator draws as many of what it knows
    kept = np.concatenate([pool[labels != label], left])
    return kept, images.labels[kept]


def without(
    positions: np.ndarray, kinds: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """The positions but for those of some kinds, which hold about this fraction of them."""
    names = rng.permutation(np.unique(kinds))
    sizes = np.array([(kinds == name).sum() for name in names])
    dropped = names[sizes.cumsum() - sizes / 2 <= fraction * len(positions)]
    return positions[~np.isin(kinds, dropped)]


def probes(
    features: np.ndarray, labels: np.ndarray, images: Images, test: np.ndarray, rng
) -> list[np.ndarray]:
    """Which test images logistic regressions on resamples are right about."""
    tested, results = images.features["none", 0.0][test], []
    for _ in range(SEEDS):
        drawn = rng.integers(len(labels), size=len(labels))
        probe = fit_probe(features[drawn], labels[drawn], len(images.class_names))
        results.append((probe.logits(tested).argmax(axis=1) == images.labels[test]).astype(float))
    return results


class Draw:
    """One draw of groups, and the figures of sets with faults."""

    def __init__(self, images: Images, seed: int):
        self.images, self.seed = images, seed
        self.rng = np.random.default_rng(seed)
        self.roles = split(images, self.rng)
        plain = images.features["none", 0.0]
        train = self.roles["train"]
        self.real = probes(plain[train], images.labels[train], images, self.roles["test"], self.rng)

    def judge(self, features: np.ndarray, labels: np.ndarray) -> dict:
        """Usefulness and fidelity of a set."""
        images, roles = self.images, self.roles
        plain, test = images.features["none", 0.0], roles["test"]
        correct = {
            TrainedOn("probe", "real"): self.real,
            TrainedOn("probe", "synthetic"): probes(features, labels, images, test, self.rng),
        }
        found = usefulness(correct, images.labels[test], images.class_names, images.groups[test])
        compared = {role: roles[role] for role in ("reserve", "train")}
        result = fidelity.fidelity_by_class(
            {**{role: plain[at] for role, at in compared.items()}, "synthetic": features},
            {**{role: images.labels[at] for role, at in compared.items()}, "synthetic": labels},
            images.class_names,
            {role: images.groups[at] for role, at in compared.items()},
            self.seed,
        )
        in_spaces = {"in_networks": {"MobileNet": result}, "features_of": "", "in_features": {},
                    "in_pixels": {}, "of_variants": {}}  # fmt: skip
        return {"usefulness": found, "fidelity": in_spaces}

    def copies(self) -> Iterator[tuple[str, float, dict]]:
        """Fault, strength and privacy, for planted copies."""
        images, roles, rng = self.images, self.roles, self.rng
        train, reserve, pool = (roles[name] for name in ("train", "reserve", "synthetic"))
        copied = rng.permutation(train)[: 2 * PLANTED]
        is_compared = compared_groups(images.groups[reserve], len(train), self.seed)
        fresh = images.moves[reserve[~is_compared]]
        detector = CopyDetector(images.flips[train], images.flips[reserve[is_compared]], [fresh])
        of_test = detector.compare(images.moves[roles["test"]]).ratios
        ratios = np.concatenate([detector.fresh, of_test])
        real = np.concatenate([reserve[~is_compared], roles["test"]])
        of_real = fresh_images(ratios < detector.threshold, images.groups[real])
        of_pool = detector.compare(images.moves[pool]).ratios < detector.threshold
        is_found = {
            name: detector.compare(altered[copied]).ratios < detector.threshold
            for name, altered in images.copies.items()
        }
        # As in an audit, the power is measured on some copies; others are in the set.
        power = [
            {"alteration": name, "found": float(found[:PLANTED].mean())}
            for name, found in is_found.items()
        ]
        worst = min(row["found"] for row in power)
        noticed = {
            f"{fraction:g}": chance_to_notice(of_real, fraction, len(pool), worst)
            for fraction in FRACTIONS
        }

        def judged(planted: np.ndarray) -> dict:
            # Unlike synthetic images, which are drawn one by one, those of the pool have groups.
            groups = images.groups[pool].astype(object)
            groups[: len(planted)] = range(len(planted))
            is_copy = np.concatenate([planted, of_pool[len(planted) :]])
            of_set = fresh_images(is_copy, groups.astype(str))
            count, size = (round(of_set[n] / of_set["design_effect"]) for n in ("copies", "images"))
            copies = {
                "filter": None, "images": size, "found": [{}] * count, "identical": {},
                "fresh": of_real, "p_value": more_copies_than(of_real, count, size),
                "power": power, "noticed": noticed,
            }  # fmt: skip
            return {"privacy": {"copies": copies, "in_pixels": {}, "membership": {}}}

        yield "none", 0.0, judged(np.empty(0, bool))
        everything = np.resize(is_found["exact"], len(pool))
        yield "the training images themselves", 1.0, judged(everything)
        for name, found in is_found.items():
            for fraction in COPIES:
                planted = max(1, round(fraction * len(pool)))
                yield f"copies, {name}", fraction, judged(rng.choice(found[PLANTED:], planted))


def draw_figures(images: Images, seed: int) -> list[dict]:
    """Every fault of one draw, with its figures."""
    fidelity.overlap = remembered(overlap)
    fidelity.kernel_distance = class_distances.kernel_distance = remembered(kernel_distance)
    with config_context(assume_finite=True, skip_parameter_validation=True):
        return list(_draw_figures(images, seed))


def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which computes what is of real images alone only once in a draw."""
    known: dict[tuple, Any] = {}

    def call(first: Sample, second: Sample, **options: Any) -> Any:
        if second.name == "synthetic":
            return function(first, second, **options)
        both = (hash(sample.features.tobytes()) for sample in (first, second))
        key = (*both, *options.values())
        if key not in known:
            known[key] = function(first, second, **options)
        return known[key]

    return call


def _draw_figures(images: Images, seed: int) -> Iterator[dict]:
    draw = Draw(images, seed)
    pool, plain = draw.roles["synthetic"], images.features["none", 0.0]
    train = draw.roles["train"]
    sets: list[tuple[str, float, np.ndarray, np.ndarray]] = [
        (fault, strength, features[pool], images.labels[pool])
        for (fault, strength), features in images.features.items()
    ]
    sets.append(("the training images themselves", 1.0, plain[train], images.labels[train]))
    for fault, strengths in CHOICES.items():
        for strength in strengths:
            positions, labels = chosen(images, pool, fault, strength, draw.rng)
            sets.append((fault, strength, plain[positions], labels))
    for fault, strength, features, labels in sets:
        yield {"fault": fault, "strength": strength, **draw.judge(features, labels)}
    yield from _copies(draw)


def _copies(draw: Draw) -> Iterator[dict]:
    for fault, strength, judged in draw.copies():
        yield {"fault": fault, "strength": strength, **judged}


def draw_copies(images: Images, seed: int) -> list[dict]:
    """Planted copies of one draw, with their figures."""
    return list(_copies(Draw(images, seed)))


def lights_of(line: dict) -> dict[str, str]:
    """The lights that the figures of a set give."""
    judges = {
        "usefulness": judge_usefulness,
        "fidelity": judge_fidelity,
        "privacy": judge_privacy,
    }
    answers = [judge(line[name]) for name, judge in judges.items() if name in line]
    return {answer.question: answer.light for answer in answers}


def summary(lines: list[dict]) -> Iterator[dict]:
    """One line a question, fault and strength."""
    lights_of_faults: dict[tuple[str, str, float], Counter] = {}
    ratios: dict[tuple[str, float], list[float]] = {}
    for line in lines:
        fault = line["fault"], line["strength"]
        for question, light in lights_of(line).items():
            lights_of_faults.setdefault((question, *fault), Counter())[light] += 1
        if ratio := line.get("usefulness", {}).get("ratio"):
            ratios.setdefault(fault, []).append(ratio["value"])
    for (question, fault, strength), lights in lights_of_faults.items():
        line = {"question": question, "fault": fault, "strength": strength}
        line |= {
            light: lights[light] / lights.total() for light in ("green", "amber", "red", "grey")
        }
        line["draws"] = lights.total()
        if question == "useful":
            line["mean_ratio"] = round(float(np.mean(ratios[fault, strength])), 3)
        yield line


def main() -> None:
    parser: argparse.ArgumentParser = judged_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="judge OUT's figures by today's rules")
    parser.add_argument("--images", type=int, default=1000, help="of the set, at most")
    parser.add_argument("--copies", action="store_true", help="plant only copies")
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    names = ("draws-of-copies", "copies") if arguments.copies else ("draws", "rates")
    draws, rates = (arguments.out / f"{name}-{arguments.images}.jsonl" for name in names)
    if not arguments.again:
        write_lines(draws, measured(arguments))
    write_lines(rates, summary([json.loads(line) for line in draws.read_text().splitlines()]))
    print(rates.read_text())


def measured(arguments: argparse.Namespace) -> Iterator[dict]:
    """The figures of every fault of every draw."""
    config = load_config(arguments.config, arguments.set, arguments.data)
    run = RunFolder(arguments.out)
    pictures = {} if arguments.copies else PICTURES
    images = known_images(config, run, arguments.weights, arguments.images, pictures)
    figures = draw_copies if arguments.copies else draw_figures
    pool = Parallel(arguments.processes, batch_size=1, return_as="generator")
    jobs = (delayed(figures)(images, seed) for seed in range(arguments.draws))
    with progress_bar("Judging", arguments.draws, "draws") as advance:
        for of_draw in pool(jobs):
            yield from of_draw
            advance(1, "")


def write_lines(path: Path, lines: Iterable[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


if __name__ == "__main__":
    main()
