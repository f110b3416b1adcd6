"""The JSON schemas of the result files, and the page that explains these files."""

import copy
import json
import re
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from kerasmed.audit.fidelity import fidelity_by_class
from kerasmed.cli.main import main
from kerasmed.metrics.classification import classification_metrics
from kerasmed.study.result_files import DRAFT, RESULT_FILES, json_schema
from kerasmed.study.stages import STAGES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "result_files.md"


def kinds_of(path: Path) -> list[str]:
    """The kinds of file that a path in a run folder may be."""
    return [
        name
        for name, file in RESULT_FILES.items()
        for pattern in file.patterns
        if len(path.parts) == len(Path(pattern).parts) and fnmatchcase(path.as_posix(), pattern)
    ]


def contents(run: Path) -> dict[Path, object]:
    """Content of every JSON file of a run folder; the cache can be deleted at any time."""
    paths = [path.relative_to(run) for path in sorted(run.rglob("*.json"))]
    results = [path for path in paths if path.parts[0] != "cache"]
    return {path: json.loads((run / path).read_text(encoding="utf-8")) for path in results}


def problems(name: str, content: object) -> list[str]:
    found = Draft202012Validator(json_schema(name)).iter_errors(content)
    return [f"{error.json_path}: {error.message[:200]}" for error in found]


@pytest.mark.parametrize("name", RESULT_FILES)
def test_schema_is_valid_precise_and_described(name):
    schema = json_schema(name)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == DRAFT
    for kind in (schema, *schema.get("$defs", {}).values()):
        if "properties" not in kind:
            continue
        assert kind["additionalProperties"] is False
        for key, value in kind["properties"].items():
            # A variant changes a setting that is described where its section has it.
            by_its_section = ("Spread", "Formats", "VariantConfig", "BackboneConfig")
            is_explained_by_its_kind = "$ref" in value or kind["title"] in by_its_section
            assert "description" in value or is_explained_by_its_kind, f"{kind['title']}.{key}"


def test_every_file_of_a_study_is_of_one_kind_and_follows_its_schema(tiny_run):
    found = {}
    for path, content in contents(tiny_run).items():
        (kind,) = kinds_of(path)
        found[kind] = problems(kind, content)
        assert not found[kind], path
    of_studies = {name for name, file in RESULT_FILES.items() if file.patterns}
    assert set(found) == of_studies - {
        "outside",
        "subgroups",
        "worth",
        "learning_curve",
    }


def test_unknown_file_is_of_no_kind():
    for path in ("new.json", "evaluation/new.json", "diffusion/denoiser.json", "x/run.json"):
        assert not kinds_of(Path(path))


def test_content_that_lacks_a_key_or_has_another_is_refused(tiny_run):
    of_kinds = {kinds_of(path)[0]: content for path, content in contents(tiny_run).items()}
    for kind, content in of_kinds.items():
        record = content[0] if isinstance(content, list) else content
        for key in record:
            changed = copy.deepcopy(content)
            of_changed = changed[0] if isinstance(changed, list) else changed
            of_changed[key] = {"something": ["else"]}
            assert problems(kind, changed), f"{kind}: another value of {key}"
        if kind in ("curves", "explanations"):  # by names of CNNs and of methods
            continue
        for key in json_schema(kind).get("required", ()):
            assert problems(kind, {k: v for k, v in record.items() if k != key}), f"{kind}: {key}"
        record["unknown"] = 1
        assert problems(kind, content), f"{kind}: an unknown key"


def test_run_record_has_an_entry_for_each_stage():
    assert list(json_schema("run")["$defs"]["FinishedStages"]["properties"]) == list(STAGES)


@pytest.mark.parametrize("present", [(0, 1), (0,)], ids=["a class is missing", "one class"])
def test_figures_that_are_not_computed_follow_the_schema(tiny_run, present):
    labels = np.resize(present, 12)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), 12)
    metrics = classification_metrics(probabilities, labels, ["a", "b", "c"])
    assert metrics["not_computed"]
    (row, *_) = json.loads((tiny_run / "evaluation" / "metrics.json").read_text())
    assert not problems("metrics", [{**row, **metrics}])


def test_fidelity_of_too_few_images_follows_the_schema(tiny_run):
    sets = ("reserve", "train", "synthetic")
    few = {name: np.random.default_rng(0).random((6, 4)) for name in sets}
    labels = dict.fromkeys(sets, np.array([0, 1] * 3))
    result = json.loads((tiny_run / "evaluation" / "fidelity.json").read_text())
    result["in_features"] = fidelity_by_class(few, labels, ("a", "b"))
    assert "not_computed" in result["in_features"]
    assert not problems("fidelity", result)


def test_findings_and_predictions_follow_their_schemas(tiny_run, image_folder, tmp_path, capsys):
    assert main(["data", "check", str(image_folder), "--json"]) == 0
    assert not problems("check", json.loads(capsys.readouterr().out))
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [str(next(image_folder.rglob("*.png"))), str(tmp_path / "broken.png")]
    model = tiny_run / "exported" / "MobileNet-real-s0.onnx"
    assert main(["predict", str(model), *images, "--json"]) == 2
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ["error" in line for line in lines] == [False, True]
    assert not [problem for line in lines for problem in problems("prediction", line)]


def test_command_prints_schemas_and_their_names(capsys):
    assert main(["schema"]) == 0
    listed = capsys.readouterr().out
    for name in RESULT_FILES:
        assert f" {name} " in listed
        assert main(["schema", name]) == 0
        assert json.loads(capsys.readouterr().out) == json_schema(name)
    assert main(["schema", "metric"]) == 2
    assert "expected one of run, split" in capsys.readouterr().err


def test_page_explains_every_kind_and_no_other():
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|", page, re.MULTILINE)
    assert [name for name, *_ in rows] == list(RESULT_FILES)
    for name, place, written_by in rows:
        file = RESULT_FILES[name]
        assert re.findall("`([^`]+)`", place)[: len(file.patterns)] == list(file.patterns)
        assert written_by.replace("`", "") == file.written_by
