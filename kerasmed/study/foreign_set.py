"""A synthetic set of another program, in the place of the one that a study would draw."""

from pathlib import Path

import numpy as np

from kerasmed.data.entries import folder_name
from kerasmed.data.image_set import ImageSet, read_images
from kerasmed.data.marks import Mark, write_marked_png
from kerasmed.errors import InputError
from kerasmed.files import folder_written_aside, write_json
from kerasmed.fingerprint import Fingerprint
from kerasmed.study.config import Config
from kerasmed.study.inputs import load_split, read_synthetic
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.synthetic_set import MANIFEST, Manifest


def take_over(config: Config, source: Path, run: RunFolder) -> ImageSet:
    """Write the images of another program as the synthetic set of a study.

    They are read like the real images, at the same size and with the same range of grey values.

    Args:
        config: the study's settings.
        source: a folder of class folders, a .csv or an .npz.
        run: the study's run folder.

    Raises:
        DataError: the set cannot be read.
        InputError: it has other classes than the real images.
    """
    real, _ = load_split(config, run)
    changes = {"source": source, "phantoms": None, "masks": "keep", "synthetic": "allow"}
    data = config.data.model_copy(update=changes)
    grey_range = run.finished_stages()["data"]["result"]["grey_range"]
    if grey_range is not None:  # that of the training images, where the settings name none
        data = data.model_copy(update={"grey_range": grey_range})
    images = read_images(data, run.cache / f"source-{data.image_size}")
    check_same_classes(real, images)
    taken_from: dict[str, str] = {}
    with folder_written_aside(run.synthetic) as folder:
        for pixels, file in zip(images.images, images.files, strict=True):
            index = f"{len(taken_from):06d}"
            path = f"{folder_name(file.class_name)}/{index}.png"
            mark = Mark("unknown", images.data_hash[:16], index)
            write_marked_png(folder / path, np.asarray(pixels), mark)
            taken_from[path] = file.name
        written = read_synthetic(config, run, folder=folder)
        manifest: Manifest = {
            "fingerprint": Fingerprint({}, {str(source): images.data_hash}).as_record(),
            "calibration": None,
            "rejected": [],
            "drawn": len(images),
            "taken_from": taken_from,
            "data_hash": written.data_hash,
        }
        write_json(folder / MANIFEST, manifest)
    return read_synthetic(config, run)


def check_same_classes(real: ImageSet, synthetic: ImageSet) -> None:
    """Refuse a synthetic set with other classes than the real images.

    Raises:
        InputError: naming the classes of both.
    """
    if synthetic.class_names != real.class_names:
        raise InputError(
            f"Synthetic set: expected the classes of the real images, {list(real.class_names)}, "
            f"received {list(synthetic.class_names)}; rename its classes, or leave out the "
            "classes that only one of the two has."
        )
