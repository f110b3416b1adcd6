"""Which draws a synthetic set keeps, and the notes on those that it leaves out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NotRequired

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.confirmation import Confirmation
from kerasmed.audit.extractors import Extractor, named_extractors, open_extractors
from kerasmed.audit.spaces import FeatureNetwork
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


@dataclass(frozen=True)
class Confirmed:
    """Says which images classifiers doubt that learned from real images."""

    network: FeatureNetwork
    confirmation: Confirmation
    probability: float

    def doubts(self, images: np.ndarray, labels: np.ndarray) -> list[float | None]:
        """The probability of each image's class if that is too low, otherwise None."""
        of_class = self.confirmation.probabilities(self.network.features(images))
        given = of_class[np.arange(len(labels)), labels]
        return [float(p) if p < self.probability else None for p in given]


def open_confirmed(
    config: Config, settings: SamplingConfig, train: ImageSet, groups: np.ndarray, run: RunFolder
) -> Confirmed | None:
    """The classifiers that confirm draws; None if all are kept.

    Args:
        config: the study's settings.
        settings: those of the synthetic set.
        train: the training images.
        groups: their groups, (n,).
        run: the study's run folder.

    Raises:
        InputError: a class has fewer than five groups of training images.
    """
    extractor = _extractor(config, settings)
    if extractor is None:
        return None
    images = np.asarray(train.images)
    ((_, network),) = open_extractors([extractor], images, run.cache / "extractors")
    features = network.features(images)
    confirmation = Confirmation(features, train.labels, groups, len(train.class_names))
    return Confirmed(network, confirmation, settings.keep_probability)


def mark_of_extractor(config: Config, settings: SamplingConfig) -> dict[str, str]:
    """What identifies the network whose features are compared; nothing if all draws are kept."""
    extractor = _extractor(config, settings)
    if extractor is None:
        return {}
    file = Path(extractor.weights or extractor.network)
    return {"extractor": sha256_of(file) if file.is_file() else str(file)}


def _extractor(config: Config, settings: SamplingConfig) -> Extractor | None:
    if settings.keep == "all":
        return None
    return named_extractors(config.audit, config.classifiers)[0]
