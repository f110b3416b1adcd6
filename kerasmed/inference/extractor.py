"""Features of images by any ONNX network, such as one of another program."""

from pathlib import Path

import numpy as np
from PIL import Image

from kerasmed.errors import ModelFileError
from kerasmed.inference.session import open_session

_BATCH = 16
# Of ImageNet, by which networks that take floats expect their images to be normalised.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
_SIZE = 224  # where the file leaves height and width open


class OnnxExtractor:
    """Features of any ONNX network of one input.

    The input is uint8 (batch, height, width, 3), as in the files of kerasmed, or float32 (batch, 3,
    height, width), normalised by the mean and deviation of ImageNet, as DINOv2 and most networks
    from PyTorch take it. Images are enlarged to the size that the file names; where it leaves the
    size open, float networks get 224 pixels. The output is the one called ``features``, else the
    first; of a sequence of tokens the first one counts, and of a map of features its mean. The axes
    of a map have the order of those of the images.

    Args:
        path: path of the file.

    Raises:
        ModelFileError: there is no such file, or its input is another one.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._session, _ = open_session(self.path)
        inputs = self._session.get_inputs()
        self._input = inputs[0].name
        self._takes_bytes = inputs[0].type == "tensor(uint8)"
        shape = inputs[0].shape
        channels = shape[3 if self._takes_bytes else 1] if len(shape) == 4 else None
        known = ("tensor(uint8)", "tensor(float)")
        if len(inputs) != 1 or inputs[0].type not in known or channels != 3:
            raise ModelFileError(
                f"{self.path}: expected one input of images, uint8 (batch, height, width, 3) or "
                "float32 (batch, 3, height, width), received "
                f"{[(item.type, item.shape) for item in inputs]}; export the network that way."
            )
        height = shape[1] if self._takes_bytes else shape[2]
        self._size = height if isinstance(height, int) else None if self._takes_bytes else _SIZE
        names = [output.name for output in self._session.get_outputs()]
        self._output = "features" if "features" in names else names[0]

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features float32 (batch, d) of images, uint8 (batch, size, size, 3)."""
        batches = [
            self._run(np.asarray(images[start : start + _BATCH]))
            for start in range(0, len(images), _BATCH)
        ]
        return np.concatenate(batches)

    def _run(self, images: np.ndarray) -> np.ndarray:
        if self._size not in (None, images.shape[1]):
            size = (self._size, self._size)
            enlarged = (Image.fromarray(i).resize(size, Image.Resampling.BICUBIC) for i in images)
            images = np.stack([np.asarray(image) for image in enlarged])
        if not self._takes_bytes:
            scaled = (images.astype(np.float32) / 255 - _MEAN) / _DEVIATION
            images = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
        features = self._session.run([self._output], {self._input: images})[0]
        if features.ndim == 3:
            features = features[:, 0]
        if self._takes_bytes:
            features = np.moveaxis(features, -1, 1)
        return features.reshape(*features.shape[:2], -1).mean(axis=2).astype(np.float32)
