"""What a stage is: its work, its inputs, and how it can be divided or extended."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasmed.study.config import Config
from kerasmed.study.run_folder import RunFolder


@dataclass(frozen=True)
class Sharding:
    """How a stage is divided among processes that work in the same run folder.

    Attributes:
        run: ``run(config, run, index, shards)`` does one shard of the work and returns how many
            items of the whole are still missing. All shards can run at the same time.
        shards: ``shards(config, cpus)``, the number of shards for so many processors.
        cpus: processors that one shard needs.
        memory_gib: memory that one shard needs.
        wants_gpu: whether a GPU makes a shard faster.
    """

    run: Callable[[Config, RunFolder, int, int], int]
    shards: Callable[[Config, int], int]
    cpus: int
    memory_gib: float
    wants_gpu: bool


@dataclass(frozen=True)
class Additions:
    """What can be added to a finished stage without redoing the rest.

    Attributes:
        result: key of the stage's result under which the finished items are named.
        requested: names of the items that the settings ask for now.
        keys: the settings that name the items and say how each is made.
        unchanged: ``unchanged(settings, config)``, whether items made with the recorded settings
            would now be made in the same way.
        noun: what one item is called in a message.
    """

    result: str
    requested: Callable[[Config], list[str]]
    keys: tuple[str, ...]
    unchanged: Callable[[dict[str, Any], Config], bool]
    noun: str


@dataclass(frozen=True)
class Stage:
    """One step of a study.

    Attributes:
        name: its key in ``run.json``.
        command: the command that runs this stage only.
        run: does the work and returns the result to record.
        sections: the sections of the experiment file that it depends on.
        needs: stages that must have finished before, but for those that a study leaves out.
        outputs: files and folders that it writes and that later stages or the user read.
        inputs: files that the settings name and that it reads, such as pretrained weights.
        sharding: how it is divided among processes; None if one process does it all.
        additions: what can be added once it is finished; None if nothing can.
        further: settings of other sections that it depends on.
        together: whether all workers of ``runtime.distribution: multi_worker`` run it at once.
    """

    name: str
    command: str
    run: Callable[[Config, RunFolder], Mapping[str, Any]]
    sections: tuple[str, ...]
    needs: tuple[str, ...] = ()
    outputs: Callable[[Config, RunFolder], list[Path]] = lambda config, run: []
    inputs: Callable[[Config], list[Path]] = lambda config: []
    sharding: Sharding | None = None
    additions: Additions | None = None
    further: Callable[[Config], dict[str, Any]] = lambda config: {}
    together: bool = False

    def settings(self, config: Config) -> dict[str, Any]:
        """The settings that determine the result of this stage."""
        settings = config.model_dump(mode="json", include=set(self.sections))
        return deciding_settings(settings | self.further(config))


def deciding_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without those that may change within a study, since they change no result."""
    deciding = dict(settings)
    for section, key in (
        ("runtime", "distribution"),
        ("diffusion", "preview_every"),
        ("upscaler", "preview_every"),
        ("sampling", "source_learned_from"),
        ("worth", "in_study"),
    ):
        if section in deciding:
            deciding[section] = {k: v for k, v in deciding[section].items() if k != key}
    return deciding
