"""What stages read: the real images with their roles, the synthetic ones, the exported CNNs."""

from collections.abc import Iterator
from dataclasses import dataclass

from kerasmed.config import Config, Regime
from kerasmed.data.image_set import ImageSet, read_image_folder
from kerasmed.data.splits import Split, read_split
from kerasmed.inference import OnnxClassifier
from kerasmed.runs import RunFolder


def load_images(config: Config, run: RunFolder) -> ImageSet:
    """The study's real images, decoded on the first call and read from the cache after it."""
    directory = config.data.directory
    if config.data.phantoms is not None:
        directory = run.images / "phantoms"
    if directory is None:
        raise AssertionError("config.DataConfig lets no such settings through")
    size, on_bad_image = config.data.image_size, config.data.on_bad_image
    return read_image_folder(directory, size, run.cache / f"real-{size}", on_bad_image)


def load_split(config: Config, run: RunFolder) -> tuple[ImageSet, Split]:
    """The study's real images and the roles that were written for them."""
    run.require("data", "kerasmed data split CONFIG")
    image_set = load_images(config, run)
    return image_set, read_split(run.split_path, image_set)


def load_synthetic(config: Config, run: RunFolder) -> ImageSet:
    """The synthetic set, as images like any others."""
    size = config.data.image_size
    return read_image_folder(run.synthetic, size, run.cache / f"synthetic-{size}")


@dataclass(frozen=True)
class Cell:
    """One CNN of a study: a backbone, what it is trained on, and a seed."""

    backbone: str
    trained_on: Regime
    seed: int

    @property
    def name(self) -> str:
        """Its folder under ``classifiers/`` and its file under ``exported/``."""
        return f"{self.backbone}-{self.trained_on}-s{self.seed}"


def cells_of(config: Config) -> list[Cell]:
    """Every CNN that the settings ask for."""
    settings = config.classifiers
    return [
        Cell(backbone, regime, config.seed + i)
        for backbone in settings.backbones
        for regime in settings.train_on
        for i in range(settings.seeds)
    ]


def open_classifier(cell: Cell, run: RunFolder) -> OnnxClassifier:
    """An exported CNN with its engine."""
    return OnnxClassifier(run.exported / f"{cell.name}.onnx")


def open_classifiers(config: Config, run: RunFolder) -> Iterator[tuple[Cell, OnnxClassifier]]:
    """Every exported CNN with its engine, one at a time."""
    for cell in cells_of(config):
        yield cell, open_classifier(cell, run)
