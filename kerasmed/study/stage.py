"""What a stage is: its work, what it depends on, and how it may be divided or added to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kerasmed.study.config import Config
from kerasmed.study.run_folder import RunFolder


@dataclass(frozen=True)
class Share:
    """How a stage is divided among processes that share its run folder.

    Attributes:
        run: ``run(config, run, index, parts)`` does one part of the work, all of which may run at
            once, and returns how much is still missing of the whole.
        parts: ``parts(config, cpus)``, into how many it is divided for so many processors.
        cpus: of one part.
        memory_gib: of one part.
        wants_gpu: whether a GPU makes it faster.
    """

    run: Callable[[Config, RunFolder, int, int], int]
    parts: Callable[[Config, int], int]
    cpus: int
    memory_gib: float
    wants_gpu: bool


@dataclass(frozen=True)
class Pieces:
    """What a study may add to a finished stage, leaving what is there as it is.

    Attributes:
        result: where the stage's record names what there is.
        asked: what is asked for now.
        by: the settings that say so, and how each is made.
        kept: ``kept(settings, config)``, whether what is there, by the settings that were recorded,
            would now be made as it was.
        noun: one of them, in a message.
    """

    result: str
    asked: Callable[[Config], list[str]]
    by: tuple[str, ...]
    kept: Callable[[dict[str, Any], Config], bool]
    noun: str


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Attributes:
        name: its key in ``run.json``.
        command: what runs it alone.
        run: does the work and returns what is worth recording.
        sections: the parts of the experiment file that it depends on.
        needs: stages that must have finished.
        share: how it is divided among processes; None where one does it all.
        pieces: what may be added when it is finished; None where nothing may.
        together: whether all workers of ``runtime.distribution: multi_worker`` run it at once.
    """

    name: str
    command: str
    run: Callable[[Config, RunFolder], dict[str, Any]]
    sections: tuple[str, ...]
    needs: tuple[str, ...] = ()
    share: Share | None = None
    pieces: Pieces | None = None
    together: bool = False

    def settings(self, config: Config) -> dict[str, Any]:
        """The settings that decide this stage's outcome."""
        return deciding_settings(config.model_dump(mode="json", include=set(self.sections)))


def deciding_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Without what may differ in the same study: on how many devices, and how often looked at."""
    found = dict(settings)
    for section, key in (("runtime", "distribution"), ("diffusion", "preview_every")):
        if section in found:
            found[section] = {k: v for k, v in found[section].items() if k != key}
    return found
