"""What stages read: the real images with their roles, the synthetic ones, the exported CNNs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kerasmed.classify.config import Regime
from kerasmed.data.config import DataConfig
from kerasmed.data.decoding import read_images
from kerasmed.data.entries import label_of_folder
from kerasmed.data.image_set import ImageSet
from kerasmed.data.splits import Split, read_split
from kerasmed.errors import StageError
from kerasmed.export.config import Precision
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.inference.precisions import precision_path
from kerasmed.study.config import Config
from kerasmed.study.run_folder import RunFolder


def real_source(config: Config, run: RunFolder) -> DataConfig:
    """Where the study's real images are: as the settings say, or the phantoms that it drew."""
    if config.data.phantoms is None:
        return config.data
    return config.data.model_copy(update={"source": run.images / "phantoms", "phantoms": None})


def load_images(
    config: Config, run: RunFolder, grey_range: tuple[float, float] | None = None
) -> ImageSet:
    """The study's real images, decoded on the first call and read from the cache after it.

    Args:
        config: the study's settings.
        run: its folder.
        grey_range: values shown black and white where the settings do not name them: those of the
            training images, once these are known.
    """
    source = real_source(config, run)
    if grey_range is not None:
        source = source.model_copy(update={"grey_range": grey_range})
    return read_images(source, run.cache / f"real-{config.data.image_size}")


def load_split(config: Config, run: RunFolder) -> tuple[ImageSet, Split]:
    """The study's real images and the roles that were written for them."""
    image_set, split, _ = load_grouped_split(config, run)
    return image_set, split


def load_grouped_split(config: Config, run: RunFolder) -> tuple[ImageSet, Split, np.ndarray]:
    """As ``load_split``, and the name of each image's group: str (n,)."""
    result = run.require("data", "kerasmed data split CONFIG")["result"]
    grey_range = result["grey_range"] and (result["grey_range"][0], result["grey_range"][1])
    image_set = load_images(config, run, grey_range)
    split, groups = read_split(run.split_path, image_set)
    return image_set, split, np.array(groups)


def variants_of(config: Config) -> list[str | None]:
    """The synthetic sets of a study: the main one, None, and those of its sweep."""
    return [None, *config.sampling.variants]


def images_per_class(config: Config, counts: dict[str, int], variant: str | None = None) -> int:
    """How many images of each class a synthetic set has.

    Args:
        config: the study's settings.
        counts: by class, of the real share.
        variant: which set.
    """
    settings = config.sampling.of_set(variant)
    return settings.per_class or max(1, round(settings.times_real * max(counts.values())))


def read_synthetic(
    config: Config, run: RunFolder, variant: str | None = None, folder: Path | None = None
) -> ImageSet:
    """A synthetic set, as images like any others; while it is drawn, from the folder given."""
    folder, size = folder or run.synthetic_set(variant), config.data.image_size
    name = "synthetic" if variant is None else f"variant-{variant}"
    # A drawn image of few values is no mask, whatever its class is called.
    data = DataConfig(source=folder, image_size=size, masks="keep")
    images = read_images(
        data, run.cache / f"{name}-{size}", "`kerasmed sample CONFIG` then draws it again."
    )
    return _with_labels(images)


def _with_labels(images: ImageSet) -> ImageSet:
    """The images of a set that kerasmed wrote, with the labels that its folders stand for."""
    names = [label_of_folder(name) for name in images.class_names]
    if names == list(images.class_names):
        return images
    # The labels may be in another order than the names of their folders.
    position = {name: at for at, name in enumerate(sorted(names))}
    files = (replace(file, class_name=label_of_folder(file.class_name)) for file in images.files)
    return replace(
        images,
        labels=np.array([position[name] for name in names], np.int32)[images.labels],
        class_names=tuple(position),
        files=tuple(files),
    )


def load_synthetic(config: Config, run: RunFolder, variant: str | None = None) -> ImageSet:
    """A synthetic set, as it was drawn.

    Raises:
        StageError: its files are no longer those that were drawn.
    """
    images = read_synthetic(config, run, variant)
    result = run.require("sampling", "kerasmed sample CONFIG")["result"]
    drawn = (result if variant is None else result["variants"][variant]).get("data_hash")
    if drawn not in (images.data_hash, None):  # None in runs of before it was noted
        raise StageError(
            f"{run.synthetic_set(variant)} has changed since it was drawn: expected the images "
            "that `kerasmed sample` wrote, received others; draw it again, or put the files back."
        )
    return images


@dataclass(frozen=True)
class Cell:
    """One CNN of a study: a backbone, what it is trained on, and a seed.

    Attributes:
        backbone: its name.
        trained_on: real images, synthetic ones, or both.
        seed: of its training.
        variant: which of the synthetic sets, where it is not the main one.
    """

    backbone: str
    trained_on: Regime
    seed: int
    variant: str | None = None

    @property
    def name(self) -> str:
        """Its folder under ``classifiers/`` and its file under ``exported/``."""
        variant = "" if self.variant is None else f"-{self.variant}"
        return f"{self.backbone}-{self.trained_on}{variant}-s{self.seed}"


def cells_of(config: Config) -> list[Cell]:
    """Every CNN that the settings ask for."""
    settings = config.classifiers
    return [
        Cell(backbone, regime, config.seed + i, variant)
        for backbone in settings.backbones
        for regime in settings.train_on
        for variant in (variants_of(config) if regime in ("synthetic", "both") else [None])
        for i in range(settings.seeds)
    ]


def exported_path(cell: Cell, run: RunFolder, precision: Precision = "fp32") -> Path:
    """Where a CNN's ONNX file of that precision lies."""
    return precision_path(run.exported / f"{cell.name}.onnx", precision)


def open_classifier(cell: Cell, run: RunFolder) -> OnnxClassifier:
    """An exported CNN with its engine, in float32."""
    return OnnxClassifier(exported_path(cell, run))


def open_classifiers(
    config: Config, run: RunFolder, precisions: Sequence[Precision] = ("fp32",)
) -> Iterator[tuple[Cell, OnnxClassifier]]:
    """Every exported CNN with its engine, one at a time, float32 first.

    A precision that the export refused to write is left out.
    """
    for cell in cells_of(config):
        for precision in dict.fromkeys(("fp32", *precisions)):
            path = exported_path(cell, run, precision)
            if precision == "fp32" or path.exists():
                yield cell, OnnxClassifier(path)


def denoiser_path(config: Config, run: RunFolder) -> Path:
    """The file of the engine that was asked for.

    Raises:
        StageError: it is not there.
    """
    path = run.diffusion / f"denoiser.{config.sampling.engine}"
    if not path.exists():
        if config.sampling.engine == "keras":
            raise StageError(f"Missing {path}: run `kerasmed train diffusion CONFIG`.")
        raise StageError(
            f"Missing {path}: the training ran without TensorFlow, which the export needs; run "
            "`kerasmed train diffusion` again with KERAS_BACKEND=tensorflow (it only exports), or "
            "set sampling.engine: keras."
        )
    return path
