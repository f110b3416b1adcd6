"""Settings of the explanations."""

from typing import Annotated, Literal

from pydantic import Field

from kerasmed.settings import Count, Section


class ExplainConfig(Section):
    """What the networks look at."""

    images_per_class: Count = 4
    """Test images of each class that are explained."""
    explainers: Annotated[
        list[Literal["lime", "kernel_shap", "occlusion", "cam"]], Field(min_length=1)
    ] = ["lime"]
    """The methods."""
    min_samples: Annotated[int, Field(ge=10)] = 256
    """Least masks of an image. LIME stops between this and `num_samples`, when the strongest
    superpixels have settled."""
    num_samples: Annotated[int, Field(ge=10)] = 1000
    """Most masks of an image."""
    sampling: Literal["orthogonal", "paired", "independent", "glime"] = "orthogonal"
    """How masks are drawn."""
    segmentation: Literal["foreground", "slic", "quickshift", "felzenszwalb", "grid"] = "foreground"
    """How an image is divided into superpixels."""
    superpixels: Annotated[int, Field(ge=1, le=5000)] = 50
    """Number of superpixels that is aimed at."""
    hide: Literal["mean"] | Annotated[int, Field(ge=0, le=255)] = "mean"
    """What hidden superpixels show: their mean, or a grey level."""
    top: Count = 5
    """Strongest superpixels, whose stability is measured."""
    checks: bool = True
    """Whether to check the explanations: by deletion and insertion curves, with the network's
    weights shuffled, and for phantoms against the region that decides."""
