"""Settings of the denoiser, its training and the sampling."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import (
    Field,
    model_validator,
)

from kerasmed.diffusion.presets import PRESETS
from kerasmed.diffusion.solvers import DEFAULT_STEPS, sampling_timesteps
from kerasmed.settings import NAME, Count, Fraction, Rate, Section, UnitInterval

Solver = Literal["ddpm", "ddim", "dpmpp_2m", "unipc"]

SolverSteps = Annotated[int, Field(ge=1, le=1000)]

Keep = Literal["all", "confirmed", "soft", "coverage"]

Candidates = Annotated[int, Field(ge=2)]

Start = Literal["noise", "real"]

# At 0 the class would have no effect.
Guidance = Annotated[float, Field(gt=0)] | Literal["auto"]

# How many times wider the upscaler makes an image.
FACTOR = 4


class TrainingConfig(Section):
    """What the denoiser and the upscaler have in common: a U-Net, and how it is trained."""

    # The name of the section in the experiment file, for messages.
    SECTION: ClassVar[str]
    # Heads of the self-attention at the lowest level; 0 for a network of convolutions only.
    ATTENTION_HEADS: ClassVar[int] = 0
    # The first of these limits that is reached ends the training.
    BUDGET: ClassVar[set[str]] = {"max_minutes", "max_images", "max_epochs", "patience"}

    widths: Annotated[list[Count], Field(min_length=1)]
    """Channels of each level; each further level halves height and width."""
    blocks: Count = 1
    """Residual blocks of each level."""
    patch_size: Literal[1, 2, 4, 8]
    """Pixels that the first convolution takes together, along each side."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout within the residual blocks."""
    min_snr_gamma: Rate = 5.0
    """Largest weight of a noise level in the loss (Min-SNR, arXiv:2303.09556)."""
    min_snr_floor: Annotated[float, Field(ge=0)] = 0.05
    """Least weight of a noise level in the loss."""
    batch_size: Count = 16
    """Images per step."""
    learning_rate: Rate = 1e-3
    """Learning rate after the warm-up."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon for the kernels of 3x3 convolutions and AdamW for all else, or AdamW for all."""
    warmup_steps: Count = 200
    """Steps over which the learning rate rises."""
    cooldown: UnitInterval = 0.0
    """Fraction of the budget, at its end, over which the learning rate falls to nearly 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    clip_norm: Rate = 1.0
    """Greatest norm of the gradient."""
    ema_decay: Fraction = 0.9995
    """Decay of the average of the weights that draws images."""
    max_minutes: Rate | None = 60.0
    """Minutes of training. The first limit that is reached ends it."""
    max_images: Count | None = None
    """Images shown in total."""
    max_epochs: Count | None = None
    """Times that each image is shown."""
    checkpoint_steps: Count = 200
    """Steps between two checkpoints, each with its validation loss; previews count checkpoints."""
    preview_every: Count = 10
    """Checkpoints between two previews."""
    patience: Count = 50
    """Checkpoints without a lower validation loss after which the training ends."""

    @model_validator(mode="after")
    def floor_is_below_gamma(self) -> Self:
        """Refuse weights of the loss whose least exceeds the largest."""
        if self.min_snr_floor > self.min_snr_gamma:
            raise ValueError(
                f"{self.SECTION}.min_snr_floor must not exceed {self.SECTION}.min_snr_gamma; "
                f"received {self.min_snr_floor} and {self.min_snr_gamma}"
            )
        return self

    @model_validator(mode="after")
    def training_ends(self) -> Self:
        """Refuse a training without an end."""
        if self.max_minutes is None and self.max_images is None and self.max_epochs is None:
            raise ValueError(
                f"give one of {self.SECTION}.max_minutes, {self.SECTION}.max_images and "
                f"{self.SECTION}.max_epochs"
            )
        return self

    @property
    def stride(self) -> int:
        """Pixels of an image in each direction that make one position of the lowest level."""
        return self.patch_size * 2 ** (len(self.widths) - 1)

    def check_image_size(self, image_size: int, named: str = "data.image_size") -> None:
        """Refuse images that the levels of the network cannot halve.

        Args:
            image_size: height and width of the images.
            named: what a message calls them.

        Raises:
            ValueError: naming the sizes that fit.
        """
        # With a single pixel on the lowest level, tf2onnx 1.17 writes a graph that does not run.
        if image_size % self.stride or image_size < 2 * self.stride:
            raise ValueError(
                f"{named} must be a multiple of {self.stride} "
                f"({self.SECTION}.patch_size * 2 ** (len({self.SECTION}.widths) - 1)), "
                f"{2 * self.stride} or more; received {image_size}; change one of the three"
            )

    def budget(self) -> str:
        """The limits as a phrase."""
        limits = (
            (self.max_minutes, "minutes"),
            (self.max_images, "images"),
            (self.max_epochs, "epochs"),
        )
        return " or ".join(f"{limit:,.12g} {unit}" for limit, unit in limits if limit is not None)


class DiffusionConfig(TrainingConfig):
    """The denoiser and its training."""

    SECTION: ClassVar[str] = "diffusion"
    ATTENTION_HEADS: ClassVar[int] = 4

    preset: Literal["cpu", "small", "base", "large"] = "cpu"
    """Size of the network; it sets the options of this section that the file omits."""
    widths: Annotated[list[Count], Field(min_length=1)] = [32, 64, 128, 192]
    """Channels of each level; each further level halves height and width."""
    patch_size: Literal[1, 2, 4, 8] = 2
    """Pixels that the first convolution takes together, along each side."""
    predict: Literal["x0", "v"] = "x0"
    """What the network predicts: the clean image, or v (arXiv:2202.00512)."""
    augment: UnitInterval = 0.0
    """Probability of scaling, rotating and shifting an image, each. The network receives what was
    done, and draws images without any of it."""
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Probability that the network learns an image without its label, for guidance."""

    @model_validator(mode="before")
    @classmethod
    def fill_from_preset(cls, values: Any) -> Any:
        """Take the options that the file omits from the preset."""
        # Validation refuses whatever is not a section or not a preset.
        if not isinstance(values, dict):
            return values
        return {**PRESETS.get(str(values.get("preset", "cpu")), {}), **values}

    @model_validator(mode="after")
    def heads_divide(self) -> Self:
        """Refuse widths that the attention cannot divide."""
        if self.widths[-1] % self.ATTENTION_HEADS:
            raise ValueError(
                f"the last of diffusion.widths must be a multiple of {self.ATTENTION_HEADS}, the "
                f"number of attention heads; received {self.widths}"
            )
        return self


class UpscalerConfig(TrainingConfig):
    """The upscaler and its training."""

    SECTION: ClassVar[str] = "upscaler"

    widths: Annotated[list[Count], Field(min_length=1)] = [48, 96, 128]
    """Channels of each level; each further level halves height and width."""
    patch_size: Literal[1, 2, 4] = 4
    """Patches as wide as a pixel of the small image."""
    predict: Literal["x0", "v"] = "v"
    """What the network predicts: the clean image, or v (arXiv:2202.00512)."""
    optimizer: Literal["muon", "adamw"] = "adamw"
    """Muon for the kernels of 3x3 convolutions and AdamW for all else, or AdamW for all."""
    crop_size: Count = 64
    """Height and width of the crops that it learns from."""
    base_noise: Rate = 0.2
    """Greatest deviation of the noise on small images, in units of PixelRange, in which pixels have
    a deviation of one half. The network receives the deviation."""

    def check_image_size(self, image_size: int, named: str = "data.image_size") -> None:
        """Refuse images that cannot be reduced or halved, or that are smaller than a crop.

        Args:
            image_size, named: see ``TrainingConfig``.

        Raises:
            ValueError: naming the sizes that fit.
        """
        super().check_image_size(image_size, named)
        if image_size % FACTOR:
            raise ValueError(
                f"{named} must be a multiple of {FACTOR}, by which the upscaler enlarges; received "
                f"{image_size}"
            )
        if self.crop_size > image_size:
            raise ValueError(
                f"upscaler.crop_size must not exceed {named}; received {self.crop_size} and "
                f"{image_size}"
            )

    @model_validator(mode="after")
    def crops_fit(self) -> Self:
        """Refuse crops that the levels of the network cannot halve."""
        if self.crop_size % max(self.stride, FACTOR) or self.crop_size < 2 * self.stride:
            raise ValueError(
                f"upscaler.crop_size must be a multiple of {max(self.stride, FACTOR)} "
                "(upscaler.patch_size * 2 ** (len(upscaler.widths) - 1)), "
                f"{2 * self.stride} or more; received {self.crop_size}"
            )
        return self


class VariantConfig(Section):
    """What a further synthetic set changes; null keeps the section's own value."""

    per_class: Count | None = None
    times_real: Rate | None = None
    solver: Solver | None = None
    steps: SolverSteps | None = None
    guidance_scale: Guidance | None = None
    keep: Keep | None = None
    candidates: Candidates | None = None
    start: Start | None = None
    strength: Fraction | None = None


class SamplingConfig(Section):
    """The synthetic set, and further ones to compare it with."""

    per_class: Count | None = None
    """Images of each class; `times_real` sets them if null."""
    times_real: Rate = 1.0
    """Images of each class, as a multiple of the largest class of the role `train`."""
    solver: Solver = "unipc"
    """How noise is removed from step to step."""
    steps: SolverSteps | None = None
    """Steps of the solver; its own default if null."""
    guidance_scale: Guidance = 1.0
    """1 is unguided, at half the cost. "auto" is the least scale at which classifiers that learned
    from real images name draws as they are labelled as often as real images."""
    batch_size: Count = 32
    """Images that the denoiser draws at once."""
    engine: Literal["onnx", "keras"] = "onnx"
    """What runs the denoiser: onnxruntime, or Keras."""
    copy_filter: bool = True
    """Draw an image again if it copies a training image, also mirrored, rotated, shifted or
    blended."""
    keep: Keep = "all"
    """"confirmed" draws an image again until classifiers that learned from other real images give
    its class at least `keep_probability`. "soft" keeps all, and CNNs learn the probabilities that
    those classifiers give, in place of the label. "coverage" draws `candidates` times as many and
    keeps those nearest to the training images, as many for each."""
    keep_probability: Fraction = 0.5
    """Least probability of the class, of `keep: confirmed`."""
    candidates: Candidates = 3
    """Draws for each image that is kept, of `keep: coverage`."""
    start: Start = "noise"
    """"real" draws variations of the training images: each is noised, and denoised again in the
    fraction `strength` of the steps. They are close to their originals by intent, so no copies are
    looked for, and `kerasmed release` refuses them."""
    strength: Fraction = 0.5
    """Fraction of the steps in which a variation is denoised, of `start: real`."""
    variants: dict[Annotated[str, Field(pattern=NAME)], VariantConfig] = {}
    """A sweep: further sets by name, such as {x3: {times_real: 3}, guided: {guidance_scale: 2}}.
    CNNs are trained on each of them too."""
    source: Path | None = None
    """Images of another program, which are taken instead of drawn."""
    source_learned_from: Literal["train", "unknown"] = "unknown"
    """What the other program learned from: the role `train` alone, or not known."""

    @model_validator(mode="after")
    def drawn_or_taken(self) -> "SamplingConfig":
        """Refuse settings of the drawing for a set that is not drawn, and the reverse."""
        changed = self.model_dump(exclude_defaults=True).keys()
        if self.source is None and "source_learned_from" in changed:
            raise ValueError(
                "sampling.source_learned_from is of a set of another program: name its folder in "
                "sampling.source, or remove the key"
            )
        drawing = sorted(changed - {"source", "source_learned_from"})
        if self.source is not None and drawing:
            raise ValueError(
                f"with sampling.source nothing is drawn, so sampling.{', sampling.'.join(drawing)} "
                f"would have no effect; remove what is not of the source, or replace the section: "
                f"--set 'sampling={{source: {self.source}}}'"
            )
        return self

    @model_validator(mode="after")
    def candidates_are_chosen_from(self) -> "SamplingConfig":
        """Refuse a number of candidates where all draws are kept."""
        for name in (None, *self.variants):
            of_set = self.of_set(name)
            if of_set.candidates != 3 and of_set.keep != "coverage":
                raise ValueError(
                    "sampling.candidates is for sampling.keep: coverage; received "
                    f"{of_set.keep!r}; change one of the two"
                )
        return self

    def timesteps(self) -> np.ndarray:
        """The timesteps to visit, see ``sampling_timesteps``; the last ones for a variation."""
        timesteps = sampling_timesteps(self.steps or DEFAULT_STEPS[self.solver])
        if self.start == "noise":
            return timesteps
        return timesteps[-max(1, round(self.strength * len(timesteps))) :]

    def of_set(self, variant: str | None) -> "SamplingConfig":
        """The settings of one set: the section's own, or those of a variant."""
        changes: dict[str, Any] = {"variants": {}}
        if variant is not None:
            changes |= self.variants[variant].model_dump(exclude_none=True)
            if "times_real" in changes:
                changes.setdefault("per_class", None)
        return self.model_copy(update=changes)
