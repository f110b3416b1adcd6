"""The stage that draws the synthetic set, alone or as one of several processes."""

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasmed.config import Config
from kerasmed.data.image_set import ImageSet
from kerasmed.data.splits import Split
from kerasmed.diffusion.generate import Denoiser, generate_images
from kerasmed.diffusion.pixels import PixelRange
from kerasmed.errors import InputError, StageError
from kerasmed.evaluate.copies import Copy, CopyFilter
from kerasmed.files import make_folder, read_json, sha256_of, write_json, written_aside
from kerasmed.progress import progress_bar, say
from kerasmed.runs import RunFolder
from kerasmed.runtime import load_keras
from kerasmed.stages.inputs import load_split, read_synthetic

# Draws of one image, of which each but the last was a copy.
_ATTEMPTS = 20
_SEARCHED_AT_ONCE = 32
# Notes on copies, in the unfinished set.
_REJECTED = "rejected"
_MANIFEST = "manifest.json"


def draw_samples(config: Config, run: RunFolder) -> dict[str, Any]:
    """Draw what is missing of the synthetic set, and put it in the place of the one before."""
    draw_shard(config, run)
    for left_over in run.synthetic_unfinished.glob("*/.*"):  # of a process that was killed
        left_over.unlink()
    rejected = _note_rejected(run.synthetic_unfinished)
    shutil.rmtree(run.synthetic, ignore_errors=True)
    run.synthetic_unfinished.rename(run.synthetic)
    drawn = read_synthetic(config, run)
    return {"images": drawn.counts(), "data_hash": drawn.data_hash, "rejected": rejected}


def draw_shard(config: Config, run: RunFolder, index: int = 1, shards: int = 1) -> int:
    """Draw every ``shards``-th image from the ``index``-th on, those that are not there yet.

    Several processes may do so in one run folder at once; an image does not depend on which of them
    draws it. ``draw_samples`` then finds nothing missing and puts the set in its place. An image
    that is a copy of a training image is drawn again from another seed, and noted.

    Returns:
        How many images of the whole set are still missing.

    Raises:
        StageError: the set was begun with other settings or another denoiser, or the denoiser draws
            nothing but copies.
    """
    settings, folder = config.sampling, run.synthetic_unfinished
    image_set, split = load_split(config, run)
    names = image_set.class_names
    per_class = settings.per_class or max(image_set.counts(split["diffusion"]).values())
    manifest = {
        "seed": config.seed,
        "per_class": per_class,
        "classes": list(names),
        **settings.model_dump(exclude={"per_class"}),
        "denoiser_sha256": sha256_of(_denoiser_path(config, run)),
    }
    _begin(folder, names, manifest)

    def path_of(label: int, image: int) -> Path:
        return folder / names[label] / f"{image:06d}.png"

    wanted = [(label, i) for label in range(len(names)) for i in range(per_class)]
    mine = wanted[index - 1 :: shards]
    missing = [each for each in mine if not path_of(*each).exists()]
    if len(missing) < len(mine):
        say(f"{len(mine) - len(missing)} of {len(mine)} images are there already.")
    if missing:
        _draw_missing(config, run, image_set, split, missing, path_of)
    return sum(not path_of(*each).exists() for each in wanted)


def _draw_missing(
    config: Config,
    run: RunFolder,
    image_set: ImageSet,
    split: Split,
    missing: list[tuple[int, int]],
    path_of: Callable[[int, int], Path],
) -> None:
    """Write these images, and a note on each draw that was a copy."""
    folder, names = run.synthetic_unfinished, image_set.class_names
    copies = _copy_filter(config, image_set, split)
    training = [image_set.files[position].name for position in split["diffusion"]]
    with progress_bar("Sampling", len(missing), "images") as advance:
        for label, index, attempt, image, copied in _attempts(config, run, missing, names, copies):
            if not folder.exists():
                raise StageError(
                    f"{folder} is gone: expected the set that is being drawn; another process has "
                    "finished or deleted it, so start this one again."
                )
            path = path_of(label, index)
            if copied is not None:
                _reject(path, attempt, copied, training[copied.position])
                continue
            with written_aside(path) as temporary:
                Image.fromarray(image).save(temporary)
            advance(1, "")


def _attempts(
    config: Config,
    run: RunFolder,
    wanted: list[tuple[int, int]],
    names: tuple[str, ...],
    copies: CopyFilter | None,
) -> Iterator[tuple[int, int, int, np.ndarray, Copy | None]]:
    """Each draw of each image until it is no copy: class, index, attempt, pixels, what it copies.

    Raises:
        StageError: the denoiser draws nothing but copies.
    """
    settings = config.sampling
    denoiser, pixels = open_denoiser(config, run)
    for attempt in range(_ATTEMPTS):
        drawn = generate_images(
            denoiser,
            pixels,
            [(*each, attempt) for each in wanted],
            len(names),
            config.data.image_size,
            config.seed,
            settings.solver,
            settings.steps,
            settings.guidance_scale,
            settings.batch_size,
        )
        wanted = []
        while batch := list(islice(drawn, _SEARCHED_AT_ONCE)):
            images = np.stack([image for *_, image in batch])
            found = [None] * len(batch) if copies is None else copies.find(images)
            for (label, index, image), copied in zip(batch, found, strict=True):
                if copied is not None:
                    wanted.append((label, index))
                yield label, index, attempt, image, copied
        if not wanted:
            return
    label, index = wanted[0]
    raise StageError(
        f"Image {index} of {names[label]}: each of {_ATTEMPTS} draws was a copy of a training "
        "image, so the denoiser knows its images by heart. Train it on more of them or for a "
        "shorter time; or set sampling.copy_filter: false, and do not give the set away."
    )


def _reject(path: Path, attempt: int, copied: Copy, training: str) -> None:
    """Note that an image was not kept, in a file of its own, since other processes draw too."""
    note = {
        "image": f"{path.parent.name}/{path.name}",
        "attempt": attempt,
        "reason": "a copy of a training image",
        "training_image": training,
        "similarity": copied.similarity,
        "threshold": copied.threshold,
    }
    name = f"{path.parent.name}-{path.stem}-{attempt}.json"
    write_json(path.parent.parent / _REJECTED / name, note)


def _copy_filter(config: Config, image_set: ImageSet, split: Split) -> CopyFilter | None:
    """What tells copies, or nothing where that was not asked for or cannot be."""
    if not config.sampling.copy_filter:
        return None
    training, held_out = (image_set.subset(split[role]) for role in ("diffusion", "train"))
    try:
        return CopyFilter(training.images, held_out.images, config.seed)
    except InputError as error:
        say(f"Copies are not looked for. {error}")
        return None


def _begin(folder: Path, names: tuple[str, ...], manifest: dict[str, Any]) -> None:
    """Start a set, or make sure that the one begun is the same."""
    new = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    for name in names:
        make_folder(new / name)
    write_json(new / _MANIFEST, {**manifest, "rejected": []})
    try:
        new.rename(folder)  # fails where another process has begun, so that one of them wins
        return
    except OSError:
        shutil.rmtree(new)
    begun = read_json(folder / _MANIFEST, "kerasmed sample CONFIG")
    for key, value in manifest.items():
        if begun.get(key) != value:
            raise StageError(
                f"The set in {folder} was begun with {key} {begun.get(key)}, received {value}; "
                f"take that back to go on, or delete {folder}."
            )


def _note_rejected(folder: Path) -> int:
    """Move the notes on copies into the manifest; how many there are."""
    manifest = read_json(folder / _MANIFEST, "kerasmed sample CONFIG")
    paths = sorted((folder / _REJECTED).glob("*.json"))
    notes = [read_json(path, "kerasmed sample CONFIG") for path in paths]
    # Both, since a process that was killed while it removed the notes has moved them all.
    every = {(note["image"], note["attempt"]): note for note in manifest["rejected"] + notes}
    manifest["rejected"] = list(every.values())
    write_json(folder / _MANIFEST, manifest)
    shutil.rmtree(folder / _REJECTED, ignore_errors=True)
    return len(every)


def open_denoiser(config: Config, run: RunFolder) -> tuple[Denoiser, PixelRange]:
    """The denoiser, as the engine that was asked for, and the range that it works in."""
    path = _denoiser_path(config, run)
    if config.sampling.engine == "onnx":
        from kerasmed.inference import OnnxDenoiser

        session = OnnxDenoiser(path)
        return session, PixelRange(
            tuple(session.metadata["pixel_mean"]), session.metadata["pixel_scale"]
        )
    load_keras()
    import keras

    from kerasmed.diffusion.unet import keras_denoiser, pixels_of

    model = keras.saving.load_model(path, compile=False)
    return keras_denoiser(model), pixels_of(model)


def _denoiser_path(config: Config, run: RunFolder) -> Path:
    path = run.diffusion / f"denoiser.{config.sampling.engine}"
    if not path.exists():
        raise StageError(
            f"Missing {path}: the training ran without TensorFlow, which the export needs; run "
            "`kerasmed train diffusion` again with KERAS_BACKEND=tensorflow (it only exports), or "
            "set sampling.engine: keras."
        )
    return path
