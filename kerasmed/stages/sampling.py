"""The stage that draws the synthetic set, alone or as one of several processes."""

import os
import shutil
from pathlib import Path
from typing import Any

from PIL import Image

from kerasmed.config import Config
from kerasmed.diffusion.generate import Denoiser, generate_images
from kerasmed.diffusion.pixels import PixelRange
from kerasmed.errors import StageError
from kerasmed.files import make_folder, read_json, sha256_of, write_json, written_aside
from kerasmed.progress import progress_bar, say
from kerasmed.runs import RunFolder
from kerasmed.runtime import load_keras
from kerasmed.stages.inputs import load_split, read_synthetic


def draw_samples(config: Config, run: RunFolder) -> dict[str, Any]:
    """Draw what is missing of the synthetic set, and put it in the place of the one before."""
    draw_shard(config, run)
    for left_over in run.synthetic_unfinished.glob("*/.*"):  # of a process that was killed
        left_over.unlink()
    shutil.rmtree(run.synthetic, ignore_errors=True)
    run.synthetic_unfinished.rename(run.synthetic)
    drawn = read_synthetic(config, run)
    return {"images": drawn.counts(), "data_hash": drawn.data_hash}


def draw_shard(config: Config, run: RunFolder, index: int = 1, shards: int = 1) -> int:
    """Draw every ``shards``-th image from the ``index``-th on, those that are not there yet.

    Several processes may do so in one run folder at once; an image does not depend on which of them
    draws it. ``draw_samples`` then finds nothing missing and puts the set in its place.

    Returns:
        How many images of the whole set are still missing.

    Raises:
        StageError: the set was begun with other settings or another denoiser.
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
        "rejected": [],
    }
    _begin(folder, names, manifest)

    def path_of(label: int, image: int) -> Path:
        return folder / names[label] / f"{image:06d}.png"

    wanted = [(label, i) for label in range(len(names)) for i in range(per_class)]
    mine = wanted[index - 1 :: shards]
    missing = [each for each in mine if not path_of(*each).exists()]
    if len(missing) < len(mine):
        say(f"{len(mine) - len(missing)} of {len(mine)} images are there already.")
    denoiser, pixels = _open_denoiser(config, run)
    images = generate_images(
        denoiser,
        pixels,
        missing,
        len(names),
        config.data.image_size,
        config.seed,
        settings.solver,
        settings.steps,
        settings.guidance_scale,
        settings.batch_size,
    )
    with progress_bar("Sampling", len(missing), "images") as advance:
        for label, index_in_class, image in images:
            if not folder.exists():
                raise StageError(
                    f"{folder} is gone: expected the set that is being drawn; another process has "
                    "finished or deleted it, so start this one again."
                )
            with written_aside(path_of(label, index_in_class)) as temporary:
                Image.fromarray(image).save(temporary)
            advance(1, "")
    return sum(not path_of(*each).exists() for each in wanted)


def _begin(folder: Path, names: tuple[str, ...], manifest: dict[str, Any]) -> None:
    """Start a set, or make sure that the one begun is the same."""
    new = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    for name in names:
        make_folder(new / name)
    write_json(new / "manifest.json", manifest)
    try:
        new.rename(folder)  # fails where another process has begun, so that one of them wins
        return
    except OSError:
        shutil.rmtree(new)
    begun = read_json(folder / "manifest.json", "kerasmed sample CONFIG")
    for key, value in manifest.items():
        if begun.get(key) != value:
            raise StageError(
                f"The set in {folder} was begun with {key} {begun.get(key)}, received {value}; "
                f"take that back to go on, or delete {folder}."
            )


def _open_denoiser(config: Config, run: RunFolder) -> tuple[Denoiser, PixelRange]:
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
