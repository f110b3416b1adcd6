"""Settings of the CNNs."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from kerasmed.settings import Count, Fraction, Rate, Section

Regime = Literal[
    "real", "real_twice", "real_best", "synthetic", "both", "pretrained", "best", "real_all"
]  # fmt: skip

_TWO_PHASES: tuple[Regime, ...] = ("pretrained", "real_twice", "real_best")

# Those that learn from a synthetic set.
SYNTHETIC_REGIMES: tuple[Regime, ...] = ("synthetic", "both", "pretrained")

# What `best` chooses from, besides these: those that learn from the role `train` alone.
PLAIN_REGIMES: tuple[Regime, ...] = ("real", "real_twice", "real_best")

Strength = Literal["none", "light", "medium", "strong"]

Mixing = Literal["none", "mixup", "cutmix"]

InputSize = Annotated[int, Field(ge=32)]

Epochs = Annotated[int, Field(ge=0)]

PositiveFraction = Annotated[float, Field(gt=0, le=1)]

Dropout = Annotated[float, Field(ge=0, lt=1)]


class BackboneConfig(Section):
    """Settings of one backbone; null keeps the section's own value."""

    input_size: InputSize | None = None
    batch_size: Count | None = None
    finetune_epochs: Epochs | None = None
    patience: Count | None = None
    finetune_learning_rate: Rate | None = None
    finetune_fraction: PositiveFraction | None = None
    dropout: Dropout | None = None


class ClassifierConfig(Section):
    """The CNNs: which backbones, trained on what, and how."""

    backbones: Annotated[list[str], Field(min_length=1)] = ["MobileNetV2"]
    """Networks of Keras Applications, without their top."""
    train_on: Annotated[list[Regime], Field(min_length=1)] = ["real", "synthetic", "both", "best"]
    """Regimes: what CNNs learn from."""
    seeds: Count = 1
    """Trainings of each CNN, each with its own seed."""
    weights: str | dict[str, str] = "imagenet"
    """"imagenet", "none" or a path, for all backbones or one for each."""
    input_size: InputSize | None = None
    """Height and width to which images are enlarged; the backbone's own if null."""
    batch_size: Count = 16
    """Images per step."""
    finetune_epochs: Epochs = 10
    """Epochs of the training after the head."""
    patience: Count = 5
    """Epochs without a lower validation loss after which the second half of a training ends."""
    equal_steps: bool = True
    """An epoch shows as many images as `train` and the main synthetic set have together, so all
    CNNs of a study train for the same number of steps, whatever is added to it. If false, an epoch
    shows the CNN's own set once, and a larger set also means longer training."""
    head_inverse_regularisation: Rate = 0.01
    """C, as scikit-learn has it, of the logistic regression on frozen features, with which the
    training of a pretrained network starts."""
    finetune_learning_rate: Rate = 1e-4
    """Highest learning rate; it warms up and falls along a cosine."""
    dropout: Dropout = 0.0
    """Fraction of the pooled features that are dropped before the last layer."""
    synthetic_fraction: Fraction | None = 0.25
    """Of `both`: how much of each batch is synthetic. A quarter did the least harm where synthetic
    images do not help. If null, each image is shown as often as any other."""
    synthetic_weight: Rate = 1.0
    """What a synthetic image weighs in the loss; a real one weighs 1."""
    first_phase: Fraction = 0.5
    """Fraction of the steps of the first phase. `pretrained` learns from synthetic images in it and
    then from real ones, and `real_twice`, its control, from real ones both times."""
    second_learning_rate: Rate | None = None
    """Highest learning rate of the second phase; `finetune_learning_rate` if null."""
    second_finetune_fraction: PositiveFraction | None = None
    """Fraction of the layers that the second phase trains; `finetune_fraction` if null."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability mass that is spread over all classes."""
    class_weights: bool = True
    """Whether rarer classes weigh more in the loss."""
    augment: Strength = "medium"
    """Colours, small turns, zooms and shifts; flips and quarter turns come from data.symmetry."""
    mixing: Mixing = "none"
    """MixUp or CutMix of the images of a batch."""
    finetune_fraction: PositiveFraction = 1.0
    """Fraction of the backbone's layers, counted from its output, that is trained after the
    head."""
    by_backbone: dict[str, BackboneConfig] = {}
    """Settings that differ for some backbones, such as {ResNet50: {input_size: 64}}."""

    def of_backbone(self, backbone: str) -> "ClassifierConfig":
        """The settings for one backbone only, with its own values applied."""
        changes = self.by_backbone.get(backbone, BackboneConfig()).model_dump(exclude_none=True)
        weights = self.weights
        if isinstance(weights, dict) and backbone in weights:
            weights = weights[backbone]
        changes |= {"backbones": [backbone], "weights": weights, "by_backbone": {}}
        return self.model_copy(update=changes)

    def pretrained(self) -> list[str]:
        """The backbones that have pretrained weights."""
        return [name for name in self.backbones if self.of_backbone(name).weights != "none"]

    @field_validator("backbones", "train_on")
    @classmethod
    def once_each(cls, values: list[str]) -> list[str]:
        """Refuse a backbone or a regime that is named twice."""
        if len(set(values)) < len(values):
            raise ValueError(f"expected each once, received {values}; remove the repetitions")
        return values

    @model_validator(mode="after")
    def best_has_a_choice(self) -> "ClassifierConfig":
        """Refuse `best` where there is nothing to choose from."""
        kinds = (PLAIN_REGIMES, SYNTHETIC_REGIMES)
        if "best" in self.train_on and any(set(kind).isdisjoint(self.train_on) for kind in kinds):
            raise ValueError(
                "best chooses among the other regimes of train_on: expected one of "
                f"{', '.join(PLAIN_REGIMES)} and one of {', '.join(SYNTHETIC_REGIMES)}, received "
                f"{', '.join(self.train_on)}; add what is missing, or remove best"
            )
        return self

    @model_validator(mode="after")
    def two_phases_have_an_epoch_each(self) -> "ClassifierConfig":
        """Refuse two phases in a training of one epoch."""
        phased = [name for name in self.train_on if name in _TWO_PHASES]
        for backbone in self.backbones if phased else ():
            epochs = self.by_backbone.get(backbone, BackboneConfig()).finetune_epochs
            if (self.finetune_epochs if epochs is None else epochs) < 2:
                raise ValueError(
                    f"{' and '.join(phased)} need two epochs or more, one a phase: set "
                    "classifiers.finetune_epochs to 2, or remove them from classifiers.train_on"
                )
        return self

    @model_validator(mode="after")
    def some_training(self) -> "ClassifierConfig":
        """Refuse settings with which a network, or some of its layers, would learn nothing."""
        for backbone in self.backbones:
            self.of_backbone(backbone)._check_some_training()
        return self

    def _check_some_training(self) -> None:
        if self.weights != "none":
            return
        if not self.finetune_epochs:
            raise ValueError(
                "no training is left: classifiers.finetune_epochs is 0, and without weights there "
                "is no head to fit; raise it"
            )
        if self.finetune_fraction < 1:
            raise ValueError(
                "classifiers.finetune_fraction below 1 would leave the lower layers of a network "
                "without pretrained weights untrained; set it to 1 or give weights"
            )
