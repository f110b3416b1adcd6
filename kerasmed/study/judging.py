"""Whether any synthetic set, from any program, is useful, faithful and private."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from kerasmed.audit.appearance import AppearanceOfSets, appearance_of_sets
from kerasmed.audit.comparison import TrainedOn
from kerasmed.audit.config import AuditConfig
from kerasmed.audit.extractors import named_extractors, open_extractors
from kerasmed.audit.privacy import WITHOUT_GENERATOR, Privacy, measure_privacy
from kerasmed.audit.rules import Verdict
from kerasmed.audit.spaces import FeatureNetwork, features_of_sets, fidelity_in_spaces
from kerasmed.audit.usefulness import Usefulness, test_images_in, usefulness
from kerasmed.audit.verdicts import verdicts
from kerasmed.classify.config import ClassifierConfig
from kerasmed.data.config import DataConfig
from kerasmed.data.duplicates import find_duplicates
from kerasmed.data.find_images import find_images
from kerasmed.data.image_set import ImageSet, Roles
from kerasmed.data.measuring import measure_pixels
from kerasmed.data.readers import is_hidden, read_image
from kerasmed.data.reading import comparable_patients
from kerasmed.data.symmetry import check_symmetry
from kerasmed.errors import ConfigError, InputError
from kerasmed.files import write_json
from kerasmed.metrics.memorisation import comparison_pixels
from kerasmed.progress import say
from kerasmed.runtime.backend import load_keras
from kerasmed.settings import Section, describe_problems
from kerasmed.study.config import Config
from kerasmed.study.foreign_set import check_same_classes
from kerasmed.study.report.judged import render_judged
from kerasmed.text import counted

SectionType = TypeVar("SectionType", bound=Section)

# Settings of how a study mixes real and synthetic images.
_UNUSED = {
    *("train_on", "equal_steps", "synthetic_fraction", "synthetic_weight", "first_phase"),
    *("second_learning_rate", "second_finetune_fraction"),
}


class Verdicts:
    """The three answers about a synthetic set, and what they rest on.

    Attributes:
        answers: useful, faithful and private, in this order.
        results: the figures: ``usefulness``, ``fidelity``, ``appearance`` and ``privacy``, as the
            result files of these names have them.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> pixels = np.random.default_rng(0).integers(0, 256, (120, 16, 16, 3), np.uint8)
        >>> roles = km.ImageSet.from_arrays(pixels, ["a", "b"] * 60).split(train=0.3, test=0.2)
        >>> verdicts = km.judge(roles, roles.test, classifiers=[])
        >>> verdicts["private"].light, verdicts.to_dict()["verdicts"][0]["question"]
        ('red', 'useful')
        >>> verdicts.to_html("report.html")
    """

    def __init__(
        self, roles: Roles, synthetic: ImageSet, results: dict[str, Any], answers: list[Verdict]
    ):
        self.answers, self.results = answers, results
        self._roles, self._synthetic = roles, synthetic

    def __repr__(self) -> str:
        lights = ", ".join(f"{answer.question} {answer.light}" for answer in self.answers)
        return f"Verdicts({lights})"

    def __getitem__(self, question: str) -> Verdict:
        return next(answer for answer in self.answers if answer.question == question)

    def to_dict(self) -> dict[str, Any]:
        """The answers as ``verdicts``, and the figures by their names."""
        return {"verdicts": [asdict(answer) for answer in self.answers], **self.results}

    def to_html(self, path: str | Path) -> None:
        """Write one page with the answers, the figures, and pictures of both sets."""
        with TemporaryDirectory() as figures:
            render_judged(self._roles, self._synthetic, self.to_dict(), Path(figures), Path(path))

    def to_directory(self, path: str | Path) -> None:
        """Write ``report.html``, and the answers and figures as JSON into ``evaluation/``."""
        for name, content in self.to_dict().items():
            write_json(Path(path) / "evaluation" / f"{name}.json", content)
        self.to_html(Path(path) / "report.html")


def judge(
    roles: Roles,
    synthetic: ImageSet,
    classifiers: Sequence[str] = ("MobileNetV2",),
    seeds: int = 3,
    extractors: Sequence[str] | None = None,
    symmetry: str = "none",
    seed: int = 0,
    train_is_known: bool = True,
    **settings: Any,
) -> Verdicts:
    """Whether a synthetic set, from any program, is useful, faithful and private.

    CNNs learn from ``roles.train`` and from the synthetic images, for equally many steps, and are
    tested on ``roles.test``. Fidelity and copies are measured against ``roles.reserve``.

    Args:
        roles: real images. ``train`` are those that the generator learned from.
        synthetic: the synthetic set, of the same classes and size.
        classifiers: the CNNs, keys of ``BACKBONES``; with none, ``useful`` is not answered.
        seeds: trainings of each CNN on either set. One says nothing about the spread.
        extractors: networks whose features images are compared in, see ``audit.extractors``.
        symmetry: "none", "mirror" or "dihedral", see ``DiffusionModel``.
        seed: the first seed.
        train_is_known: False if the generator may have learned from other images than
            ``roles.train``. Useful and private are then amber at best.
        **settings: keys of ``ClassifierConfig``, such as ``weights`` and ``finetune_epochs``.

    Raises:
        InputError: images of another size, or a class in one of both only.
        ConfigError: a network or weights that do not exist.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> pixels = np.random.default_rng(0).integers(0, 256, (2, 120, 16, 16, 3), np.uint8)
        >>> real, synthetic = (km.ImageSet.from_arrays(x, ["a", "b"] * 60) for x in pixels)
        >>> roles = real.split(train=0.3, test=0.2)
        >>> km.judge(roles, synthetic, classifiers=[])
        Verdicts(useful grey, faithful grey, private grey)
    """
    check_symmetry(symmetry)
    _check_sets(roles, synthetic)
    if unused := sorted(_UNUSED & settings.keys()):
        raise InputError(f"judge trains on real or on synthetic images alone: drop {unused}.")
    config = _checked(ClassifierConfig, backbones=list(classifiers) or ["MobileNetV2"], **settings)
    groups = {name: _groups_of(real) for name, real in roles}
    compared = {name: groups[name] for name in ("reserve", "train")}
    useful, network = _usefulness(
        roles, synthetic, classifiers, seeds, symmetry, seed, config, groups["test"]
    )
    sets = {"reserve": roles.reserve, "train": roles.train, "synthetic": synthetic}
    features = {} if network is None else features_of_sets(network, sets)
    if not classifiers:
        config = config.model_copy(update={"weights": "none"})  # nothing that could be the default
    audit = AuditConfig()
    if extractors is not None:
        weights = config.weights if isinstance(config.weights, dict) else {}
        audit = _checked(
            AuditConfig,
            extractors=list(extractors),
            extractor_weights={k: v for k, v in weights.items() if v != "none"}
            or ("imagenet" if config.weights == "none" else config.weights),
        )
    named = named_extractors(audit, config)
    pixels = {name: comparison_pixels(of_set.images) for name, of_set in sets.items()}
    features_of = "no CNN" if network is None else f"{classifiers[0]}, trained on real images"
    with TemporaryDirectory() as folder:
        opened = open_extractors(named, np.asarray(roles.reserve.images), Path(folder))
        fidelity = {
            "features_of": features_of,
            **fidelity_in_spaces(sets, network, features, pixels, compared, opened, (), seed),
        }
    appearance: AppearanceOfSets = appearance_of_sets(sets, compared, seed)
    privacy: Privacy = measure_privacy(
        {**dict(roles), "synthetic": synthetic},
        groups,
        {
            "synthetic": [str(file.path) for file in synthetic.files],
            "train": [str(file.path) for file in roles.train.files],
        },
        (features_of, features),
        None,
        lambda: WITHOUT_GENERATOR,
        symmetry,
        seed,
    )
    results = {
        "usefulness": useful, "fidelity": fidelity, "appearance": appearance, "privacy": privacy,
    }  # fmt: skip
    answers = verdicts(useful, fidelity, privacy, assumed=not train_is_known)
    return Verdicts(roles, synthetic, results, answers)


def _checked(section: type[SectionType], **values: Any) -> SectionType:
    """A section of settings; ``InputError`` where they are not valid."""
    try:
        return section(**values)
    except ValidationError as error:
        raise InputError(f"judge: {describe_problems(error)}") from None


def _check_sets(roles: Roles, synthetic: ImageSet) -> None:
    real = roles.train
    if synthetic.image_size != real.image_size:
        raise InputError(
            f"Synthetic set: expected images of {real.image_size} pixels, as the real ones, "
            f"received {synthetic.image_size}; read both at the same size."
        )
    check_same_classes(real, synthetic)


def _groups_of(images: ImageSet) -> np.ndarray:
    return np.arange(len(images)) if images.groups is None else images.groups


def _usefulness(
    roles: Roles,
    synthetic: ImageSet,
    classifiers: Sequence[str],
    seeds: int,
    symmetry: str,
    seed: int,
    config: ClassifierConfig,
    groups: np.ndarray,
) -> tuple[Usefulness, FeatureNetwork | None]:
    """How useful the set is, and the first CNN that was trained on real images."""
    test = roles.test
    reason = test_images_in(synthetic, test)
    if reason is None and len(test.class_names) < 2:
        reason = "the images are of one class, so there is nothing to classify."
    elif reason is None and not classifiers:
        reason = "no CNN was asked for."
    first: FeatureNetwork | None = None
    correct: dict[TrainedOn, list[np.ndarray]] = {}
    for backbone in classifiers if reason is None else ():
        for number in range(seeds):
            for regime, images in (("real", roles.train), ("synthetic", synthetic)):
                say(f"Training {backbone} on {regime} images, seed {seed + number}.")
                model = _train(
                    backbone, images, roles, len(synthetic), symmetry, seed + number, config
                )
                is_right = model.predict(test).argmax(axis=1) == test.labels
                trained_on = TrainedOn(backbone, "real" if regime == "real" else "synthetic")
                correct.setdefault(trained_on, []).append(is_right.astype(float))
                first = model if first is None else first
    names = list(test.class_names)
    result = usefulness(correct, test.labels, names, groups)
    if reason is not None:
        result["not_computed"] = reason
    return result, first


def _train(
    backbone: str,
    images: ImageSet,
    roles: Roles,
    num_synthetic: int,
    symmetry: str,
    seed: int,
    config: ClassifierConfig,
) -> Any:
    """A CNN that was trained for as many steps as every other one."""
    load_keras()
    from kerasmed.classify.model import ImageClassifier

    settings = config.of_backbone(backbone)
    size, names = images.image_size, images.class_names
    model = ImageClassifier(backbone, size, names, settings, symmetry, seed)
    model.compile()
    model.fit(
        images,
        validation_data=roles.validation,
        verbose=0,
        steps_per_epoch=-(-(len(roles.train) + num_synthetic) // settings.batch_size),
    )
    return model


def judge_folders(real: Path, synthetic: Path, train: Path | None, config: Config) -> Verdicts:
    """``judge`` for images on disk: class folders, .csv or .npz, or a folder of unlabelled images.

    Args:
        real: real images.
        synthetic: the synthetic set.
        train: the images that the generator learned from; those of ``real`` that are among them,
            near-duplicates, or of the same patients, are left out. If None, ``real`` is split into
            all roles.
        config: of which the sections ``data``, ``split``, ``classifiers``, ``audit`` and the seed
            count.

    Raises:
        DataError: a folder that cannot be read.
        InputError: as for ``judge``.
    """
    paths = {"real": real, "synthetic": synthetic} | ({} if train is None else {"train": train})
    reference = "real" if train is None else "train"
    with comparable_patients():
        sets = {reference: _read(paths[reference], config.data)}
        shown = sets[reference].formats.get("grey_range")  # all sets are shown in this range
        data = config.data.model_copy(update={"grey_range": tuple(shown)} if shown else {})
        for name in paths.keys() - sets:
            allowed = {"synthetic": "allow"} if name == "synthetic" else {}
            sets[name] = _read(paths[name], data.model_copy(update=allowed))
    if any(_is_unlabelled(path) for path in paths.values()):
        say("Unlabelled images: all count as one class.")
        sets = {name: _without_labels(images) for name, images in sets.items()}
    for name, images in sets.items():
        say(f"{name}: {images}")
    known = sets.get("train")
    if known is None:
        roles = _split(sets["real"], config)
    else:
        others = _split(_not_among(sets["real"], known, config), config)
        # A tenth validates, by default, and the other roles are learned from.
        learned = _split(replace(known, official_test=None), config, train=0.9, test=0.05)
        roles = Roles(
            train=learned.train + learned.test + learned.reserve,
            validation=learned.validation,
            test=others.test,
            reserve=others.train + others.validation + others.reserve,
        )
    if unused := sorted(_UNUSED & config.classifiers.model_fields_set):
        raise ConfigError(
            "judge trains on real or on synthetic images alone: expected settings of the CNNs, "
            f"received classifiers.{', classifiers.'.join(unused)}; drop what has no effect."
        )
    settings = config.classifiers.model_dump(exclude={"backbones", "seeds", *_UNUSED})
    return judge(
        roles,
        sets["synthetic"],
        config.classifiers.backbones if len(roles.train.class_names) > 1 else (),
        config.classifiers.seeds,
        config.audit.extractors,
        config.data.symmetry,
        config.seed,
        train_is_known=known is not None,
        **settings,
    )


def _is_unlabelled(path: Path) -> bool:
    return path.is_dir() and not any(
        entry.is_dir() and not is_hidden(entry) for entry in path.iterdir()
    )


def _read(path: Path, data: DataConfig) -> ImageSet:
    if not _is_unlabelled(path):
        options = data.model_dump(
            exclude_defaults=True, exclude={"source", "phantoms", "image_size", "symmetry"}
        )
        return ImageSet.from_directory(path, data.image_size, **options)
    images = [read_image(file, data.image_size, data) for file in find_images([str(path)], ())]
    return ImageSet.from_arrays(np.stack(images), np.zeros(len(images), int), ["all"])


def _without_labels(images: ImageSet) -> ImageSet:
    files = tuple(replace(file, class_name="all") for file in images.files)
    labels = np.zeros_like(images.labels)
    return replace(images, labels=labels, class_names=("all",), files=files)


def _split(images: ImageSet, config: Config, **fractions: float) -> Roles:
    settings = config.split.model_dump(exclude_unset=True)
    return images.split(seed=config.seed, **{**settings, **fractions})


def _not_among(images: ImageSet, known: ImageSet, config: Config) -> ImageSet:
    """The images without those that are among known ones, near-duplicates, or of their patients."""
    together = measure_pixels(
        np.concatenate([known.images, images.images]), known.files + images.files
    )
    pairs = find_duplicates(together, config.split.near_duplicate_bits).pairs
    is_known = np.zeros(len(together.bits), bool)
    is_known[: len(known)] = True
    linked = pairs[is_known[pairs].any(axis=1)]
    leave_out = np.zeros(len(images), bool)
    leave_out[linked[linked >= len(known)] - len(known)] = True
    patients = {file.patient for file in known.files} - {None}
    if config.split.patient != "ignore":
        leave_out |= [file.patient in patients for file in images.files]
    if leave_out.all():
        raise InputError(
            "Real images: expected some that the generator did not learn from, received none: all "
            "are among them, near-duplicates, or of the same patients; add others, or set "
            "split.patient=ignore if the names of patients are placeholders."
        )
    if leave_out.any():
        say(
            f"Left out of the real images: {counted(int(leave_out.sum()), 'image')} that the "
            "generator learned from, near-duplicates, or of the same patients."
        )
    return images[~leave_out]
