"""The order in which training visits images, as a pure function of the seed."""

import numpy as np

from kerasmed.random_streams import Purpose, random_stream


class EpochOrder:
    """The position of the image that the n-th sample of a training shows.

    Every epoch visits each image once, in an order drawn from the seed, the purpose and the epoch.
    Several threads may call one instance.
    """

    def __init__(self, num_images: int, seed: int, purpose: Purpose):
        self.num_images = num_images
        self.seed = seed
        self.purpose = purpose
        self._last = (-1, np.array([], dtype=np.int64))

    def __call__(self, sample: int) -> tuple[int, int]:
        """The epoch of a sample and the position of its image."""
        epoch, index = divmod(sample, self.num_images)
        last, order = self._last  # read as one, since another thread may be in another epoch
        if epoch != last:
            order = random_stream(self.seed, self.purpose, epoch).permutation(self.num_images)
            self._last = (epoch, order)
        return epoch, int(order[index])


class MixedOrder:
    """The order of two sets, one after the other in one, of which each batch shows fixed fractions.

    Args:
        first: the order of the first set.
        second: the order of the second set.
        fraction: fraction of the samples that are of the second set, spread evenly.
    """

    def __init__(self, first: EpochOrder, second: EpochOrder, fraction: float):
        self.first, self.second, self.fraction = first, second, fraction

    def __call__(self, sample: int) -> tuple[int, int]:
        """The epoch of a sample, in its own set, and the position of its image."""
        of_second = int(sample * self.fraction)  # of those before
        if int((sample + 1) * self.fraction) == of_second:
            return self.first(sample - of_second)
        epoch, position = self.second(of_second)
        return epoch, self.first.num_images + position
