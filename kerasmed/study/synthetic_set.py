"""A synthetic set that one or several processes are drawing."""

import glob
import hashlib
import json
import shutil
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NotRequired, cast

import numpy as np
from typing_extensions import TypedDict

from kerasmed import __version__
from kerasmed.audit.confirmation import check_groups
from kerasmed.data.entries import folder_name
from kerasmed.data.image_set import ImageSet
from kerasmed.data.marks import Mark, write_marked_png
from kerasmed.data.splits import Role
from kerasmed.errors import DataError, InputError, StageError
from kerasmed.files import (
    make_folder,
    process_name,
    read_json,
    sha256_of,
    write_json,
)
from kerasmed.fingerprint import Fingerprint, FingerprintRecord
from kerasmed.metrics.copies import (
    CALIBRATED_ON,
    Calibration,
    Copy,
    CopyFilter,
    CopySearch,
    calibrate,
)
from kerasmed.metrics.sample_size import MINIMUM, require_images
from kerasmed.progress import progress_bar, say
from kerasmed.result_types import Sha256, Whole
from kerasmed.study.cascade import Draw, Enlarger, at_size
from kerasmed.study.config import Config
from kerasmed.study.drawing import Drawing
from kerasmed.study.guidance import Guidance, choose_guidance
from kerasmed.study.inputs import (
    denoiser_path,
    images_per_class,
    load_grouped_split,
    read_synthetic,
    upscaler_path,
)
from kerasmed.study.kept_draws import (
    UNCONFIRMED,
    RealImages,
    Rejected,
    RejectedFor,
    compares_draws,
    mark_of_extractor,
    rejected,
)
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.soft_labels import write_soft_labels

# How often one image is drawn at most, until a draw is not a copy.
_ATTEMPTS = 20
_SEARCHED_AT_ONCE = 32
# In the unfinished set, next to its class folders: the manifest, notes on copies for it, and the
# images that calibrate the copy threshold (hidden, as class folders never are).
MANIFEST = "manifest.json"
_CALIBRATION = "calibration.json"
_GUIDANCE = "guidance.json"
_REJECTED = "rejected-*.json"
_FIRST_DRAWS = ".first_draws"
_MADE_BY = "kerasmed sample CONFIG"


class Manifest(TypedDict):
    """How a synthetic set was drawn (``manifest.json`` in its folder)."""

    fingerprint: FingerprintRecord
    """What the set was drawn with."""
    calibration: Calibration | None
    """The threshold for copies; null if copies were not looked for."""
    rejected: list[Rejected]
    """Draws that were copies, or that no classifier confirmed."""
    drawn: Whole
    """Number of images that were drawn, with those left out."""
    guidance: NotRequired[Guidance]
    """How the guidance scale was chosen, if it was."""
    varied_from: NotRequired[dict[str, str]]
    """Of variations: the training image of each, by the image's path in the set."""
    taken_from: NotRequired[dict[str, str]]
    """Of a set from another program: the file of each image, by the image's path in the set."""
    data_hash: Sha256
    """Hash of all images and classes."""


class SyntheticSet:
    """A synthetic set that is being drawn, in a temporary folder next to its final one.

    In a study with an upscaler, all that decides which draws are kept looks at small images: a draw
    that is left out is never enlarged.

    Args:
        config: the study's settings.
        run: the study's run folder.
        variant: name of the set; None for the main one.
    """

    def __init__(self, config: Config, run: RunFolder, variant: str | None):
        self._config, self._run, self._variant = config, run, variant
        self._settings = config.sampling.of_set(variant)
        self._image_set, self._split, self._groups = load_grouped_split(config, run)
        self._names = self._image_set.class_names
        real = self._image_set.counts(self._split["train"])
        self._per_class = images_per_class(config, real, variant)
        made_with = {
            "seed": config.seed,
            "images per class": self._per_class,
            "classes": list(self._names),
            "sampling": {
                **self._settings.model_dump(exclude={"per_class", "times_real", "variants"}),
                "timesteps": self._settings.timesteps().tolist(),
            },
        }
        files = {
            "denoiser": sha256_of(denoiser_path(config, run)),
            "split.json": sha256_of(run.split_path),  # real images decide which draws are kept
            **mark_of_extractor(config, self._settings),
        }
        if config.is_cascade:
            made_with["upscaler"] = config.upscaler.of_drawing()
            files["upscaler"] = sha256_of(upscaler_path(config, run))
        self._made_from = Fingerprint(made_with, files)
        self.target = run.synthetic_set(variant)
        self._folder = self.target.with_name(f"{self.target.name}.unfinished")

    def is_finished(self) -> bool:
        """Whether the set is in its final folder, drawn with these settings and unchanged since."""
        if not (self.target / MANIFEST).exists():
            return False
        manifest = read_json(self.target / MANIFEST, _MADE_BY)
        if not self._made_from.matches(manifest.get("fingerprint")):
            return False
        try:
            images = read_synthetic(self._config, self._run, self._variant)
        except DataError as error:
            say(f"The set is drawn again. {error}")
            return False
        return images.data_hash == manifest.get("data_hash")

    def draw(self, index: int = 1, shards: int = 1) -> int:
        """Draw one shard; returns how many images of the whole set are still missing."""
        self._begin()
        chooses = self._settings.keep == "coverage"
        if chooses and "data_hash" in read_json(self._folder / MANIFEST, _MADE_BY):
            return 0  # complete, and the draws that it does not keep are deleted
        per_class = self._per_class * (self._settings.candidates if chooses else 1)
        wanted = [(label, i) for label in range(len(self._names)) for i in range(per_class)]
        mine = wanted[index - 1 :: shards]
        missing = [key for key in mine if not self._path_of(*key).exists()]
        if len(missing) < len(mine):
            say(f"{len(mine) - len(missing)} of {len(mine)} images exist already.")
        if missing:
            if self._settings.keep == "soft":  # it is asked at the end, and refuses few groups now
                groups = self._groups[self._split["train"]]
                check_groups(self._train.labels, groups, len(self._names))
            self._draw_missing(missing, self._copy_filter(index))
        return sum(not self._path_of(*key).exists() for key in wanted)

    def finish(self) -> None:
        """Replace the previous set by this one, with the hash that marks it as complete."""
        for leftover in self._folder.rglob(".*.tmp*"):  # from a process that was killed
            leftover.unlink()
        notes = sorted(self._folder.glob(_REJECTED))
        manifest = read_json(self._folder / MANIFEST, _MADE_BY)
        # With a hash, an earlier process was killed below and some notes may be gone already.
        if "data_hash" not in manifest:
            manifest["rejected"] = [read_json(path, _MADE_BY) for path in notes]
            if (self._folder / _CALIBRATION).exists():
                manifest["calibration"] = read_json(self._folder / _CALIBRATION, _MADE_BY)
            if (self._folder / _GUIDANCE).exists():
                manifest["guidance"] = read_json(self._folder / _GUIDANCE, _MADE_BY)
            images = self._read()
            manifest["drawn"] = len(images) + len(notes)
            images = self._chosen(images)
            if self._settings.start == "real":
                manifest["varied_from"] = self._originals(images)
            manifest["data_hash"] = images.data_hash
            write_json(self._folder / MANIFEST, manifest)
        for path in (*notes, self._folder / _CALIBRATION, self._folder / _GUIDANCE):
            path.unlink(missing_ok=True)
        shutil.rmtree(self._folder / _FIRST_DRAWS, ignore_errors=True)
        shutil.rmtree(self.target, ignore_errors=True)
        self._folder.rename(self.target)

    def _chosen(self, images: ImageSet) -> ImageSet:
        """The images of the set; those that it does not keep are deleted."""
        real = self._real_images
        if real is None or self._settings.keep in ("all", "confirmed"):
            return images
        small = at_size(images, self._config.base_size)
        if self._settings.keep == "soft":
            write_soft_labels(images, real.probabilities(small.images), self._folder)
        else:
            kept = set(real.covered_by(small, self._per_class).tolist())
            for position in set(range(len(images))) - kept:
                images.files[position].path.unlink()
        return self._read()

    def _read(self) -> ImageSet:
        return read_synthetic(self._config, self._run, self._variant, self._folder)

    def _originals(self, images: ImageSet) -> dict[str, str]:
        """The training image of each variation."""
        originals = {}
        for file, label in zip(images.files, images.labels, strict=True):
            original = self._drawing.position_of_original(int(label), int(file.path.stem))
            name = file.path.relative_to(self._folder).as_posix()
            originals[name] = self._train.files[original].name
        return originals

    def _mark(self, label: int, image: int) -> Mark:
        """The mark of an image, by which its set can be recognised."""
        record = json.dumps(self._made_from.as_record(), sort_keys=True)
        set_id = hashlib.sha256(record.encode()).hexdigest()[:16]
        return Mark(f"kerasmed {__version__}", set_id, f"{label}-{image:06d}")

    def _path_of(self, label: int, image: int) -> Path:
        return self._folder / folder_name(self._names[label]) / f"{image:06d}.png"

    def _begin(self) -> None:
        """Start the set, or check that the one already begun has the same settings."""
        new = self._folder.with_name(f".{self._folder.name}.{process_name()}.tmp")
        for name in self._names:
            make_folder(new / folder_name(name))
        manifest = {"fingerprint": self._made_from.as_record()}
        empty: dict[str, Any] = {"calibration": None, "rejected": [], "drawn": 0}
        write_json(new / MANIFEST, {**manifest, **empty})
        try:
            new.rename(self._folder)  # fails if another process has begun the set, which then wins
            return
        except OSError:
            shutil.rmtree(new)
        begun = read_json(self._folder / MANIFEST, _MADE_BY)
        remedy = f"delete {self._folder} and rerun `{_MADE_BY}`"
        self._made_from.check(begun["fingerprint"], str(self._folder), remedy)

    def _draw_missing(self, missing: list[tuple[int, int]], copies: CopyFilter | None) -> None:
        """Write these images, and a note for each draw that was left out."""
        name = "Sampling" if self._variant is None else f"Sampling {self._variant}"
        with progress_bar(name, len(missing), "images") as advance:
            for (label, index, _), image in self._at_full_size(self._kept(missing, copies)):
                self._check_there()
                write_marked_png(self._path_of(label, index), image, self._mark(label, index))
                advance(1, "")

    def _at_full_size(self, kept: Iterator[Draw]) -> Iterator[Draw]:
        """Kept draws as they are, or enlarged by the upscaler of the study."""
        if not self._config.is_cascade:
            return kept
        path = upscaler_path(self._config, self._run)
        return Enlarger(path, self._config, self._image_set).enlarge(kept)

    def _kept(self, wanted: list[tuple[int, int]], copies: CopyFilter | None) -> Iterator[Draw]:
        """The draw of each image that is kept, by class, index and attempt."""
        training = [file.name for file in self._train.files]
        for label, index, attempt, image, why in self._attempts(wanted, copies):
            if why is None:
                yield (label, index, attempt), image
            else:
                self._check_there()
                self._reject(self._path_of(label, index), attempt, why, training)

    def _check_there(self) -> None:
        if not self._folder.exists():
            raise StageError(
                f"{self._folder} is gone: expected the set that is being drawn. Another process "
                "finished or deleted it; start this one again."
            )

    def _attempts(
        self, wanted: list[tuple[int, int]], copies: CopyFilter | None
    ) -> Iterator[tuple[int, int, int, np.ndarray, Copy | float | None]]:
        """Each draw of each image, until one is kept.

        Yields:
            Class, index, attempt, pixels, and why it is left out: the training image it copies, or
            the probability of its class if that is too low.

        Raises:
            StageError: no draw of an image is kept.
        """
        for attempt in range(_ATTEMPTS):
            drawn = self._drawing.draws(wanted, attempt)
            wanted = []
            while batch := list(islice(drawn, _SEARCHED_AT_ONCE)):
                images = np.stack([image for *_, image in batch])
                originals = [None] * len(batch) if copies is None else copies.find(images)
                doubts: list[float | None] = [None] * len(batch)
                if self._settings.keep == "confirmed":
                    real = cast(RealImages, self._real_images)
                    doubts = real.doubts(images, np.array([label for label, *_ in batch]))
                for (label, index, image), copied, doubt in zip(
                    batch, originals, doubts, strict=True
                ):
                    why = doubt if copied is None else copied
                    if why is not None:
                        wanted.append((label, index))
                    yield label, index, attempt, image, why
            if not wanted:
                return
        label, index = wanted[0]
        reasons = self._reasons(self._path_of(label, index))
        if UNCONFIRMED in reasons:
            raise StageError(
                f"Image {index} of {self._names[label]}: of {_ATTEMPTS} draws "
                f"{reasons.count(UNCONFIRMED)} were not confirmed, and the others copies of "
                "training images, so the denoiser or the classifiers do not know this class. "
                f"Delete {self._folder}, then train longer or on more images; or lower "
                "sampling.keep_probability, or set sampling.keep: all."
            )
        raise StageError(
            f"Image {index} of {self._names[label]}: each of {_ATTEMPTS} draws was a copy of a "
            "training image, so the denoiser has memorised its training images. Delete "
            f"{self._folder}, then train on more images or for a shorter time; or set "
            "sampling.copy_filter: false and do not release the set."
        )

    def _reasons(self, path: Path) -> list[RejectedFor]:
        """Why each draw of an image was left out."""
        of_image = glob.escape(f"{path.parent.name}-{path.stem}")
        notes = self._folder.glob(_REJECTED.replace("*", f"{of_image}-*"))
        return [read_json(note, _MADE_BY)["reason"] for note in notes]

    @cached_property
    def _drawing(self) -> Drawing:
        return Drawing(
            self._config, self._settings, denoiser_path(self._config, self._run), self._train,
            self._folder / _FIRST_DRAWS, self._mark, self._guidance_scale,
        )  # fmt: skip

    def _guidance_scale(self) -> float:
        """The scale of the settings, or for "auto" the one that the draws ask for."""
        scale, path = self._settings.guidance_scale, self._folder / _GUIDANCE
        if scale != "auto":
            return scale
        if not path.exists():
            real = cast(RealImages, self._real_images)  # there is one where this is asked
            write_json(path, choose_guidance(real, self._drawing.draws_at, len(self._names)))
        return read_json(path, _MADE_BY)["scale"]

    def _copy_filter(self, index: int) -> CopyFilter | None:
        """The copy filter; None if it is off, or if too few images calibrate it."""
        if not self._settings.copy_filter or self._settings.start == "real":
            return None
        search = CopySearch(np.asarray(self._small_train.images))
        path = self._folder / _CALIBRATION
        if not path.exists():
            try:
                write_json(path, self._calibrate(search, index))
            except InputError as error:
                say(f"Copies are not searched for. {error}")
                return None
        return CopyFilter(search, read_json(path, _MADE_BY)["threshold"])

    def _calibrate(self, search: CopySearch, index: int) -> Calibration:
        reserve = self._small("reserve").images
        require_images("Copies", {"reserve images": len(reserve)}, "add images")
        enough = min(CALIBRATED_ON, max(MINIMUM, self._per_class * len(self._names)))
        per_class = -(-enough // len(self._names))
        drawn = self._drawing.first_draws(
            [(label, i) for label in range(len(self._names)) for i in range(per_class)], index
        )
        searched = sum(min(len(images), CALIBRATED_ON) for images in (reserve, drawn))
        with progress_bar("Calibrating the copy detector", searched, "images") as advance:
            return calibrate(
                search, reserve, drawn, self._config.seed, lambda count: advance(count, "")
            )

    @cached_property
    def _real_images(self) -> RealImages | None:
        """What draws are compared with; None if all are kept."""
        if not compares_draws(self._settings):
            return None
        groups = self._groups[self._split["train"]]
        return RealImages(self._config, self._settings, self._small_train, groups, self._run)

    @cached_property
    def _train(self) -> ImageSet:
        return self._image_set.subset(self._split["train"])

    @cached_property
    def _small_train(self) -> ImageSet:
        return self._small("train")

    def _small(self, role: Role) -> ImageSet:
        """The images of a role at the size that the denoiser draws."""
        return at_size(self._image_set.subset(self._split[role]), self._config.base_size)

    def _reject(self, path: Path, attempt: int, why: Copy | float, training: list[str]) -> None:
        """Note a rejected image in a file of its own, since other processes are drawing too."""
        note = rejected(f"{path.parent.name}/{path.name}", attempt, why, training)
        name = f"{path.parent.name}-{path.stem}-{attempt}"
        write_json(self._folder / _REJECTED.replace("*", name), note)
