"""The stage that measures what the synthetic set is worth in real images."""

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.worth import WorthAnswer, worth_of
from kerasmed.classify.config import SYNTHETIC_REGIMES, Regime
from kerasmed.classify.recipes import Phase
from kerasmed.data.image_set import ImageSet
from kerasmed.data.splits import Split
from kerasmed.errors import ConfigError
from kerasmed.files import read_json, write_json
from kerasmed.fingerprint import Fingerprint, FingerprintRecord
from kerasmed.metrics.sample_size import require_groups
from kerasmed.parallel.resolve import resolve_runtime
from kerasmed.progress import say
from kerasmed.random_streams import Purpose, random_stream
from kerasmed.result_types import NotNegative, Whole
from kerasmed.settings import Count
from kerasmed.study.best_classifiers import chosen_spec
from kerasmed.study.classifier_specs import ClassifierSpec, classifier_specs, training_record
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_grouped_split
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stages.classifiers import (
    fingerprint_of,
    images_per_epoch_of,
    version_of_weights,
)
from kerasmed.text import counted

_LEAST = 5  # images of each class, the shortest end of the curve
_NEAR = 0.85  # a number that is at least so much of another one is left out
_MADE_BY = "kerasmed worth CONFIG"
_TRAINED_BY = "kerasmed train classifier CONFIG"

Use = tuple[Regime, str | None]  # regime, and name of the synthetic set


class CurveRecord(TypedDict):
    """What a CNN of the learning curve names the test images (``worth/*.json``)."""

    fingerprint: FingerprintRecord
    """What it was trained with."""
    images: dict[str, Whole]
    """Number of real images of each class that it learned from."""
    predicted: list[Whole]
    """Number of the class that it names each test image, in the order of the split."""
    minutes: NotNegative
    """Duration of its training."""


class WorthResult(TypedDict):
    """What ``run.json`` records of the worth."""

    answer: WorthAnswer
    """Whether there is a number."""
    trainings: Count
    """Number of CNNs that were trained for the curve."""


@dataclass(frozen=True)
class _Point:
    """A CNN of the curve: how many real images of each class it is to learn from, and its draw."""

    backbone: str
    wanted: tuple[int, ...]
    draw: int

    @property
    def name(self) -> str:
        return f"{self.backbone}-{sum(self.wanted)}-d{self.draw}"

    def record(self, run: RunFolder) -> Path:
        return run.worth / f"{self.name}.json"


def check_worth(config: Config) -> None:
    """Refuse a study whose set cannot be valued.

    Raises:
        ConfigError: no CNN learns from real images alone, or none from the set in this way; or
            trainings are of different lengths, or divided among workers.
    """
    if not config.classifiers.equal_steps:
        raise ConfigError(
            "worth compares trainings of equal length: expected classifiers.equal_steps: true, "
            "received false; train the CNNs with it in another run folder."
        )
    if config.runtime.distribution == "multi_worker":
        raise ConfigError(
            "worth trains each CNN in one process: expected runtime.distribution none or mirrored, "
            "received multi_worker; run `kerasmed worth CONFIG --set runtime.distribution=none`, "
            "and set worth.in_study: false for the workers."
        )
    regimes, asked = config.classifiers.train_on, config.worth.regime
    uses = [regime for regime in regimes if regime in SYNTHETIC_REGIMES]
    if "real" not in regimes or not uses or asked not in (None, *uses):
        raise ConfigError(
            f"worth: expected real and {asked or 'both'} in classifiers.train_on, received "
            f"{', '.join(regimes)}; add what is missing, and a finished study trains only that."
        )


def measure_worth(config: Config, run: RunFolder) -> WorthResult:
    """Train the CNNs of the learning curve that are missing, and value the synthetic set."""
    worth_shard(config, run)
    image_set, split, groups = load_grouped_split(config, run)
    labels = image_set.labels[split["test"]]
    of_uses = _right(config, run)
    train = len(split["train"])
    curve = {train: of_uses.pop(("real", None))}
    points = _points(config, image_set, split)
    sizes: dict[int, list[tuple[int, np.ndarray]]] = {}
    for point in points:
        record: CurveRecord = read_json(point.record(run), _MADE_BY)
        right = (np.array(record["predicted"]) == labels).astype(float)
        sizes.setdefault(sum(point.wanted), []).append((sum(record["images"].values()), right))
    for of_draws in sizes.values():
        # Whole groups seldom add up to the wanted number.
        images = round(float(np.mean([count for count, _ in of_draws])))
        curve[images] = np.array([*curve.get(images, []), *(right for _, right in of_draws)])
    use = _valued_use(config, run)
    worth = worth_of(
        curve,
        train,
        of_uses[use],
        groups[split["test"]],
        config.seed,
        (config.classifiers.backbones[0], *use),
    )
    write_json(run.evaluation / "worth.json", worth)
    return {"answer": worth["answer"], "trainings": len(points)}


def worth_shard(config: Config, run: RunFolder, index: int = 1, shards: int = 1) -> int:
    """Train every ``shards``-th CNN of the curve from the ``index``-th on that is missing.

    Returns:
        How many CNNs of the curve are still missing.

    Raises:
        ConfigError: as for ``check_worth``.
        InputError: the test images are of fewer than five groups.
    """
    check_worth(config)
    runtime = resolve_runtime(config.runtime, cpu_bfloat16=False)
    from kerasmed.classify.training import train_classifier

    backbone = config.classifiers.backbones[0]
    settings, weights = (
        config.classifiers.of_backbone(backbone),
        version_of_weights(config, backbone),
    )
    image_set, split, groups = load_grouped_split(config, run)
    require_groups("Worth", {"test images": len(np.unique(groups[split["test"]]))})
    validation, test = (image_set.subset(split[role]) for role in ("validation", "test"))
    images_per_epoch = images_per_epoch_of(config, image_set.counts(split["train"]))

    def drawn(point: _Point) -> np.ndarray:
        return _drawn(point, config.seed, image_set, split, groups)

    missing, mine = 0, []
    for number, point in enumerate(_points(config, image_set, split)):
        phases = [Phase(image_set.subset(drawn(point)), settings)]
        trained = fingerprint_of(config, backbone, weights, phases, validation, images_per_epoch)
        made_from = Fingerprint(
            {**trained.settings, "backbone": backbone, "seed": config.seed},
            {**trained.inputs, "test images": test.data_hash},
        )
        if _is_made(point, run, made_from):
            continue
        if number % shards == index - 1:
            mine.append((point, made_from))
        else:
            missing += 1
    _say_duration(len(mine), config, run)
    for done, (point, made_from) in enumerate(mine, 1):
        images = image_set.subset(drawn(point))
        say(f"learning curve, {done} of {len(mine)}: {counted(len(images), 'real image')}")
        trial = run.worth / f".{point.name}"
        model, result = train_classifier(
            backbone, [Phase(images, settings)], validation, config.data.symmetry,
            config.seed + point.draw, runtime, trial, images_per_epoch,
        )  # fmt: skip
        shutil.rmtree(trial)
        record: CurveRecord = {
            "fingerprint": made_from.as_record(),
            "images": images.counts(),
            "predicted": model.predict(test).argmax(axis=1).tolist(),
            "minutes": result["minutes"],
        }
        write_json(point.record(run), record)
    return missing


def _say_duration(count: int, config: Config, run: RunFolder) -> None:
    """What the CNNs of the curve will take, before the first of them."""
    real = next(spec for spec in classifier_specs(config) if spec.trained_on == "real")
    minutes = read_json(training_record(real, run), _TRAINED_BY)["result"]["minutes"]
    if count:
        say(
            f"learning curve: {counted(count, 'CNN')} to train, each about as long as {real.name}: "
            f"about {max(1, round(minutes * count)):,} minutes in all"
        )


def _is_made(point: _Point, run: RunFolder, made_from: Fingerprint) -> bool:
    path = point.record(run)
    return path.exists() and made_from.matches(read_json(path, _MADE_BY).get("fingerprint"))


def _points(config: Config, image_set: ImageSet, split: Split) -> list[_Point]:
    """The CNNs to train; those that learn from all of `train` are the study's own."""
    count = len(image_set.class_names)
    train, reserve = (
        np.bincount(image_set.labels[split[role]], minlength=count) for role in ("train", "reserve")
    )
    everything = train + reserve
    sizes = [np.minimum(_LEAST, train)]
    for times in sorted(config.worth.times_train):
        wanted = np.rint(times * train).astype(int)
        sizes.append(np.clip(wanted, np.minimum(_LEAST, train), everything))
    kept: list[np.ndarray] = []
    for wanted in sizes:
        others = [train.sum(), everything.sum(), *(of_kept.sum() for of_kept in kept)]
        if all(_ratio(int(wanted.sum()), int(other)) < _NEAR for other in others):
            kept.append(wanted)
    if len(split["reserve"]):
        kept.append(everything)
    return [
        _Point(config.classifiers.backbones[0], tuple(wanted.tolist()), draw)
        for wanted in kept
        for draw in range(config.worth.draws)
    ]


def _ratio(first: int, second: int) -> float:
    return min(first, second) / max(first, second)


def _drawn(
    point: _Point, seed: int, image_set: ImageSet, split: Split, groups: np.ndarray
) -> np.ndarray:
    """Positions of the images of a point: whole groups, and all of `train` before any other."""
    labels, wanted = image_set.labels, np.array(point.wanted)
    in_train = np.bincount(labels[split["train"]], minlength=len(wanted))
    is_longer = wanted.sum() > in_train.sum()
    kept = [split["train"]] if is_longer else []
    pool = split["reserve" if is_longer else "train"]
    taken = in_train if is_longer else np.zeros_like(wanted)
    names, group_of = np.unique(groups[pool], return_inverse=True)
    keys = sum(point.wanted), point.draw
    for group in random_stream(seed, Purpose.CURVE_GROUPS, *keys).permutation(len(names)):
        rows = pool[group_of == group]
        counts = np.bincount(labels[rows], minlength=len(wanted))
        most = counts.argmax()
        brings_a_class = ((counts > 0) & (taken == 0)).any()
        if brings_a_class or taken[most] + counts[most] / 2 <= wanted[most]:
            taken = taken + counts
            kept.append(rows)
    return np.sort(np.concatenate(kept))


def _right(config: Config, run: RunFolder) -> dict[Use, np.ndarray]:
    """By use, float (seeds, n): 1 where the first backbone's CNNs are right about a test image."""
    with (run.evaluation / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    right: dict[Use, list[np.ndarray]] = {}
    for spec in _of_first_backbone(config):
        is_right = np.array([row[spec.name] == row["class"] for row in rows], float)
        right.setdefault((spec.trained_on, spec.variant), []).append(is_right)
    return {use: np.array(of_seeds) for use, of_seeds in right.items()}


def _valued_use(config: Config, run: RunFolder) -> Use:
    """The use of the synthetic set that is valued; see ``worth.regime``."""
    asked = config.worth.regime
    losses: dict[Use, list[float]] = {}
    for spec in _of_first_backbone(config):
        chosen = chosen_spec(spec, run)
        if asked is None and spec.trained_on == "best" and chosen.trained_on in SYNTHETIC_REGIMES:
            return chosen.trained_on, chosen.variant
        if spec.trained_on in ([asked] if asked else SYNTHETIC_REGIMES):
            loss = read_json(training_record(spec, run), _TRAINED_BY)["result"]["validation_loss"]
            losses.setdefault((spec.trained_on, spec.variant), []).append(loss)
    return min(losses, key=lambda use: float(np.mean(losses[use])))


def _of_first_backbone(config: Config) -> list[ClassifierSpec]:
    backbone = config.classifiers.backbones[0]
    return [spec for spec in classifier_specs(config) if spec.backbone == backbone]
