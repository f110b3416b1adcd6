"""The run folder: the paths of all results, and the record of finished stages."""

import os
import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import portalocker

from kerasmed import __version__
from kerasmed.errors import StageError
from kerasmed.files import make_folder, read_json, write_json, writing
from kerasmed.inference.precisions import precision_path
from kerasmed.runtime.backend import load_keras
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions
from kerasmed.study.config import Config

if TYPE_CHECKING:
    import keras

_WITHOUT_WAITING = portalocker.LockFlags.NON_BLOCKING


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run (``runs/<name>/`` unless --out says otherwise)."""

    root: Path

    @property
    def record_path(self) -> Path:
        """Resolved config, versions, and one entry for each finished stage."""
        return self.root / "run.json"

    @property
    def split_path(self) -> Path:
        """Class, group and role of every file."""
        return self.root / "split.json"

    @property
    def cache(self) -> Path:
        """Decoded images; can be deleted at any time."""
        return self.root / "cache"

    @property
    def images(self) -> Path:
        """Images that the run made itself, such as phantoms."""
        return self.root / "images"

    @property
    def diffusion(self) -> Path:
        """Checkpoints, denoiser, history and previews of the diffusion model."""
        return self.root / "diffusion"

    @property
    def upscaler(self) -> Path:
        """As ``diffusion``, of the upscaler."""
        return self.root / "upscaler"

    @property
    def synthetic(self) -> Path:
        """The main synthetic set: one folder per class (see ``folder_name``)."""
        return self.root / "synthetic"

    @property
    def variants(self) -> Path:
        """The additional synthetic sets of a sweep, one folder each."""
        return self.root / "variants"

    def synthetic_set(self, variant: str | None) -> Path:
        """The main synthetic set, or an additional one of a sweep."""
        return self.synthetic if variant is None else self.variants / variant

    @property
    def classifiers(self) -> Path:
        """One folder for each trained CNN."""
        return self.root / "classifiers"

    @property
    def exported(self) -> Path:
        """One ONNX file for each trained CNN, with its sidecar."""
        return self.root / "exported"

    @property
    def worth(self) -> Path:
        """What each CNN of the learning curve names the test images."""
        return self.root / "worth"

    @property
    def evaluation(self) -> Path:
        """Metrics of the classifiers, fidelity and privacy."""
        return self.root / "evaluation"

    @property
    def explanations(self) -> Path:
        """Overlays of the explainers, and their numbers."""
        return self.root / "explanations"

    @property
    def figures(self) -> Path:
        """Pictures of the report."""
        return self.root / "figures"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report.html"

    @contextmanager
    def locked(self, index: int = 1, shards: int = 1) -> Iterator[None]:
        """Keep other processes from writing to the run folder while this one does.

        Processes with different shards of the same number may write at the same time. The operating
        system releases the lock when the process ends, however it ends.

        Raises:
            StageError: another process writes to the folder.
        """
        make_folder(self.root)
        with ExitStack() as stack:
            if shards > 1:
                self._lock(stack, "", portalocker.LockFlags.SHARED)
                self._lock(stack, f".{index}-of-{shards}", portalocker.LockFlags.EXCLUSIVE)
            else:
                self._lock(stack, "", portalocker.LockFlags.EXCLUSIVE)
            yield

    def is_held(self, index: int, shards: int) -> bool:
        """Whether a running process holds this shard of the folder."""
        with (self.root / f".lock.{index}-of-{shards}").open("a", encoding="utf-8") as file:
            try:
                portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | _WITHOUT_WAITING)
            except portalocker.LockException:
                return True
        return False

    def _lock(self, stack: ExitStack, name: str, flag: portalocker.LockFlags) -> None:
        path = self.root / f".lock{name}"
        with writing(path):
            file = stack.enter_context(path.open("a", encoding="utf-8"))
        try:
            portalocker.lock(file, flag | _WITHOUT_WAITING)
        except portalocker.LockException:
            holder = path.read_text(encoding="utf-8").strip() or "another process"
            raise StageError(
                f"{holder} writes to {self.root}: expected a run folder for this process only; "
                "wait for it, choose another --out, or divide a study with --shard I/N."
            ) from None
        path.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")

    def record(self) -> dict[str, Any]:
        """The run record; a new one if none exists."""
        if not self.record_path.exists():
            return {"stages": {}}
        record = read_json(self.record_path, "kerasmed study")
        if not isinstance(record, dict) or not isinstance(record.get("stages"), dict):
            raise StageError(
                f"{self.record_path} is not a record of a run: expected `stages`; restore the file "
                "that kerasmed wrote, or start a new run folder with --out."
            )
        return record

    def finished_stages(self) -> dict[str, dict[str, Any]]:
        """Record of each finished stage, by name."""
        return self.record()["stages"]

    def write_stage(self, config: Config, stage: str, entry: dict[str, Any]) -> None:
        """Record a stage as finished, with its entry, the machine and the time."""
        record = self.record()
        record.update(
            name=config.name,
            kerasmed=__version__,
            seed=config.seed,
            config=config.model_dump(mode="json"),
        )
        if stage == "data":
            record["data_hash"] = entry["result"]["data_hash"]
        record["stages"][stage] = {
            **entry,
            "finished": datetime.now(UTC).isoformat(timespec="microseconds"),
            "machine": machine(),
            "versions": versions(),
        }
        write_json(self.record_path, record)

    def require(self, stage: str, command: str) -> dict[str, Any]:
        """The record of a stage that another stage needs.

        Raises:
            StageError: the stage has not finished.
        """
        try:
            return self.finished_stages()[stage]
        except KeyError:
            raise StageError(
                f"The stage {stage!r} has not finished in {self.root}; run `{command}` first."
            ) from None


def trained_model_path(path: Path) -> Path:
    """Where the Keras model of an ONNX file is, if the file is still in its run folder."""
    if path.with_suffix(".keras").exists():  # of a denoiser or upscaler
        return path.with_suffix(".keras")
    stem = precision_path(path, "fp32").stem
    return path.resolve().parent.parent / "classifiers" / stem / "model.keras"


def open_trained_model(path: Path) -> "keras.Model | None":
    """The Keras network that an ONNX file was exported from; None if it does not exist."""
    trained = trained_model_path(path)
    if not trained.exists():
        return None
    load_keras()
    from kerasmed.saved_models import load_model

    return load_model(trained, compile=False).inference_network()
