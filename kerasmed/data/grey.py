"""Grey levels of colour images."""

import numpy as np

# Weights of red, green and blue in the brightness of JPEG files (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def grey_levels(images: np.ndarray) -> np.ndarray:
    """Brightness of images (..., 3), on their own scale: float32 (...).

    Example:
        >>> grey_levels(np.array([[255, 0, 0], [10, 10, 10]], np.uint8)).round(1).tolist()
        [76.2, 10.0]
    """
    return images.astype(np.float32) @ _LUMA
