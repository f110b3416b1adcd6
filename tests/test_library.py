"""What ``import kerasmed`` offers: its names, their examples, and what it costs."""

import doctest
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kerasmed


def test_importing_it_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import kerasmed; import importlib\n"
        "print(*sorted(m for m in set(sys.modules) - before if '.' not in m), sep=',')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.strip().split(",")) <= {
        "kerasmed",
        "importlib",
        "typing",
        "_typing",
        "warnings",
    }


def test_names_are_found_listed_and_nothing_else():
    assert set(kerasmed.__all__) <= set(dir(kerasmed))
    for name in kerasmed.__all__:
        assert getattr(kerasmed, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = kerasmed.Nothing


@pytest.mark.parametrize("name", kerasmed.__all__)
def test_example_of_each_public_name_runs(name, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(tiny_run / "exported" / "MobileNet-real-s0.onnx", "cnn.onnx")
    shutil.copyfile(tiny_run / "diffusion" / "denoiser.onnx", "denoiser.onnx")
    shutil.copyfile(sorted((tiny_run / "synthetic").rglob("*.png"))[0], "scan.png")
    public = getattr(kerasmed, name)
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(public), {}, name, None, 0)
    assert test.examples, f"{name} has no example"
    output: list[str] = []
    result = doctest.DocTestRunner().run(test, out=output.append)
    assert result.failed == 0, "".join(output)


def test_example_of_the_library_page_runs(tiny_run, image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(tiny_run / "exported" / "MobileNet-real-s0.onnx", "cnn.onnx")
    image_folder.rename("smears")
    page = (Path(__file__).parents[1] / "docs" / "library.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    exec(block, {})

    shown = capsys.readouterr().out
    assert "ImageSet(24 images of 16 x 16 pixels: clear 12, ground_glass 12)" in shown
    assert "% of 5 images" in shown or "% of 4 images" in shown
    assert Path("why.png").exists()
