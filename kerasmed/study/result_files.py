"""The JSON files that other programs can read, and the JSON schema of each.

Each file has a type next to the code that writes it. The schemas are made from these types, so they
are those of this very version.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NotRequired, TypeVar

from pydantic import ConfigDict, TypeAdapter, with_config
from pydantic.json_schema import GenerateJsonSchema
from typing_extensions import TypedDict, get_original_bases, is_typeddict

from kerasmed.audit.appearance import AppearanceOfSets
from kerasmed.audit.comparison import Comparison
from kerasmed.audit.privacy import Privacy
from kerasmed.audit.rules import Verdict
from kerasmed.audit.subgroups import Subgroups
from kerasmed.audit.usefulness import Usefulness
from kerasmed.audit.worth import Worth
from kerasmed.data.splits import SplitFile
from kerasmed.errors import InputError
from kerasmed.explain.records import ExplanationRecord
from kerasmed.explain.summary import Summary
from kerasmed.fingerprint import FingerprintRecord
from kerasmed.inference.predict import Prediction, Unreadable
from kerasmed.metrics.classification import Curves
from kerasmed.result_types import NotNegative, Sha256, Whole
from kerasmed.settings import Count
from kerasmed.study.config import Config
from kerasmed.study.data_check import DataCheck
from kerasmed.study.leakage import LeakageResult
from kerasmed.study.stages.audit import AuditResult, FidelityFile
from kerasmed.study.stages.classifiers import ClassifiersResult, TrainingRecord
from kerasmed.study.stages.data import DataResult
from kerasmed.study.stages.diffusion import DiffusionResult
from kerasmed.study.stages.evaluate import EvaluateResult, MetricsRow, OutsideResult, SeedsRow
from kerasmed.study.stages.explain import ExplainResult
from kerasmed.study.stages.export import ExportedFile, ExportRecord, Sidecar
from kerasmed.study.stages.report import ReportResult
from kerasmed.study.stages.sampling import SamplingResult
from kerasmed.study.stages.worth import CurveRecord, WorthResult
from kerasmed.study.synthetic_set import Manifest

DRAFT = "https://json-schema.org/draft/2020-12/schema"

Result = TypeVar("Result")


class Machine(TypedDict):
    """The machine that a stage ran on."""

    processor: str
    """Name of the processor."""
    cores: Count
    """Cores that the process may use."""
    memory_gib: NotNegative
    """Memory in GiB."""
    system: str
    """Operating system and architecture."""


class StageEntry(TypedDict, Generic[Result]):
    """A finished stage."""

    fingerprint: FingerprintRecord
    """What the user gave to the stage: settings and files."""
    built_on: FingerprintRecord
    """What earlier stages gave to it."""
    duration_s: NotNegative
    """Seconds that it took."""
    outputs: dict[str, Sha256]
    """Hash of each file or folder that it wrote, by its path in the run folder."""
    result: Result
    """What it found."""
    finished: datetime
    """When it finished."""
    machine: Machine
    """Where it ran."""
    versions: dict[str, str]
    """Versions of Python and of the packages that figures depend on."""


class FinishedStages(TypedDict, total=False):
    """The finished stages of a study, by name."""

    data: StageEntry[DataResult]
    leakage: StageEntry[LeakageResult]
    diffusion: StageEntry[DiffusionResult]
    upscaler: NotRequired[StageEntry[DiffusionResult]]
    sampling: StageEntry[SamplingResult]
    classifiers: StageEntry[ClassifiersResult]
    export: StageEntry[dict[str, ExportedFile]]
    evaluate: StageEntry[EvaluateResult]
    worth: NotRequired[StageEntry[WorthResult]]
    explain: StageEntry[ExplainResult]
    audit: StageEntry[AuditResult]
    report: StageEntry[ReportResult]


class RunRecord(TypedDict):
    """Settings of a study, and one entry for each finished stage."""

    stages: FinishedStages
    """The finished stages."""
    name: str
    """Name of the study."""
    kerasmed: str
    """Version that wrote the file."""
    seed: Whole
    """Seed of the study."""
    config: Config
    """All settings, with their defaults."""
    data_hash: NotRequired[Sha256]
    """Hash of all real images and classes."""


@dataclass(frozen=True)
class ResultFile:
    """A kind of JSON file.

    Attributes:
        content: its type.
        patterns: its paths in a run folder; none if it is somewhere else.
        place: where it is, in words.
        written_by: the command that writes it alone.
        holds: what it holds.
    """

    content: Any
    patterns: tuple[str, ...]
    written_by: str
    holds: str
    place: str = ""

    def where(self) -> str:
        """Its paths in a run folder, or its place in words."""
        return ", ".join(self.patterns) or self.place


def _in_evaluation(name: str, content: Any, written_by: str, holds: str) -> ResultFile:
    return ResultFile(content, (f"evaluation/{name}.json",), written_by, holds)


_EVALUATE, _AUDIT = "kerasmed evaluate CONFIG", "kerasmed audit CONFIG"
_WORTH = "kerasmed worth CONFIG"

RESULT_FILES: dict[str, ResultFile] = {
    "run": ResultFile(RunRecord, ("run.json",), "every stage", "settings, and each finished stage"),
    "split": ResultFile(
        SplitFile, ("split.json",), "kerasmed data split CONFIG", "class, group and role of images"
    ),
    "manifest": ResultFile(
        Manifest,
        ("synthetic/manifest.json", "variants/*/manifest.json"),
        "kerasmed sample CONFIG",
        "how a synthetic set was drawn",
    ),
    "training": ResultFile(
        TrainingRecord,
        ("classifiers/*/training.json",),
        "kerasmed train classifier CONFIG",
        "how a CNN was trained",
    ),
    "export": ResultFile(
        ExportRecord,
        ("classifiers/*/export.json",),
        "kerasmed export CONFIG",
        "how a CNN was exported",
    ),
    "model": ResultFile(
        Sidecar, ("exported/*.json",), "kerasmed export CONFIG", "what an exported CNN is"
    ),
    "metrics": _in_evaluation("metrics", list[MetricsRow], _EVALUATE, "all figures of each CNN"),
    "over_seeds": _in_evaluation(
        "over_seeds", list[SeedsRow], _EVALUATE, "mean and spread over the seeds"
    ),
    "comparisons": _in_evaluation(
        "comparisons", list[Comparison], _EVALUATE, "each two regimes of a CNN, with a test"
    ),
    "outside": _in_evaluation(
        "outside", OutsideResult, _EVALUATE, "the CNNs on `evaluation.outside`, if it is given"
    ),
    "subgroups": _in_evaluation(
        "subgroups",
        Subgroups,
        _EVALUATE,
        "accuracy by sex, age, site and device, if the table of the images has such columns",
    ),
    "usefulness": _in_evaluation(
        "usefulness", Usefulness, _EVALUATE, "synthetic against real images as a training set"
    ),
    "curves": _in_evaluation(
        "curves", dict[str, Curves], _EVALUATE, "ROC curves and reliability of each CNN"
    ),
    "worth": _in_evaluation(
        "worth", Worth, _WORTH, "what the synthetic set is worth in real images, once measured"
    ),
    "learning_curve": ResultFile(
        CurveRecord, ("worth/*.json",), _WORTH, "what a CNN of the learning curve names test images"
    ),
    "leakage": _in_evaluation(
        "leakage",
        LeakageResult,
        "kerasmed data leakage CONFIG",
        "by how much a random split overstates the accuracy",
    ),
    "fidelity": _in_evaluation(
        "fidelity", FidelityFile, _AUDIT, "distances of the synthetic sets to real images"
    ),
    "appearance": _in_evaluation(
        "appearance", AppearanceOfSets, _AUDIT, "spatial frequencies and intensities"
    ),
    "privacy": _in_evaluation(
        "privacy", Privacy, _AUDIT, "copies, membership inference, memorisation"
    ),
    "verdicts": _in_evaluation("verdicts", list[Verdict], _AUDIT, "the three answers"),
    "explanation": ResultFile(
        ExplanationRecord,
        ("explanations/*/*.json",),
        "kerasmed explain",
        "one explanation of one image by one CNN",
    ),
    "explanations": ResultFile(
        dict[str, Summary],
        ("explanations/summary.json",),
        "kerasmed explain CONFIG",
        "the explanations of each method, summarised",
    ),
    "check": ResultFile(
        DataCheck,
        (),
        "kerasmed data check DIR",
        "the findings about a set of images",
        place="check.json next to its page, and --json",
    ),
    "prediction": ResultFile(
        Prediction | Unreadable,
        (),
        "kerasmed predict --json",
        "what a CNN predicts for one image",
        place="each line of the output",
    ),
}

_CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True)
with_config(_CONFIG)(Verdict)  # within a list, a dataclass keeps its own configuration


class _Generator(GenerateJsonSchema):
    """Describes inherited keys too, and gives keys no titles, which would repeat their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
        described = super().typed_dict_schema(schema)
        for base in filter(is_typeddict, get_original_bases(schema["cls"])):
            inherited = _adapter(base).json_schema(schema_generator=_Generator)["properties"]
            for key in inherited.keys() & described["properties"].keys():
                if "description" in inherited[key]:
                    described["properties"][key].setdefault(
                        "description", inherited[key]["description"]
                    )
        return described


def _adapter(content: Any) -> TypeAdapter[Any]:
    if is_typeddict(content):
        return TypeAdapter(with_config(_CONFIG)(content))
    return TypeAdapter(content, config=_CONFIG)


def json_schema(name: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a kind of file.

    Args:
        name: a key of RESULT_FILES.

    Raises:
        InputError: there is no such kind.
    """
    if name not in RESULT_FILES:
        raise InputError(
            f"Schema: expected one of {', '.join(RESULT_FILES)}, received {name!r}; correct it."
        )
    file = RESULT_FILES[name]
    schema = _adapter(file.content).json_schema(mode="serialization", schema_generator=_Generator)
    description = f"{file.holds[0].upper()}{file.holds[1:]} ({file.where()})."
    return {"$schema": DRAFT, **schema, "title": f"kerasmed {name}", "description": description}
