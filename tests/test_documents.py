"""The README, the pages under docs/ and what they name."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kerasmed.study.result_files import json_schema

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
EXAMPLES = {
    f"{page.name} {number}": code
    for page in PAGES
    for number, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S), 1
    )
}
# What an example prints, beyond ending without an error.
PRINTS = {
    "README.md 1": r"\{'clear': [\d.e-]+, 'ground_glass': [\d.e-]+\}",
    "embed_a_classifier.md 1": r"\{'clear': [\d.e-]+, 'ground_glass': [\d.e-]+\}",
    "embed_a_classifier.md 2": r"\[\[[\d. e-]+\]",
    "explain_predictions.md 1": r"'top_overlap': ",
    "result_files.md 1": r"\{'real': [\d.]+, 'synthetic': [\d.]+, 'both': [\d.]+\}",
    "upscaler.md 1": r"ImageSet\(\d+ images of 64 x 64 pixels",
    "in_python.md 1": r"(?s)Roles\(train \d.*4 images of 16 x 16 pixels: clear 2, .*'accuracy': ",
}
# Another size or length of an example that would take minutes, as (what it says, what runs).
QUICKER = {
    "in_python.md 1": [
        ("size=64", "size=16"),
        ('"small", roles.train', '"cpu", roles.train, widths=[8]'),
        ("epochs=200", "epochs=1"),
        ("per_class=500", "per_class=2"),
        ('"MobileNetV2", roles.train', '"MobileNet", roles.train, weights="none", input_size=32'),
        ('classifiers=["MobileNetV2"]', "classifiers=[]"),
    ],
    "upscaler.md 1": [
        ("size=256", "size=64"),
        ('symmetry="mirror"', 'symmetry="mirror", widths=[8], crop_size=16, batch_size=4'),
        ("epochs=50", "epochs=1"),
    ],
    "first_steps.py": [
        ('"cpu", roles.train', '"cpu", roles.train, widths=[8]'),
        ("per_class=40", "per_class=2"),
        ('"MobileNetV2", roles.train', '"MobileNet", roles.train, input_size=32'),
    ],
}


def test_list_of_pages_and_site_name_every_page():
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in ROOT.glob("docs/*/*.md")]
    listed = (ROOT / "docs" / "README.md").read_text()
    navigation = (ROOT / "docs" / "site" / "mkdocs.yml").read_text()
    assert [page for page in pages if f"({page})" not in listed] == []
    assert [page for page in pages if f": docs/{page}\n" not in navigation] == []


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 900


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_are_there(page):
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    named = re.findall(r"`((?:benchmarks|configs|tests|kerasmed)/[\w./]*\w)", text)
    missing = [name for name in links if not (page.parent / name).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing


@pytest.fixture
def workplace(tiny_run, image_folder, tmp_path, monkeypatch):
    """A working directory with the files that the pages name."""
    monkeypatch.chdir(tmp_path)
    network = tiny_run / "exported" / "MobileNet-real-s0.onnx"
    shutil.copyfile(network, "cnn.onnx")
    Path("runs/demo/exported").mkdir(parents=True)
    shutil.copyfile(network, f"runs/demo/exported/{network.name}")
    shutil.copytree(tiny_run / "evaluation", "runs/demo/evaluation")
    Path("metrics.schema.json").write_text(json.dumps(json_schema("metrics")))
    shutil.copyfile(next(image_folder.rglob("*.png")), "slice.png")
    shutil.copytree(image_folder / "clear", "slices")
    image_folder.rename("smears")
    return tmp_path


def quicker(name: str, code: str) -> str:
    for written, run in QUICKER.get(name, ()):
        assert written in code
        code = code.replace(written, run)
    return code


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_python_example_runs_by_itself(name, workplace, capsys):
    exec(quicker(name, EXAMPLES[name]), {})
    assert re.search(PRINTS.get(name, ""), capsys.readouterr().out)
    assert name != "in_python.md 1" or (workplace / "why.png").exists()


@pytest.mark.parametrize(
    ("end", "printed"),
    [
        ("cnn = ", r"(?s)Roles\(train \d.*4 images of 16 x 16 pixels: clear 2, "),
        pytest.param("ddpm.export", PRINTS["in_python.md 1"], marks=pytest.mark.slow),
    ],
)
def test_library_page_runs_on_jax_up_to_the_export(workplace, end, printed):
    pytest.importorskip("jax")
    code, _ = quicker("in_python.md 1", EXAMPLES["in_python.md 1"]).split(end)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(printed, done.stdout)


@pytest.mark.slow
def test_first_steps_are_short_and_run(workplace, monkeypatch, capsys):
    code = (ROOT / "docs" / "examples" / "first_steps.py").read_text(encoding="utf-8")
    assert len(code.splitlines()) < 40
    monkeypatch.setattr(sys, "argv", ["first_steps.py", "smears", "16", "1", "none"])
    exec(quicker("first_steps.py", code), {})
    assert re.search(r"\d+% of [45] unseen images", capsys.readouterr().out)
    assert {path.name for path in workplace.glob("*.*")} >= {
        "ddpm.keras", "denoiser.onnx", "cnn.onnx", "why.png",
    }  # fmt: skip


def test_examples_are_found():
    assert set(PRINTS) <= set(EXAMPLES)


def test_glossary_is_sorted_and_each_term_has_a_page():
    rows = (
        (ROOT / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8").splitlines()[5:]
    )
    terms = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert terms == sorted(terms, key=str.casefold)
    assert all(re.search(r"\]\([^)]+\.md[^)]*\) \|$", row) for row in rows)
