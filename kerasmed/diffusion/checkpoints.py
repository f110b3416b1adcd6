"""Checkpoints from which an interrupted training resumes exactly."""

import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np
from keras import ops

from kerasmed.errors import StageError
from kerasmed.files import written_aside
from kerasmed.fingerprint import Fingerprint
from kerasmed.progress import say

_KEPT = 2


class Checkpoints:
    """NumPy archives of everything that a training needs to resume; the last two are kept.

    Keras's own checkpoints would lose the state of dropout's generators and the moving averages.

    Args:
        folder: folder of the checkpoints.
        recipe: settings and images that must not change when a training resumes.
        ran: backend, device and precision of this process, for the record.
    """

    def __init__(self, folder: Path, recipe: Fingerprint, ran: dict[str, Any]):
        self.folder = folder
        self.recipe = recipe
        self.ran = ran

    def save(self, model: keras.Model, step: int, seconds: float) -> None:
        """Write the raw weights, the optimiser with its averages, and the step."""
        arrays = {
            name: ops.convert_to_numpy(variable)
            for name, variable in _named_variables(model).items()
        }
        meta = {"step": step, "seconds": seconds, "ran": self.ran}
        meta["fingerprint"] = self.recipe.as_record()
        with written_aside(self.folder / f"step-{step:08d}.npz") as temporary:
            np.savez(temporary, meta=json.dumps(meta), **arrays)
        leftovers = self.folder.glob(".*.tmp.npz")  # from a process that was killed
        for path in (*sorted(self.folder.glob("step-*.npz"))[:-_KEPT], *leftovers):
            path.unlink()

    def restore(self, model: keras.Model) -> tuple[int, float, dict[str, Any]]:
        """Load the newest readable checkpoint into a compiled model.

        Returns:
            Step and seconds of training so far, 0 and 0.0 without a checkpoint; and ``ran`` of the
            process that saved it, empty if it was not recorded.

        Raises:
            StageError: the checkpoint belongs to another network or recipe, or none of the
                checkpoints can be read.
        """
        kept = sorted(self.folder.glob("step-*.npz"), reverse=True)
        for path in kept:
            archive = _read(path, "the previous one" if path != kept[-1] else "none")
            if archive is None:
                continue
            meta, arrays = archive
            remedy = f"delete {self.folder} to train from the start"
            self.recipe.check(meta["fingerprint"], str(path), remedy)
            variables = _named_variables(model)
            if not _match(arrays, variables):
                raise StageError(
                    f"{path} holds another network or optimiser than this version of kerasmed "
                    f"builds; resume with the version that wrote it, or delete {self.folder}."
                )
            for name, variable in variables.items():
                variable.assign(arrays[name])
            return int(meta["step"]), float(meta["seconds"]), meta.get("ran", {})
        if kept:
            raise StageError(
                f"None of the {len(kept)} checkpoints in {self.folder} can be read; restore one, "
                f"or delete {self.folder} to train from the start."
            )
        return 0, 0.0, {}

    def save_best(self, averaged: keras.Model, row: dict[str, float]) -> None:
        """Replace the best averaged weights, and their row of the history, by these."""
        weights = {f"w{i}": value for i, value in enumerate(averaged.get_weights())}
        with written_aside(self.folder / "best.npz") as temporary:
            np.savez(temporary, meta=json.dumps(row), **weights)

    def restore_best(self, averaged: keras.Model) -> dict[str, float] | None:
        """Load the best averaged weights; returns their row, or None if they cannot be read."""
        path = self.folder / "best.npz"
        archive = _read(path, "the last average")
        if archive is None:
            return None
        row, arrays = archive
        if not _match(arrays, {f"w{i}": weight for i, weight in enumerate(averaged.weights)}):
            say(f"{path} belongs to another network; the last average is used instead.")
            return None
        averaged.set_weights([arrays[f"w{i}"] for i in range(len(arrays))])
        return row

    def describe_last(self) -> str:
        """A phrase that names the newest checkpoint."""
        kept = sorted(self.folder.glob("step-*.npz"))
        return f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was reached"


def _named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables of a compiled model and of its optimiser, by their names in an archive."""
    return {
        f"{kind}{i}": variable
        for kind, variables in (("m", model.variables), ("o", model.optimizer.variables))
        for i, variable in enumerate(variables)
    }


def _match(arrays: dict[str, np.ndarray], variables: dict[str, keras.Variable]) -> bool:
    """Whether an archive holds exactly these variables, with the same shapes."""
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    return {name: array.shape for name, array in arrays.items()} == shapes


def _read(path: Path, fallback: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """The metadata and arrays of a checkpoint; None, after a message, if it is unreadable."""
    try:
        with path.open("rb") as stream, np.load(stream) as archive:
            meta = json.loads(str(archive["meta"]))
            return meta, {name: archive[name] for name in archive.files if name != "meta"}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        say(f"Checkpoint {path} is not readable ({error}); {fallback} is used instead.")
        return None
