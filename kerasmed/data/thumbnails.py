"""Pictures within a page, and a set as a small page for notebooks."""

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
        pictures = "".join(
            f'<img src="{png_uri(np.asarray(images[at]))}" width="{_EDGE}" height="{_EDGE}">'
            for at in positions[:per_class]
        )
        rows.append(
            f"<tr><th>{html.escape(name)}</th><td>{len(positions)}</td><td>{pictures}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def png_uri(pixels: np.ndarray) -> str:
    """A picture uint8 (height, width, 3) as a data URI, for a page that needs no other file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
