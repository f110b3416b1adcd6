"""The notebooks under docs/notebooks/: what they hold, and that they run from top to bottom."""

import ast
import json
import re
from pathlib import Path

import pytest

from kerasmed.data.image_set import ImageSet
from kerasmed.data.phantoms import write_phantoms

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("docs/notebooks/*.ipynb"))
# What stands for the block of settings, and the files that a reader then has in `results`.
TINY = {
    "from_a_folder_to_a_synthetic_set": (
        """
folder, size, symmetry, grouping = "smears", 16, "mirror", {}
preset, widths, epochs, per_class = "cpu", [8], 1, 2
backbone = "MobileNet"
recipe = {"weights": "none", "input_size": 32, "batch_size": 4}
cnn_epochs = 1
results = "results"
""",
        {
            "checkpoints/best.npz", "ddpm.keras", "denoiser.onnx", "previews/step-00000001.png",
            "synthetic/clear/000000.png", "synthetic/ground_glass/000003.png",
        },
    ),
    "embedding_a_classifier": (
        """
folder, size, symmetry, grouping = "smears", 16, "mirror", {}
backbone, epochs = "MobileNet", 1
recipe = {"weights": "none", "input_size": 32, "batch_size": 4}
superpixels, num_samples = 8, 40
results = "results"
""",
        {
            "KernelSHAP-right.png", "KernelSHAP-wrong.png", "LIME-right.png", "LIME-wrong.png",
            "LIME-wrong-true-class.png", "cnn.json", "cnn.keras", "cnn.onnx", "explanations.png",
        },
    ),
}  # fmt: skip


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def is_settings(block: dict) -> bool:
    """Whether a block has the tag with which papermill marks the settings of a notebook."""
    return has_tag(block, "parameters")


def has_tag(block: dict, tag: str) -> bool:
    return tag in block["metadata"].get("tags", [])


def names_set_by(code: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}


def test_every_notebook_has_tiny_settings():
    assert {path.stem for path in NOTEBOOKS} == set(TINY)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_holds_code_and_no_results(path):
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    blocks = notebook["cells"]
    ids = [block["id"] for block in blocks]
    assert len(set(ids)) == len(ids)
    assert all({"cell_type", "metadata", "source"} <= set(block) for block in blocks)
    assert {block["cell_type"] for block in blocks} == {"code", "markdown"}
    assert blocks[0]["source"][0].startswith("# ")
    code = [block for block in blocks if block["cell_type"] == "code"]
    for block in code:
        assert block["outputs"] == []
        assert block["execution_count"] is None
        compile("".join(block["source"]), path.name, "exec")
    assert [block for block in code if is_settings(block)] == code[:1]
    settings, _ = TINY[path.stem]
    assert names_set_by(settings) == names_set_by("".join(code[0]["source"]))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_one_block_of_a_notebook_makes_its_picture_in_the_docs(path):
    blocks = read(path)["cells"]
    assert [b["cell_type"] for b in blocks if has_tag(b, "picture")] == ["code"]
    assert (ROOT / "docs" / "images" / f"{path.stem}.png").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_linked_and_its_links_are_there(path):
    for page in (ROOT / "docs" / "README.md", ROOT / "docs" / "tutorials" / "in_python.md"):
        links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
        assert path in [(page.parent / link).resolve() for link in links]
    navigation = (ROOT / "docs" / "site" / "mkdocs.yml").read_text(encoding="utf-8")
    assert f"docs/notebooks/{path.stem}.md" in navigation
    links = re.findall(r"\]\((?!https?:)([^)#]+)", "".join(
        line for block in read(path)["cells"] for line in block["source"]
        if block["cell_type"] == "markdown"
    ))  # fmt: skip
    assert links
    assert all((path.parent / link).exists() for link in links)


def test_without_images_both_make_the_same_phantoms(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = ["".join(block["source"]) for path in NOTEBOOKS for block in read(path)["cells"]]
    lines = [line for source in sources for line in re.findall(r"(?m)^ *write_phantoms.*", source)]
    assert lines[1:] == lines[:1]
    names = {"Path": Path, "write_phantoms": write_phantoms, "size": 16}
    exec(lines[0].strip().replace("per_class=200", "per_class=3"), names)
    images = ImageSet.from_directory("phantoms", size=16)
    assert images.counts() == {"benign": 3, "early": 3, "pre": 3, "pro": 3}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, image_folder, tmp_path):
    import nbclient
    import nbformat

    image_folder.rename(tmp_path / "smears")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    settings, written = TINY[path.stem]
    (block,) = filter(is_settings, notebook.cells)
    block.source = settings
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    files = (tmp_path / "results").rglob("*.*")
    assert written <= {file.relative_to(tmp_path / "results").as_posix() for file in files}
    pictures = [
        output for block in notebook.cells for output in block.get("outputs", ())
        if "image/png" in output.get("data", ())
    ]  # fmt: skip
    assert len(pictures) >= 3
    (block,) = (block for block in notebook.cells if has_tag(block, "picture"))
    assert any("image/png" in output.get("data", ()) for output in block.outputs)
