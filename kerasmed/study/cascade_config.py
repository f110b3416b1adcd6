"""The section ``upscaler`` of the experiment file: whether a study has one, and how it draws."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kerasmed.diffusion.config import FACTOR, DiffusionConfig, SolverSteps, UpscalerConfig
from kerasmed.diffusion.upscale import DEFAULT_STEPS
from kerasmed.settings import Rate

# Above this size, two networks cost less than a diffusion model of that size.
_LARGEST_SINGLE = 128
# With fewer levels, the lowest one sees too little of the image at once.
_LEAST_LEVELS = 3


class UpscalingConfig(UpscalerConfig):
    """The upscaler, its training, and whether a study uses it."""

    use: Literal["auto", "always", "never"] = "auto"
    """Whether the diffusion model draws images of a quarter of `data.image_size`, which the
    upscaler enlarges. "auto" does so above 128 pixels."""
    max_minutes: Rate | None = 30.0
    """Minutes of training. The first limit that is reached ends it."""
    steps: SolverSteps = DEFAULT_STEPS
    """Evaluations of the upscaler for each image that it draws."""
    drawing_noise: Annotated[float, Field(ge=0)] = 0.0
    """Deviation of noise that is added to drawn small images, at most `base_noise`. It hides their
    faults from the upscaler."""

    @model_validator(mode="after")
    def noise_was_trained_for(self) -> "UpscalingConfig":
        """Refuse more noise than the upscaler learns from."""
        if self.drawing_noise > self.base_noise:
            raise ValueError(
                "upscaler.drawing_noise must not exceed upscaler.base_noise; received "
                f"{self.drawing_noise} and {self.base_noise}"
            )
        return self

    @model_validator(mode="after")
    def used_or_default(self) -> "UpscalingConfig":
        """Refuse settings of an upscaler that is not used."""
        changed = sorted(self.model_dump(exclude_defaults=True).keys() - {"use"})
        if self.use == "never" and changed:
            raise ValueError(
                f"with upscaler.use: never, upscaler.{', upscaler.'.join(changed)} would have no "
                "effect; remove what is not needed, or set upscaler.use: always"
            )
        return self

    def base_size(self, image_size: int) -> int:
        """Height and width of what the diffusion model draws for images of this size."""
        is_used = image_size > _LARGEST_SINGLE if self.use == "auto" else self.use == "always"
        return image_size // FACTOR if is_used else image_size

    def of_network(self) -> UpscalerConfig:
        """What decides the network and its training."""
        return UpscalerConfig(**self.model_dump(include=set(UpscalerConfig.model_fields)))

    def of_drawing(self) -> dict[str, Any]:
        """What decides how it draws."""
        return self.model_dump(include={"steps", "drawing_noise"})


def fitting_widths(diffusion: DiffusionConfig, base_size: int) -> list[int]:
    """The widths of a network, without the levels that small images cannot be halved for.

    The lowest level stays, which has the attention.
    """
    widths = list(diffusion.widths)
    while len(widths) > _LEAST_LEVELS:
        stride = diffusion.patch_size * 2 ** (len(widths) - 1)
        if base_size % stride == 0 and base_size >= 2 * stride:
            break
        del widths[-2]
    return widths
