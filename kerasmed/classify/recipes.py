"""Which images a CNN learns from, and when."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kerasmed.classify.config import ClassifierConfig, Regime
from kerasmed.data.image_set import ImageSet


@dataclass(frozen=True)
class Phase:
    """A part of a training, with images of its own.

    Attributes:
        images: what is learned from.
        settings: the recipe; ``finetune_epochs`` are those of this phase.
        synthetic: images that are shown among them.
    """

    images: ImageSet
    settings: ClassifierConfig
    synthetic: ImageSet | None = None

    def sets(self) -> list[ImageSet]:
        """All images of the phase."""
        return [self.images] if self.synthetic is None else [self.images, self.synthetic]


def phases_of(
    regime: Regime, settings: ClassifierConfig, sets: Mapping[str, ImageSet]
) -> list[Phase]:
    """The phases of a regime, whose epochs together are those of the settings.

    Args:
        regime: what a CNN is trained on.
        settings: the recipe.
        sets: ``train``; and ``synthetic`` or ``reserve`` if the regime learns from it.
    """
    real = sets["train"]
    if regime == "both":
        return [Phase(real, settings, sets["synthetic"])]
    if regime in ("pretrained", "real_twice"):
        epochs = settings.finetune_epochs
        first = min(max(1, round(settings.first_phase * epochs)), epochs - 1)
        rate, fraction = settings.second_learning_rate, settings.second_finetune_fraction
        second = {
            "finetune_epochs": epochs - first,
            "finetune_learning_rate": rate or settings.finetune_learning_rate,
            "finetune_fraction": fraction or settings.finetune_fraction,
        }
        return [
            Phase(
                real if regime == "real_twice" else sets["synthetic"],
                settings.model_copy(update={"finetune_epochs": first}),
            ),
            Phase(real, settings.model_copy(update=second)),
        ]
    if regime == "real_all":
        return [Phase(real + sets["reserve"], settings)]
    return [Phase(sets["synthetic"] if regime == "synthetic" else real, settings)]


def recipes_of(phases: list[Phase]) -> dict[str, list[Phase]]:
    """The recipes of `real_best`: what may help without a synthetic image, each with its name.

    Args:
        phases: the recipe as it is set, of one phase.
    """
    (plain,) = phases
    settings, epochs = plain.settings, plain.settings.finetune_epochs
    changes: dict[str, dict[str, Any]] = {
        "as set": {},
        "mixup": {"mixing": "mixup"},
        "cutmix": {"mixing": "cutmix"},
        "half of the epochs": {"finetune_epochs": epochs // 2},
        "twice the epochs": {"finetune_epochs": 2 * epochs},
    }
    recipes = {
        name: [replace(plain, settings=settings.model_copy(update=change))]
        for name, change in changes.items()
    }
    return {**recipes, "two phases": phases_of("real_twice", settings, {"train": plain.images})}
