"""Checkpoints from which an interrupted training resumes exactly."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np
from keras import ops

from kerasmed.errors import StageError
from kerasmed.files import written_aside
from kerasmed.fingerprint import Fingerprint
from kerasmed.parallel.workers import this_worker
from kerasmed.progress import say

_KEPT = 2


class Checkpoints(keras.callbacks.Callback):
    """Saves a training after each epoch, so that ``fit`` resumes it exactly where it stopped.

    Give it to ``fit`` again after an interruption. The training then ends as if it had never
    stopped, in float32 on a CPU under TensorFlow with the same bits. (A stream of batches goes on
    exactly only if it repeats itself.) The last two checkpoints are kept, and ``best.npz``, the
    average of the weights with the lowest validation loss.

    Keras's ``BackupAndRestore`` restores the count of batches only after ``fit`` has chosen them,
    so draws would repeat.

    Args:
        folder: folder of the checkpoints.
        ran: backend, device and precision of this process, for the record.

    Attributes:
        ran_before: ``ran`` of the process whose checkpoint was resumed; empty without one.

    Example:
        >>> import kerasmed as km, numpy as np
        >>> pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
        >>> images = km.ImageSet.from_arrays(pixels, ["benign", "malignant"] * 10)
        >>> ddpm = km.DiffusionModel.from_preset("cpu", images, widths=[8], batch_size=10)
        >>> ddpm.compile()
        >>> callbacks = [km.callbacks.Checkpoints("checkpoints")]
        >>> history = ddpm.fit(images, epochs=1, callbacks=callbacks, verbose=0)
        >>> ddpm.fit(images, epochs=3, callbacks=callbacks, verbose=0).epoch  # the first is done
        [1, 2]
    """

    def __init__(self, folder: Path | str, ran: dict[str, Any] | None = None):
        super().__init__()
        self.folder = Path(folder)
        self.ran = ran or {}
        self.ran_before: dict[str, Any] = {}
        self._recipe: Mapping[str, Any] = {}
        self._lowest = np.inf

    def resume(self, model: keras.Model, recipe: Fingerprint) -> int | None:
        """Load the newest readable checkpoint into a compiled ``DiffusionModel``.

        Args:
            model: what ``fit`` trains.
            recipe: settings and images that must not change when a training resumes.

        Returns:
            Number of batches that were learned from so far; None without a checkpoint.

        Raises:
            StageError: the checkpoint belongs to another network or recipe, or none of the
                checkpoints can be read.
        """
        self._recipe = recipe.as_record()
        kept = sorted(self.folder.glob("step-*.npz"), reverse=True)
        for path in kept:
            archive = _read(path, "the previous one" if path != kept[-1] else "none")
            if archive is None:
                continue
            meta, arrays = archive
            remedy = f"delete {self.folder} to train from the start"
            recipe.check(meta["fingerprint"], str(path), remedy)
            variables = _named_variables(model)
            if not _match(arrays, variables):
                raise StageError(
                    f"{path} holds another network or optimiser than this version of kerasmed "
                    f"builds; resume with the version that wrote it, or delete {self.folder}."
                )
            for name, variable in variables.items():
                variable.assign(arrays[name])
            self._lowest = meta["lowest"]
            self.ran_before = meta["ran"]
            return int(meta["step"])
        if kept:
            raise StageError(
                f"None of the {len(kept)} checkpoints in {self.folder} can be read; restore one, "
                f"or delete {self.folder} to train from the start."
            )
        return None

    def on_epoch_end(self, epoch, logs=None):
        if this_worker().is_chief:
            self._save(self.model, (logs or {}).get("val_loss", np.nan))

    def _save(self, model: keras.Model, validation_loss: float) -> None:
        """Write the raw weights, the optimiser with its averages, and the step."""
        if validation_loss < self._lowest:
            self._lowest = validation_loss
            self._save_best(model)
        arrays = {
            name: ops.convert_to_numpy(variable)
            for name, variable in _named_variables(model).items()
        }
        step = model.batches_seen
        meta = {"step": step, "lowest": self._lowest, "ran": self.ran, "fingerprint": self._recipe}
        with written_aside(self.folder / f"step-{step:08d}.npz") as temporary:
            np.savez(temporary, meta=json.dumps(meta), **arrays)
        leftovers = self.folder.glob(".*.tmp.npz")  # from a process that was killed
        for path in (*sorted(self.folder.glob("step-*.npz"))[:-_KEPT], *leftovers):
            path.unlink()

    def _save_best(self, model: keras.Model) -> None:
        """Replace the best averaged weights by the present ones."""
        weights = model.inference_network().get_weights()
        meta = {"step": model.batches_seen, "validation_loss": self._lowest}
        with written_aside(self.folder / "best.npz") as temporary:
            arrays = {f"w{i}": value for i, value in enumerate(weights)}
            np.savez(temporary, meta=json.dumps(meta), **arrays)

    def restore_best(self, model: keras.Model) -> dict[str, float] | None:
        """Give a model the averaged weights with the lowest validation loss.

        Returns:
            Their ``step`` and ``validation_loss``; None, after a message, if they cannot be read.
        """
        path = self.folder / "best.npz"
        archive = _read(path, "the last average")
        if archive is None:
            return None
        meta, arrays = archive
        weights = model.inference_network().weights
        if not _match(arrays, {f"w{i}": weight for i, weight in enumerate(weights)}):
            say(f"{path} belongs to another network; the last average is used instead.")
            return None
        model.set_average([arrays[f"w{i}"] for i in range(len(arrays))])
        return meta

    def describe_last(self) -> str:
        """A phrase that names the newest checkpoint."""
        kept = sorted(self.folder.glob("step-*.npz"))
        return f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was reached"


def _named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables of a network and of its optimiser, by their names in an archive."""
    return {
        f"{kind}{i}": variable
        for kind, variables in (("m", model.network.variables), ("o", model.optimizer.variables))
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
