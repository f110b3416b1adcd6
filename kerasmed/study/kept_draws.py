"""Which draws a synthetic set keeps, and the notes on those that it leaves out."""

from pathlib import Path
from typing import Final, Literal, NotRequired

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.confirmation import Confirmation
from kerasmed.audit.covering import covering
from kerasmed.audit.extractors import Extractor, named_extractors, open_extractors
from kerasmed.data.image_set import ImageSet
from kerasmed.diffusion.config import SamplingConfig
from kerasmed.files import sha256_of
from kerasmed.metrics.copies import Copy
from kerasmed.result_types import Whole
from kerasmed.study.config import Config
from kerasmed.study.run_folder import RunFolder

A_COPY: Final = "a copy of a training image"
UNCONFIRMED: Final = "not confirmed"
RejectedFor = Literal["a copy of a training image", "not confirmed"]


class Rejected(TypedDict):
    """A drawn image that was left out, and what decided."""

    image: str
    """Path, in the set, of the image that was drawn instead."""
    attempt: Whole
    """Number of the draw, from 0 on."""
    reason: RejectedFor
    """Why it was left out."""
    training_image: NotRequired[str]
    """Name of the training image that it copies."""
    similarity: NotRequired[float]
    """Their similarity."""
    threshold: NotRequired[float]
    """The similarity above which an image counts as a copy."""
    probability: NotRequired[float]
    """That of the class it was drawn for, by classifiers that learned from real images."""


def rejected(image: str, attempt: int, why: Copy | float, training: list[str]) -> Rejected:
    """The note on a draw that was left out.

    Args:
        image: path of the image in the set.
        attempt: number of the draw.
        why: the copy that it is; or the probability of its class, which is too low.
        training: names of the training images.
    """
    if isinstance(why, float):
        return {"image": image, "attempt": attempt, "reason": UNCONFIRMED, "probability": why}
    return {
        "image": image,
        "attempt": attempt,
        "reason": A_COPY,
        "training_image": training[why.position],
        "similarity": why.similarity,
        "threshold": why.threshold,
    }


def compares_draws(settings: SamplingConfig) -> bool:
    """Whether a set is drawn by comparing draws with real images."""
    return settings.keep != "all" or settings.guidance_scale == "auto"


class RealImages:
    """The training images, which draws are compared with in the features of a frozen network.

    Args:
        config: the study's settings.
        settings: those of the synthetic set, which ``compares_draws``.
        train: the training images.
        groups: their groups, (n,).
        run: the study's run folder.

    Raises:
        InputError: classifiers are asked for, and a class has fewer than five groups.
    """

    def __init__(
        self,
        config: Config,
        settings: SamplingConfig,
        train: ImageSet,
        groups: np.ndarray,
        run: RunFolder,
    ):
        self._labels, self._seed = train.labels, config.seed
        self._least = settings.keep_probability
        images, folder = np.asarray(train.images), run.cache / "extractors"
        ((_, self._network),) = open_extractors([_extractor(config)], images, folder)
        self._features = self._network.features(images)
        if settings.keep in ("confirmed", "soft") or settings.guidance_scale == "auto":
            classes = len(train.class_names)
            self._confirmation = Confirmation(self._features, train.labels, groups, classes)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Probability of each class by classifiers of training images: (n, classes)."""
        return self._confirmation.probabilities(self._network.features(images))

    def doubts(self, images: np.ndarray, labels: np.ndarray) -> list[float | None]:
        """The probability of each image's class if that is too low, otherwise None."""
        given = self.probabilities(images)[np.arange(len(labels)), labels]
        return [float(p) if p < self._least else None for p in given]

    def named_as_labelled(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Fraction of drawn images that the classifiers name as the class they are drawn for."""
        return float((self.probabilities(images).argmax(axis=1) == labels).mean())

    @property
    def sensitivity(self) -> float:
        """How often the classifiers name a training image rightly that they did not learn from."""
        return self._confirmation.sensitivity

    def covered_by(self, drawn: ImageSet, per_class: int) -> np.ndarray:
        """Positions of the images, so many of each class, that cover the training images."""
        features = self._network.features(drawn.images)
        kept = []
        for label in np.unique(drawn.labels):
            of_class = np.flatnonzero(drawn.labels == label)
            training = self._features[self._labels == label]
            kept.append(of_class[covering(training, features[of_class], per_class, self._seed)])
        return np.concatenate(kept)


def mark_of_extractor(config: Config, settings: SamplingConfig) -> dict[str, str]:
    """What identifies the network whose features are compared; nothing if all draws are kept."""
    if not compares_draws(settings):
        return {}
    network, weights = _extractor(config)
    file = Path(weights or network)
    mark = sha256_of(file) if file.is_file() else str(file)
    return {"extractor": mark if weights is None else f"{network} {mark}"}


def _extractor(config: Config) -> Extractor:
    return named_extractors(config.audit, config.classifiers)[0]
