"""A set as a small page for notebooks."""

import base64
import html
import io

import numpy as np
from PIL import Image

_EDGE = 96


def page_of_thumbnails(
    images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], per_class: int
) -> str:
    """HTML with a row for each class: its name, its number of images, and the first of them.

    Args:
        images: uint8 (n, size, size, 3).
        labels: int (n,).
        class_names: names of the classes.
        per_class: how many images of a class are shown.
    """
    rows = []
    for label, name in enumerate(class_names):
        positions = np.flatnonzero(labels == label)
        pictures = "".join(_picture(np.asarray(images[at])) for at in positions[:per_class])
        rows.append(
            f"<tr><th>{html.escape(name)}</th><td>{len(positions)}</td><td>{pictures}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _picture(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" width="{_EDGE}" height="{_EDGE}">'
