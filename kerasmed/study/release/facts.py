"""What the cards of a release say: facts of a study, without a path or a name of a real image."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from kerasmed import __version__
from kerasmed.audit.rules import VARIED
from kerasmed.audit.tables import spaces_of
from kerasmed.data.datasets import DATASETS
from kerasmed.data.image_set import ImageSet
from kerasmed.diffusion.config import FACTOR
from kerasmed.files import read_json
from kerasmed.study.run_folder import RunFolder
from kerasmed.study.synthetic_set import MANIFEST

# Settings that may name files, patients or places of the one who releases.
_PRIVATE = frozenset({"source", "outside", "pattern", "class_names"})


def facts_of(run: RunFolder, released: ImageSet, withheld: int) -> dict[str, Any]:
    """Values of all cards; of the real images only their numbers.

    Args:
        run: the run folder of a finished study.
        released: the images that are handed on.
        withheld: number of images that the audit called copies.
    """
    record = run.record()
    foreign = record["config"]["sampling"]["source"] is not None
    stages = record["stages"]
    data = stages["data"]["result"]
    manifest = read_json(run.synthetic / MANIFEST, "kerasmed sample")
    fidelity = read_json(run.evaluation / "fidelity.json", "kerasmed audit")
    published = [
        known
        for known in DATASETS.values()
        if set(known.counts) == set(data["classes"]) and Path(known.config).stem == record["name"]
    ]
    spaces = spaces_of(fidelity)
    return {
        "name": record["name"],
        "version": __version__,
        "set_id": set_id_of(manifest["data_hash"], released),
        "record": record,
        "size": released.image_size,
        "counts": released.counts(),
        "withheld": withheld,
        "rejected": Counter(draw["reason"] for draw in manifest["rejected"]),
        "real": {role: data["roles"][role] for role in ("train", "test", "reserve")},
        "drawn": manifest["fingerprint"]["settings"],
        "guidance": manifest.get("guidance"),
        "training": None if foreign else record["stages"]["diffusion"]["result"],
        "upscaling": None if foreign else _upscaling(record),
        "learned_from": record["config"]["sampling"]["source_learned_from"],
        "metrics": read_json(run.evaluation / "metrics.json", "kerasmed evaluate"),
        "comparisons": read_json(run.evaluation / "comparisons.json", "kerasmed evaluate"),
        "outside": _read_if_there(run.evaluation / "outside.json"),
        "worth": _read_if_there(run.evaluation / "worth.json") if "worth" in stages else None,
        "subgroups": _without_names(_read_if_there(run.evaluation / "subgroups.json") or {}),
        "spaces": spaces,
        "variety": _variety(next(iter(spaces.values())), list(data["classes"])),
        "privacy": read_json(run.evaluation / "privacy.json", "kerasmed audit"),
        "verdicts": read_json(run.evaluation / "verdicts.json", "kerasmed audit"),
        "explained": _read_if_there(run.explanations / "summary.json")
        if "explain" in stages
        else None,
        "published": published[0] if published else None,
        "provenance": _provenance(record, manifest, foreign),
        "split_was_edited": _split_was_edited(record),
    }


def set_id_of(data_hash: str, released: ImageSet) -> str:
    """Identifier of a release: of the drawn set and of which of its images are in it."""
    names = "\n".join(file.sha256 for file in released.files)
    return hashlib.sha256(f"{data_hash}\n{names}".encode()).hexdigest()[:16]


def without_paths(value: Any) -> Any:
    """Settings without what may name a place or a patient; of a path its last name stays."""
    if isinstance(value, dict):
        return {key: without_paths(item) for key, item in value.items() if key not in _PRIVATE}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if isinstance(value, str):
        return value.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return value


def _without_names(subgroups: dict[str, Any]) -> dict[str, Any]:
    """Subgroups that have figures; sites and devices by numbers, which name no hospital."""
    shown = {}
    for column, values in subgroups.items():
        measured = {v: row for v, row in values.items() if "not_computed" not in row["accuracy"]}
        if column in ("site", "device"):
            measured = {str(n): row for n, row in enumerate(measured.values(), 1)}
        if measured:
            shown[column] = measured
    return shown


def _upscaling(record: dict[str, Any]) -> dict[str, Any] | None:
    """The training of the upscaler, where a study has one, and the size that it starts from."""
    if "upscaler" not in record["stages"]:
        return None
    size = record["config"]["data"]["image_size"] // FACTOR
    return record["stages"]["upscaler"]["result"] | {"base_size": size}


def _split_was_edited(record: dict[str, Any]) -> bool:
    """Whether the roles were changed by hand after the split."""
    stages = record["stages"]
    written, used = stages["data"]["outputs"], stages["evaluate"]["fingerprint"]["inputs"]
    return used.get("split.json", written["split.json"]) != written["split.json"]


def _provenance(record: dict[str, Any], manifest: dict[str, Any], foreign: bool) -> dict[str, Any]:
    """Where the set comes from, for programs.

    One hash stands for the whole split: one for each image would show who is in it.
    """
    stages = record["stages"]
    outputs = {
        name: hashed for entry in stages.values() for name, hashed in entry["outputs"].items()
    }
    hashes = {
        "denoiser": None if foreign else outputs.get("diffusion/denoiser.keras"),
        "upscaler": None if foreign else outputs.get("upscaler/upscaler.keras"),
        "split": outputs["split.json"],
        "drawn_set": manifest["data_hash"],
    }
    return {
        "kerasmed": record["kerasmed"],
        "seed": record["seed"],
        "settings": without_paths(record["config"]),
        "sha256": {name: hashed for name, hashed in hashes.items() if hashed is not None},
        "versions": stages["sampling"]["versions"],
        "finished": {name: entry["finished"] for name, entry in stages.items()},
    }


def _variety(space: dict[str, Any], classes: list[str]) -> dict[str, str]:
    """How varied each class is, in words."""
    words = {}
    for name in classes:
        of_class = space.get("per_class", {}).get(name, {"not_computed": ""})
        if "not_computed" in of_class:
            words[name] = "not measured: too few images or groups"
            continue
        relative = of_class["relative"]["coverage"]
        low, high = relative["interval"]
        if low >= VARIED.green:
            words[name] = "as varied as real images, as far as this can be measured"
        elif high < VARIED.red:
            words[name] = "much less varied than real images"
        elif high < 1:
            words[name] = "less varied than real images"
        else:
            words[name] = "too few groups to tell whether it is less varied than real images"
        if low >= 0 and high <= 2:
            words[name] += f" ({relative['value']:.2f} of their coverage, {low:.2f} to {high:.2f})"
    return words


def _read_if_there(path: Path) -> Any:
    return read_json(path, "kerasmed study") if path.exists() else None
