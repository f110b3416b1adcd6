"""Settings of the explanations."""

from typing import Annotated, Literal

from pydantic import Field

from kerasmed.settings import Count, Section


class ExplainConfig(Section):
    """What the networks look at."""

    images_per_class: Count = 4
    explainers: Annotated[
        list[Literal["lime", "kernel_shap", "occlusion", "cam"]], Field(min_length=1)
    ] = ["lime"]
    # LIME stops between these two, when the strongest superpixels have settled.
    min_samples: Annotated[int, Field(ge=10)] = 256
    num_samples: Annotated[int, Field(ge=10)] = 1000
    sampling: Literal["orthogonal", "paired", "independent", "glime"] = "orthogonal"
    segmentation: Literal["foreground", "slic", "quickshift", "felzenszwalb", "grid"] = "foreground"
    superpixels: Annotated[int, Field(ge=1, le=5000)] = 50
    hide: Literal["mean"] | Annotated[int, Field(ge=0, le=255)] = Field(
        default="mean",
        description="what hidden superpixels show: their mean, or a grey level",
    )
    top: Count = 5
    # Whether to check the explanations: by deletion and insertion curves, with the network's
    # weights shuffled, and for phantoms against the region that decides.
    checks: bool = True
