"""Fidelity in several spaces: features of several networks, and pixels."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
from typing_extensions import TypedDict

from kerasmed.audit.fidelity import COMPARED, FidelityByClass, fidelity_by_class
from kerasmed.data.image_set import ImageSet
from kerasmed.result_types import NotComputed

# Pixels are up to 3,072 numbers an image, and this comparison decides nothing.
_IN_PIXELS = 4000


class FeatureNetwork(Protocol):
    """A network that describes images by features."""

    def features(self, images: np.ndarray, /) -> np.ndarray:
        """Features float32 (n, d) of images, uint8 (n, size, size, 3)."""


def features_of_sets(network: FeatureNetwork, sets: dict[str, ImageSet]) -> dict[str, np.ndarray]:
    """Features float32 (n, d) of each set, by its name."""
    return {name: network.features(image_set.images) for name, image_set in sets.items()}


class FidelityInSpaces(TypedDict):
    """Fidelity of the synthetic sets, in several spaces."""

    in_features: FidelityByClass | NotComputed
    """In the features of a CNN of the study."""
    in_pixels: FidelityByClass
    """In pixels, averaged down to at most 32 by 32."""
    in_networks: dict[str, FidelityByClass]
    """In the features of other networks, by name."""
    of_variants: dict[str, FidelityByClass]
    """Of further synthetic sets, by name, in the features of the CNN."""


def fidelity_in_spaces(
    sets: dict[str, ImageSet],
    classifier: FeatureNetwork | None,
    features: dict[str, np.ndarray],
    pixels: dict[str, np.ndarray],
    groups: dict[str, np.ndarray],
    networks: Iterable[tuple[str, FeatureNetwork]],
    variants: Iterable[tuple[str, ImageSet]],
    seed: int,
) -> FidelityInSpaces:
    """Fidelity in the features of a study's CNN, in pixels and in the features of other networks.

    Args:
        sets: The sets ``reserve``, ``train`` and ``synthetic``.
        classifier: The CNN of the study, if there is one.
        features: Its features of the sets; not used without it.
        pixels: Pixels of the sets, see ``comparison_pixels``.
        groups: As of ``fidelity``.
        networks: Other networks, by name.
        variants: Further synthetic sets, by name, compared in the features of the CNN.
        seed: Seed of the choices.
    """

    def compare(
        in_space: dict[str, np.ndarray],
        compared: dict[str, ImageSet] = sets,
        most: int = COMPARED,
    ) -> FidelityByClass:
        labels = {name: image_set.labels for name, image_set in compared.items()}
        return fidelity_by_class(in_space, labels, sets["train"].class_names, groups, seed, most)

    # The kernel distance depends on a shift of all features, and pixels have a large mean.
    mean_pixels = pixels["reserve"].mean(axis=0)
    return {
        "in_features": (
            {"not_computed": "no CNN was trained."} if classifier is None else compare(features)
        ),
        "in_pixels": compare(
            {name: of_set - mean_pixels for name, of_set in pixels.items()}, most=_IN_PIXELS
        ),
        "in_networks": {
            name: compare(features_of_sets(network, sets)) for name, network in networks
        },
        "of_variants": {
            name: compare(
                {**features, "synthetic": classifier.features(variant.images)},
                {**sets, "synthetic": variant},
            )
            for name, variant in variants
            if classifier is not None
        },
    }
