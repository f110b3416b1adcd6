"""Checkpoints of a training, from which it goes on exactly."""

import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np
from keras import ops

from kerasmed.diffusion.config import DiffusionConfig
from kerasmed.errors import StageError
from kerasmed.files import written_aside
from kerasmed.progress import say

_KEPT = 2
# Where the parts of a recipe stand that are not of the section `diffusion`.
_SETTINGS = {
    "seed": "seed",
    "symmetry": "data.symmetry",
    "image_size": "data.image_size",
    "precision": "runtime.precision",
}
_IMAGES = {
    "data_hash": "has learned from other images than the role `train`",
    "validation_hash": "was judged by other images than the role `validation`",
}


class Checkpoints:
    """All that a training needs to go on, as NumPy archives; the last two are kept.

    Keras's own would lose the state of dropout's generators and the averages' place.

    Args:
        folder: where they lie.
        recipe: what must be the same for a training to go on.
        ran: backend, device and precision of this process, for the record.
    """

    def __init__(self, folder: Path, recipe: dict[str, Any], ran: dict[str, Any]):
        self.folder = folder
        self.recipe = recipe
        self.ran = ran

    def save(self, model: keras.Model, step: int, seconds: float) -> None:
        """Write the raw weights, the optimiser with its averages, and the step."""
        arrays = {n: ops.convert_to_numpy(variable) for n, variable in _named(model).items()}
        meta = {"step": step, "seconds": seconds, "recipe": self.recipe, "ran": self.ran}
        with written_aside(self.folder / f"step-{step:08d}.npz") as temporary:
            np.savez(temporary, meta=json.dumps(meta), **arrays)
        left_over = self.folder.glob(".*.tmp.npz")  # of a process that was killed
        for old in (*sorted(self.folder.glob("step-*.npz"))[:-_KEPT], *left_over):
            old.unlink()

    def restore(self, model: keras.Model) -> tuple[int, float, dict[str, Any]]:
        """Load the newest checkpoint that can be read into a compiled model.

        Returns:
            Step and seconds of training so far, 0 and 0.0 where there is no checkpoint; and what
            ran there, empty where that was not noted.

        Raises:
            StageError: the checkpoint belongs to another network or recipe, or there are
                checkpoints of which none can be read.
        """
        kept = sorted(self.folder.glob("step-*.npz"), reverse=True)
        for path in kept:
            found = _read(path, "the one before" if path != kept[-1] else "none")
            if found is None:
                continue
            meta, arrays = found
            self._check_recipe(path, meta["recipe"])
            variables = _named(model)
            if not _fit(arrays, variables):
                raise StageError(
                    f"{path} holds another network or optimiser than this version of kerasmed "
                    f"builds; go on with the version that made it, or delete {self.folder}."
                )
            for name, variable in variables.items():
                variable.assign(arrays[name])
            return int(meta["step"]), float(meta["seconds"]), meta.get("ran", {})
        if kept:
            raise StageError(
                f"None of the {len(kept)} checkpoints in {self.folder} can be read; put one back, "
                f"or delete {self.folder} to train from the start."
            )
        return 0, 0.0, {}

    def save_best(self, averaged: keras.Model, row: dict[str, float]) -> None:
        """Keep averaged weights, and their row of the history, in the place of those before."""
        weights = {f"w{i}": value for i, value in enumerate(averaged.get_weights())}
        with written_aside(self.folder / "best.npz") as temporary:
            np.savez(temporary, meta=json.dumps(row), **weights)

    def restore_best(self, averaged: keras.Model) -> dict[str, float] | None:
        """Load the averaged weights that were kept; their row, None where they cannot be read."""
        found = _read(self.folder / "best.npz", "the last average")
        if found is None:
            return None
        row, arrays = found
        if not _fit(arrays, {f"w{i}": w for i, w in enumerate(averaged.weights)}):
            say(f"{self.folder / 'best.npz'} is of another network; the last average is taken.")
            return None
        averaged.set_weights([arrays[f"w{i}"] for i in range(len(arrays))])
        return row

    def describe_last(self) -> str:
        """Which checkpoint is the newest, in words."""
        kept = sorted(self.folder.glob("step-*.npz"))
        return f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was reached"

    def _check_recipe(self, path: Path, recipe: dict) -> None:
        for key, value in self.recipe.items():
            field = DiffusionConfig.model_fields.get(key)
            # Kerasmed may have learned the key since.
            old = recipe.get(key, value if field is None else field.default)
            if old == value:
                continue
            if key in _IMAGES:
                raise StageError(
                    f"{path} {_IMAGES[key]} now holds; put images and split back, use another "
                    f"--out, or delete {self.folder}."
                )
            name = _SETTINGS.get(key, f"diffusion.{key}")
            # Which several devices under TensorFlow have not, see `resolve_runtime`.
            alone = " --set runtime.distribution=none" if old == "mixed_float16" else ""
            raise StageError(
                f"{path} was made with {name} {old}, received {value}; go on with "
                f'--set "{name}={old}"{alone}, use another --out, or delete {self.folder}.'
            )


def _named(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables of a compiled model and of its optimiser, as an archive names them."""
    return {
        f"{kind}{i}": variable
        for kind, variables in (("m", model.variables), ("o", model.optimizer.variables))
        for i, variable in enumerate(variables)
    }


def _fit(arrays: dict[str, np.ndarray], variables: dict[str, keras.Variable]) -> bool:
    """Whether an archive holds these variables, all of them and no others."""
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    return {name: array.shape for name, array in arrays.items()} == shapes


def _read(path: Path, instead: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """What a checkpoint says of itself, and its arrays; None, and a word of it, if unreadable."""
    try:
        with path.open("rb") as stream, np.load(stream) as archive:
            meta = json.loads(str(archive["meta"]))
            return meta, {name: archive[name] for name in archive.files if name != "meta"}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        say(f"Checkpoint {path} is not readable ({error}); {instead} is taken.")
        return None
