"""What stages read: real images with their roles, synthetic sets, and the denoiser."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from kerasmed.data.config import DataConfig
from kerasmed.data.entries import Source
from kerasmed.data.image_set import ImageSet, read_images
from kerasmed.data.splits import Split, read_split
from kerasmed.errors import StageError
from kerasmed.study.config import Config
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.soft_labels import read_soft_labels


def real_source(config: Config, run: RunFolder) -> DataConfig:
    """Source of the study's real images: the one in the settings, or the phantoms it drew."""
    if config.data.phantoms is None:
        return config.data
    return config.data.model_copy(update={"source": run.images / "phantoms", "phantoms": None})


def image_cache(config: Config, run: RunFolder) -> Path:
    """Path without suffix of the cache of the study's real images, see ``read_images``."""
    return run.cache / f"real-{config.data.image_size}"


def load_images(
    config: Config,
    run: RunFolder,
    grey_range: tuple[float, float] | None = None,
    files: Source | None = None,
) -> ImageSet:
    """The study's real images, decoded if the cache does not hold them.

    Args:
        config: the study's settings.
        run: the study's run folder.
        grey_range: values shown black and white if the settings name none: the range of the
            training images, once these are known.
        files: what ``open_source`` gave for these settings and this range, if it is at hand.
    """
    source = real_source(config, run)
    if grey_range is not None:
        source = source.model_copy(update={"grey_range": grey_range})
    return read_images(source, image_cache(config, run), source=files)


def load_split(config: Config, run: RunFolder) -> tuple[ImageSet, Split]:
    """The study's real images and their roles."""
    image_set, split, _ = load_grouped_split(config, run)
    return image_set, split


def load_grouped_split(config: Config, run: RunFolder) -> tuple[ImageSet, Split, np.ndarray]:
    """As ``load_split``, with the group of each image: str (n,)."""
    result = run.require("data", "kerasmed data split CONFIG")["result"]
    grey_range = result["grey_range"] and (result["grey_range"][0], result["grey_range"][1])
    image_set = load_images(config, run, grey_range)
    split, groups = read_split(run.split_path, image_set.files)
    return image_set, split, np.array(groups)


def variants_of(config: Config) -> list[str | None]:
    """Names of the synthetic sets of a study: None for the main one, then those of its sweep."""
    return [None, *config.sampling.variants]


def images_per_class(config: Config, counts: dict[str, int], variant: str | None = None) -> int:
    """Number of images per class in a synthetic set.

    Args:
        config: the study's settings.
        counts: number of training images by class.
        variant: name of the set; None for the main one.
    """
    settings = config.sampling.of_set(variant)
    return settings.per_class or max(1, round(settings.times_real * max(counts.values())))


def read_synthetic(
    config: Config, run: RunFolder, variant: str | None = None, folder: Path | None = None
) -> ImageSet:
    """A synthetic set; ``folder`` is given while it is being drawn."""
    folder, size = folder or run.synthetic_set(variant), config.data.image_size
    name = "synthetic" if variant is None else f"variant-{variant}"
    # A drawn image with few values is not a mask, whatever its class is called.
    data = DataConfig(source=folder, image_size=size, masks="keep", synthetic="allow")
    images = read_images(
        data, run.cache / f"{name}-{size}", "`kerasmed sample CONFIG` then draws it again."
    )
    return replace(images, probabilities=read_soft_labels(images, folder))


def denoiser_path(config: Config, run: RunFolder) -> Path:
    """Path of the denoiser's file for the engine in the settings.

    Raises:
        StageError: the file does not exist.
    """
    return _existing(run.diffusion / f"denoiser.{config.sampling.engine}", "diffusion")


def upscaler_path(config: Config, run: RunFolder) -> Path:
    """As ``denoiser_path``, of the upscaler."""
    return _existing(run.upscaler / f"upscaler.{config.sampling.engine}", "upscaler")


def _existing(path: Path, stage: str) -> Path:
    if not path.exists():
        if path.suffix == ".keras":
            raise StageError(f"Missing {path}: run `kerasmed train {stage} CONFIG`.")
        raise StageError(
            f"Missing {path}: the training ran without TensorFlow, which the export needs. Run "
            f"`kerasmed train {stage}` again with KERAS_BACKEND=tensorflow, which only exports; "
            "or set sampling.engine: keras."
        )
    return path
