"""A set of images as the metrics see it: features, and the groups of its images."""

from collections.abc import Mapping

import numpy as np


class Sample:
    """Features of a set of images, and which of them belong together.

    Args:
        name: name of the sample; figures of one name are of the same images.
        features: float (n, d).
        groups: (n,), equal for images of one group, such as a patient. If None, each image is one.
        num_groups: if given, ``groups`` are numbers below it, and some may have no image.

    Attributes:
        groups: int (n,), 0 to ``num_groups`` - 1.
        sizes: int (num_groups,), the number of images of each group.

    Example:
        >>> import numpy as np
        >>> from kerasmed.metrics.sample import Sample
        >>> sample = Sample("reserve", np.zeros((4, 8)), np.array(["Ann", "Ann", "Bob", "Eve"]))
        >>> len(sample), sample.num_groups, sample.sizes.tolist()
        (4, 3, [2, 1, 1])
    """

    def __init__(
        self,
        name: str,
        features: np.ndarray,
        groups: np.ndarray | None = None,
        num_groups: int | None = None,
    ):
        self.name = name
        self.features = features.astype(np.float64)
        if groups is None:
            groups = np.arange(len(features))
        if num_groups is None:
            names, groups = np.unique(groups, return_inverse=True)
            num_groups = len(names)
        self.groups, self.num_groups = groups, num_groups
        self.sizes = np.bincount(groups, minlength=num_groups)

    def __len__(self) -> int:
        return len(self.features)

    def subset(self, positions: np.ndarray) -> "Sample":
        """The sample of some of the images; a group keeps its number."""
        return Sample(self.name, self.features[positions], self.groups[positions], self.num_groups)


def sample_of(
    name: str,
    features: Mapping[str, np.ndarray],
    groups: Mapping[str, np.ndarray] | None,
    positions: np.ndarray,
) -> Sample:
    """Some images of a set, with features of the scale of the reserve images.

    Args:
        name: the set.
        features: float (n, d) of each set. They are divided by the overall standard deviation of
            ``reserve``, so that networks of different scales can be compared.
        groups: (n,) of the sets that have any.
        positions: the images.
    """
    scale = float(features["reserve"].std()) or 1.0
    of_set = (groups or {}).get(name)
    chosen = None if of_set is None else of_set[positions]
    return Sample(name, features[name][positions] / scale, chosen)
