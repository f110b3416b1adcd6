"""What ``import kerasmed`` offers: its names, their examples, and what it costs."""

import doctest
import inspect
import shutil
import subprocess
import sys

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
