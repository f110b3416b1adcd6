"""Running one stage, and checking which results of a study are current."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasmed.classify.config import SYNTHETIC_REGIMES
from kerasmed.errors import StageError
from kerasmed.files import sha256_of
from kerasmed.fingerprint import Difference, Fingerprint, changed, differences
from kerasmed.progress import say
from kerasmed.study.config import Config
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.stage import Stage
from kerasmed.study.stages import STAGES


def stages_of(config: Config, run: RunFolder) -> list[Stage]:
    """The stages of a study: all but those that it does not need.

    The worth is measured if it is asked for, and kept up to date once it was.
    """
    left_out = _without_networks(config)
    if not (config.worth.in_study or "worth" in run.finished_stages()):
        left_out.add("worth")
    return [stage for name, stage in STAGES.items() if name not in left_out]


def _without_networks(config: Config) -> set[str]:
    """Stages that train what a study does not draw with.

    A synthetic set from elsewhere needs no network, and small images need no upscaler.
    """
    if config.sampling.source is not None:
        return {"diffusion", "upscaler"}
    return set() if config.is_cascade else {"upscaler"}


def perform(stage: Stage, config: Config, run: RunFolder) -> Mapping[str, Any]:
    """Run a stage and write it to the run record; returns its result.

    Raises:
        StageError: a stage that it builds on has not finished, or was made from something else.
    """
    check_inputs(stage, config, run)
    record: dict[str, Any] = {
        "fingerprint": _made_from(stage, config, run).as_record(),
        "built_on": _built_on(stage, config, run).as_record(),
    }
    say(f"{stage.name}: started")
    started = time.monotonic()
    result = stage.run(config, run)
    record |= {
        "duration_s": round(time.monotonic() - started, 2),
        "outputs": _marks(stage.outputs(config, run), run),
        "result": result,
    }
    run.write_stage(config, stage.name, record)
    say(f"{stage.name}: done in {record['duration_s']:.0f} s")
    return result


def check_inputs(stage: Stage, config: Config, run: RunFolder) -> None:
    """Refuse to run a stage if one that it builds on has not finished with the present settings.

    Raises:
        StageError: naming the stage, and what differs with both values or what is missing.
    """
    for name in _ancestors(stage, config, run):
        check_finished(STAGES[name], config, run)


def check_finished(stage: Stage, config: Config, run: RunFolder) -> None:
    """Refuse to build on a stage that has not finished, lacks something or is outdated.

    Raises:
        StageError: as in ``check_inputs``.
    """
    run.require(stage.name, stage.command)
    check_unchanged(stage, config, run)
    missing = _missing(stage, config, run.finished_stages()[stage.name])
    if stage.additions is not None and missing:
        raise StageError(
            f"{', '.join(missing)} in {run.root}: expected {stage.additions.noun}, received "
            f"none; run `{stage.command}`, which adds what is missing."
        )
    for difference in _outdated(stage, config, run):
        raise _changed(stage, run, difference)


def check_unchanged(stage: Stage, config: Config, run: RunFolder) -> None:
    """Refuse a finished stage whose settings, files or results have changed since.

    What differs only because an earlier stage ran again is not refused: the stage is redone.

    Raises:
        StageError: naming the first difference.
    """
    record = run.finished_stages()[stage.name]
    recorded, outdated = record["fingerprint"], _outdated(stage, config, run)
    made_from = _made_from(stage, config, run)
    for difference in made_from.differences(recorded):
        # A file that is gone, as on another machine, has not changed; a new one is in the settings.
        is_lone = difference.key in recorded["inputs"].keys() ^ made_from.inputs.keys()
        is_added = _only_adds(stage, config, record, difference.key)
        if not (is_lone or is_added or difference in outdated):
            raise _changed(stage, run, difference)
    # The split may be edited until a stage has used it. A stage that is redone may have written
    # some results anew before it was interrupted.
    if stage.name != "data" and not outdated:
        outputs = _marks([run.root / name for name in record["outputs"]], run)
        for difference in differences(record["outputs"], outputs):
            raise _changed(stage, run, difference)


def is_current(stage: Stage, config: Config, run: RunFolder) -> bool:
    """Whether a stage is finished, lacks nothing, and was built on what its needs now hold.

    ``check_unchanged`` sees whether a user has changed anything.
    """
    finished = run.finished_stages()
    return all(
        name in finished
        and not _missing(STAGES[name], config, finished[name])
        and not _outdated(STAGES[name], config, run)
        for name in (*_ancestors(stage, config, run), stage.name)
    )


def _made_from(stage: Stage, config: Config, run: RunFolder) -> Fingerprint:
    """What the user gives to a stage: settings, files, and the split, which may be edited."""
    split = [] if stage.name == "data" else [run.split_path]
    return Fingerprint(stage.settings(config), _marks([*split, *stage.inputs(config)], run))


def _built_on(stage: Stage, config: Config, run: RunFolder) -> Fingerprint:
    """What earlier stages give to a stage: their outputs as recorded, without the split.

    Of the images it is what decides their pixels and how they may be turned.
    """
    finished = run.finished_stages()
    images = {}
    if stage.name != "data" and "data" in finished:
        images = {
            "data_hash": finished["data"]["result"]["data_hash"],
            "image_size": config.data.image_size,
            "symmetry": config.data.symmetry,
        }
    names = [name for name in _needs(stage, config, run) if name in finished and name != "data"]
    outputs = {key: mark for name in names for key, mark in finished[name]["outputs"].items()}
    return Fingerprint({"data": images}, outputs)


def _outdated(stage: Stage, config: Config, run: RunFolder) -> list[Difference]:
    """What differs because an earlier stage ran again since a stage finished."""
    finished = run.finished_stages()
    record = finished[stage.name]
    found = _built_on(stage, config, run).differences(record["built_on"])
    split = _marks([run.split_path], run)
    used = {name: record["fingerprint"]["inputs"].get(name) for name in split}
    if stage.name != "data" and split == finished.get("data", {}).get("outputs"):  # not edited
        found += differences(used, split)
    return found


def _changed(stage: Stage, run: RunFolder, difference: Difference) -> StageError:
    return changed(
        f"The stage {stage.name!r} in {run.root}", difference, f"rerun `{stage.command}`"
    )


def _marks(paths: list[Path], run: RunFolder) -> dict[str, str]:
    """SHA-256 of each file or folder that exists, by its path in the run folder if it is there."""
    marks = {}
    for path in filter(Path.exists, paths):
        inside = path.is_relative_to(run.root)
        marks[(path.relative_to(run.root) if inside else path).as_posix()] = sha256_of(path)
    return marks


def _needs(stage: Stage, config: Config, run: RunFolder) -> tuple[str, ...]:
    """Names of the stages it needs.

    CNNs trained on real images only need no synthetic set.
    """
    if stage.name == "report" and "worth" in run.finished_stages():
        return (*stage.needs, "worth")
    only_real = set(SYNTHETIC_REGIMES).isdisjoint(config.classifiers.train_on)
    unneeded = stage.name in ("classifiers", "evaluate") and "sampling" not in run.finished_stages()
    if only_real and unneeded:
        return tuple(name for name in stage.needs if name != "sampling")
    left_out = _without_networks(config)
    return tuple(name for name in stage.needs if name not in left_out)


def _ancestors(stage: Stage, config: Config, run: RunFolder) -> list[str]:
    """Names of all stages that it builds on, in the order of the study."""
    found: set[str] = set()
    open_ = [stage]
    while open_:
        needs = set(_needs(open_.pop(), config, run)) - found
        found |= needs
        open_ += [STAGES[name] for name in needs]
    return [name for name in STAGES if name in found]


def _missing(stage: Stage, config: Config, record: dict[str, Any]) -> list[str]:
    """Synthetic sets or CNNs that the settings ask for now and the finished stage lacks."""
    if stage.additions is None:
        return []
    present = record["result"].get(stage.additions.result, ())
    return [name for name in stage.additions.requested(config) if name not in present]


def _only_adds(stage: Stage, config: Config, record: dict[str, Any], key: str) -> bool:
    """Whether a changed setting only adds items, leaving the finished ones as they are."""
    additions = stage.additions
    if additions is None or not key.startswith(additions.keys):
        return False
    present = set(record["result"].get(additions.result, ()))
    settings = record["fingerprint"]["settings"]
    return present <= set(additions.requested(config)) and additions.unchanged(settings, config)
