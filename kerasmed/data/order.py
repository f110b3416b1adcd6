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
