"""Labelled images: their uint8 array, usually a memory map, and the file of each image."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from pydantic import ValidationError

from kerasmed.data.arrays import check_labels, check_pixels, take_rows, tf_batches, write_pngs
from kerasmed.data.config import DataConfig, SplitConfig
from kerasmed.data.decoding import decode_images, refuse_unreadable
from kerasmed.data.duplicates import find_duplicates
from kerasmed.data.entries import folder_name
from kerasmed.data.groups import group_images
from kerasmed.data.image_file import ImageFile, common_folder
from kerasmed.data.marks import SYNTHETIC
from kerasmed.data.measurements import Measurements
from kerasmed.data.measuring import measure_pixels, read_measurements
from kerasmed.data.splits import check_official_test, make_split
from kerasmed.errors import DataError, InputError
from kerasmed.settings import describe_problems
from kerasmed.text import counted

if TYPE_CHECKING:
    import tensorflow as tf

_THUMBNAILS = 8  # of each class, in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Labelled images, real or synthetic.

    ``images[3]`` is an image and its label; a slice, positions or a mask give a set. ``+`` puts two
    sets with the same classes one after the other.

    Attributes:
        images: uint8 (n, size, size, 3), 0 to 255; usually a memory map.
        labels: int32 (n,), indices into ``class_names``.
        class_names: sorted names of the classes.
        files: where each image came from, in the same order.
        skipped: unreadable files that were left out, with the reason.
        masks: number of files left out because they mark regions of other images.
        formats: the choices of format that differ from the default; they change the images.
        measurements: what duplicates are found by; None until ``split`` needs them.
        groups: str (n,), equal for images that belong together, as ``split`` found them; or None.
        probabilities: float32 (n, classes), rows summing to 1, from which a classifier learns in
            place of the labels; or None.
        official_test: bool (n,), the images that the publishers of the set test on, if it was read
            with ``official_split="keep"``; or None.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
        >>> images = km.ImageSet.from_arrays(pixels, ["benign", "malignant"] * 20)
        >>> images
        ImageSet(40 images of 32 x 32 pixels: benign 20, malignant 20)
        >>> image, label = images[1]
        >>> image.shape, images.class_names[label]
        ((32, 32, 3), 'malignant')
        >>> roles = images.split(train=0.5, test=0.25, seed=0)
        >>> len(roles.train) + len(roles.validation), len(roles.test), len(roles.reserve)
        (20, 10, 10)
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    files: tuple[ImageFile, ...]
    skipped: tuple[str, ...] = ()
    masks: int = 0
    formats: dict[str, Any] = field(default_factory=dict)
    measurements: Measurements | None = None
    groups: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    official_test: np.ndarray | None = None

    @classmethod
    def from_directory(
        cls, path: str | Path, size: int = 64, cache: str | Path | None = None, **options: Any
    ) -> "ImageSet":
        """The images of a folder of class folders: raster files, DICOM or NIfTI.

        Args:
            path: the folder.
            size: height and width of the images in pixels, 16 to 512.
            cache: folder for the decoded images, which are read from there the next time. If None,
                they are kept in memory, or in a nameless file if they are large.
            options: further settings of the section ``data`` of an experiment file, such as
                ``on_bad_image="skip"`` or ``grey_range=(0, 4095)``. Without a range, the range of
                all images applies where the files name none.

        Raises:
            InputError: an unknown setting, or a value out of range.
            DataError: the folder has another layout, or an image is unreadable.
        """
        if "symmetry" in options:
            raise InputError(
                f"Images of {path}: expected settings of reading, received symmetry="
                f"{options['symmetry']!r}, which is one of training; give it to the model."
            )
        try:
            data = DataConfig(source=Path(path), image_size=size, **options)
        except ValidationError as error:
            raise InputError(f"Images of {path}: {describe_problems(error)}") from None
        if cache is not None:
            return cls._read(data, Path(cache))
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            images = cls._read(data, Path(folder))
            return replace(images, images=take_rows(images.images, np.arange(len(images))))

    @classmethod
    def _read(cls, data: DataConfig, cache: Path) -> "ImageSet":
        measurements = read_measurements(data, cache / "measurements", cache / "images")
        refuse_unreadable(measurements.unreadable.tolist(), data)
        measurements.refuse_empty(data)
        if (grey_range := measurements.common_range()) is not None:
            data = data.model_copy(update={"grey_range": grey_range})
        is_kept = data.official_split == "keep"
        return cls(
            **decode_images(data, cache / "images"),
            measurements=measurements,
            official_test=measurements.official == "test" if is_kept else None,
        )

    @classmethod
    def from_csv(cls, path: str | Path, size: int = 64, **options: Any) -> "ImageSet":
        """The images of a table with the columns path, label and optionally patient.

        Arguments and errors are those of ``from_directory``.
        """
        return cls.from_directory(path, size, **options)

    @classmethod
    def from_npz(
        cls, path: str | Path, size: int = 64, class_names: Sequence[str] | None = None,
        **options: Any,
    ) -> "ImageSet":  # fmt: skip
        """The images of an .npz with the layout of MedMNIST.

        Args:
            path: the archive.
            size: see ``from_directory``.
            class_names: names of the labels 0, 1, ...; the numbers themselves if None.
            options: see ``from_directory``.
        """
        if class_names is not None:
            options["class_names"] = list(class_names)
        return cls.from_directory(path, size, **options)

    @classmethod
    def from_arrays(
        cls,
        images: np.ndarray,
        labels: Sequence[str] | Sequence[int] | np.ndarray,
        class_names: Sequence[str] | None = None,
        patients: Sequence[str] | None = None,
    ) -> "ImageSet":
        """Images that are in memory.

        Args:
            images: uint8 (n, size, size, 3); grey as (n, size, size) or (n, size, size, 1).
            labels: n names of classes, or numbers from 0 on.
            class_names: names of the numbers; the numbers themselves if None.
            patients: who each image is of; ``split`` keeps a patient's images together.

        Raises:
            InputError: another shape or dtype, or labels out of range.
        """
        images = check_pixels(images)
        numbers, names = check_labels(labels, len(images), class_names)
        if patients is not None and len(patients) != len(images):
            raise InputError(
                f"Patients: expected one for each of {len(images)} images, received "
                f"{len(patients)}; give as many."
            )
        files = tuple(
            ImageFile(
                Path(f"{folder_name(names[label])}/{row:06d}"),
                hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest(),
                names[label],
                patient=None if patients is None else str(patients[row]),
            )
            for row, (image, label) in enumerate(zip(images, numbers, strict=True))
        )
        return cls(images, numbers, names, files)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.counts().items())
        size = self.image_size
        return f"ImageSet({counted(len(self), 'image')} of {size} x {size} pixels: {counts})"

    def _repr_html_(self) -> str:
        """The first images of each class, as a notebook shows them."""
        from kerasmed.data.thumbnails import page_of_thumbnails

        return page_of_thumbnails(self.images, self.labels, self.class_names, _THUMBNAILS)

    @overload
    def __getitem__(self, key: int) -> tuple[np.ndarray, int]: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | np.ndarray) -> "ImageSet": ...
    def __getitem__(self, key):
        if isinstance(key, int | np.integer):
            return np.asarray(self.images[key]), int(self.labels[key])
        return self.subset(np.arange(len(self))[key])

    def __add__(self, other: "ImageSet") -> "ImageSet":
        if self.class_names != other.class_names or self.image_size != other.image_size:
            raise DataError(
                f"Image sets do not fit together: expected classes {list(self.class_names)} at "
                f"{self.image_size} pixels, received {list(other.class_names)} at "
                f"{other.image_size}; read or draw both alike."
            )
        return ImageSet(
            images=np.concatenate([self.images, other.images]),
            labels=np.concatenate([self.labels, other.labels]),
            class_names=self.class_names,
            files=self.files + other.files,
            formats=self.formats,
            groups=(
                None
                if self.groups is None or other.groups is None
                else np.concatenate([self.groups, other.groups])
            ),
            probabilities=(
                None
                if self.probabilities is None and other.probabilities is None
                else np.concatenate([self.targets, other.targets])
            ),
            official_test=(
                None
                if self.official_test is None and other.official_test is None
                else np.concatenate([self._is_official_test(), other._is_official_test()])
            ),
        )

    def _is_official_test(self) -> np.ndarray:
        return np.zeros(len(self), bool) if self.official_test is None else self.official_test

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.images.shape[1]

    @property
    def notes(self) -> dict[str, int]:
        """Ignored faults of files, and the number of images that have each."""
        return dict(Counter(note for file in self.files for note in file.notes))

    @property
    def is_synthetic(self) -> np.ndarray:
        """Whether each image is marked as synthetic: bool (n,)."""
        return np.array([SYNTHETIC in file.notes for file in self.files], bool)

    @property
    def targets(self) -> np.ndarray:
        """What a classifier learns: float32 (n, classes), one-hot without ``probabilities``."""
        if self.probabilities is not None:
            return self.probabilities
        return np.eye(len(self.class_names), dtype=np.float32)[self.labels]

    @property
    def data_hash(self) -> str:
        """SHA-256 of every file's hash and class, the choices of format, and ``probabilities``."""
        digest = hashlib.sha256()
        if self.formats:
            digest.update(json.dumps(self.formats, sort_keys=True).encode())
        for file in self.files:
            line = f"{file.sha256} {file.class_name}\n"
            digest.update(line.encode(errors="surrogateescape"))
        if self.probabilities is not None:
            digest.update(self.probabilities.tobytes())
        return digest.hexdigest()

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images at the given positions, in that order, copied.

        The copy is in memory, or for many images in an unnamed file in the memory map's folder.
        """
        rows = np.asarray(indices, np.int64)
        return replace(
            self,
            images=take_rows(self.images, rows),
            labels=self.labels[rows],
            files=tuple(self.files[i] for i in rows),
            skipped=(),
            measurements=self.measurements and self.measurements.subset(rows),
            groups=None if self.groups is None else self.groups[rows],
            probabilities=None if self.probabilities is None else self.probabilities[rows],
            official_test=None if self.official_test is None else self.official_test[rows],
        )

    def counts(self, indices: np.ndarray | None = None) -> dict[str, int]:
        """Number of images of each class, among all or among those at the given positions."""
        labels = self.labels if indices is None else self.labels[indices]
        numbers = np.bincount(labels, minlength=len(self.class_names))
        return dict(zip(self.class_names, numbers.tolist(), strict=True))

    def split(
        self, train: float = 0.2, test: float = 0.2, seed: int = 0, **options: Any
    ) -> "Roles":
        """The images divided into roles, as ``kerasmed data split`` divides them.

        Copies, the frames of one file and the images of one patient stay together. The official
        test images of a set that was read with ``official_split="keep"`` are the role ``test``.

        Args:
            train: fraction that generator and CNNs learn from; a tenth of it validates.
            test: fraction that the CNNs are tested on, if the set has no official test images.
            seed: seed of the division.
            options: further settings of the section ``split`` of an experiment file:
                ``validation``, ``group_by``, ``pattern``, ``near_duplicate_bits`` and others.

        Raises:
            InputError: an unknown setting, or a value out of range.
            DataError: a class has too few groups for every role to get one, or no official test
                image.
        """
        try:
            settings = SplitConfig(train=train, test=test, **options)
        except ValidationError as error:
            raise InputError(f"Split: {describe_problems(error)}") from None
        measurements = self.measurements or measure_pixels(self.images, self.files)
        pairs = find_duplicates(measurements, settings.near_duplicate_bits).pairs
        groups = group_images(self.files, pairs, settings, common_folder(self.files))
        official = None
        if self.official_test is not None:
            official = np.flatnonzero(self.official_test)
            check_official_test(self.labels[official], self.class_names)
        positions = make_split(self.labels, groups, self.class_names, settings, seed, official)
        grouped = replace(
            self, measurements=measurements, groups=np.array(groups), official_test=None
        )
        return Roles(**{role: grouped.subset(at) for role, at in positions.items()})

    def to_directory(self, path: str | Path) -> None:
        """Write each image as a PNG into the folder of its class, numbered by its row in the set.

        Images that a model has drawn are marked as synthetic.

        Raises:
            StageError: the folder exists already, or cannot be written.
        """
        set_id = self.data_hash[:16]
        write_pngs(
            self.images, self.labels, self.class_names, Path(path), self.is_synthetic, set_id
        )

    def to_tf_dataset(
        self, batch_size: int = 32, shuffle: bool = False, seed: int = 0
    ) -> "tf.data.Dataset":
        """Batches of images, uint8 (batch, size, size, 3), and labels, int32 (batch,).

        Args:
            batch_size: images of a batch; the last may have fewer.
            shuffle: whether each pass has another order.
            seed: seed of the order.
        """
        return tf_batches(self.images, self.labels, batch_size, shuffle, seed)


@dataclass(frozen=True, repr=False)
class Roles:
    """The roles of a set's images; no group of images is in two of them.

    ``dict(roles)`` has the sets by their names.

    Attributes:
        train: everything learns from these.
        validation: these stop and calibrate trainings.
        test: CNNs are tested on these.
        reserve: nothing learns from these; fidelity and privacy are measured against them.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
        >>> roles = km.ImageSet.from_arrays(pixels, [0, 1] * 20).split(train=0.5, test=0.25)
        >>> roles
        Roles(train 18, validation 2, test 10, reserve 10)
        >>> dict(roles)["test"].counts()
        {'0': 5, '1': 5}
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    reserve: ImageSet

    def __iter__(self) -> Iterator[tuple[str, ImageSet]]:
        return ((role.name, getattr(self, role.name)) for role in fields(self))

    def __repr__(self) -> str:
        return f"Roles({', '.join(f'{name} {len(images)}' for name, images in self)})"


def read_images(data: DataConfig, cache: Path, *arguments: Any, **options: Any) -> ImageSet:
    """The images of ``data.source``, see ``decode_images``."""
    return ImageSet(**decode_images(data, cache, *arguments, **options))
