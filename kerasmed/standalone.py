"""One ONNX file and images that belong to no study: predict, evaluate, explain."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kerasmed.config import DataConfig
from kerasmed.data.decoding import read_images
from kerasmed.errors import DataError, InputError
from kerasmed.evaluate.classification import classification_metrics
from kerasmed.inference import OnnxClassifier
from kerasmed.progress import progress_bar


def predict_files(model: Path, images: list[Path]) -> list[dict[str, Any]]:
    """Path, predicted class and probabilities of each image file.

    Raises:
        ModelFileError: not a kerasmed classifier.
        DataError: an image that cannot be read.
    """
    engine = OnnxClassifier(model)
    found = engine.predict(engine.read(images))
    return [
        {
            "image": str(path),
            "predicted": engine.class_names[int(row.argmax())],
            "probabilities": dict(zip(engine.class_names, row.astype(float).tolist(), strict=True)),
        }
        for path, row in zip(images, found, strict=True)
    ]


def evaluate_folder(model: Path, directory: Path) -> dict[str, Any]:
    """Metrics of one file on a folder of class folders, named as the model names its classes.

    Raises:
        DataError: classes that the model does not have.
    """
    engine = OnnxClassifier(model)
    with TemporaryDirectory() as cache:
        data = DataConfig(source=directory, image_size=engine.input_size)
        images = read_images(data, Path(cache) / "images")
        if list(images.class_names) != list(engine.class_names):
            raise DataError(
                f"{directory}: expected the model's class folders {engine.class_names}, "
                f"received {list(images.class_names)}; rename or add folders."
            )
        metrics = classification_metrics(
            engine.predict(images.images), images.labels, engine.class_names
        )
    known = {key: engine.metadata[key] for key in ("backbone", "trained_on", "seed", "n_train")}
    return {**known, **metrics}


def explain_files(model: Path, images: list[Path], folder: Path) -> Iterator[Path]:
    """Write an overlay and its JSON for each image; yields the overlays' paths as they come.

    Raises:
        InputError: two images of one name, whose overlays would overwrite each other.
    """
    from kerasmed.explain.overlay import write_explanation
    from kerasmed.explain.surrogate import explain_image

    stems = [path.stem for path in images]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise InputError(
            f"Images: expected different file names, received {twice} more than once; "
            "explain them into different --out folders."
        )
    engine = OnnxClassifier(model)
    pixels = engine.read(images)
    with progress_bar("Explaining", len(images), "images") as advance:
        for path, image in zip(images, pixels, strict=True):
            target = folder / f"{path.stem}.png"
            details = {"image": path.name, "model": model.name, "seed": 0}
            write_explanation(
                explain_image(image, engine.predict), engine.class_names, details, 5, target
            )
            advance(1, "")
            yield target
