"""The import graph: dependencies go one way, and light modules stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "kerasmed"

# From the bottom up: a module may import only from layers before its own, or from its own package.
LAYERS = (
    *("errors", "text", "settings", "files", "result_types", "fingerprint", "progress"),
    "random_streams",
    *("runtime", "data", "parallel", "metrics", "inference", "export", "image_model", "diffusion"),
    *("classify", "saved_models", "explain", "audit", "study", "serve", "cli", "__main__"),
)


def _modules() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def _layer(names: tuple[str, ...]) -> str:
    return names[0].removesuffix(".py")


def _imports(path: Path) -> list[tuple[str, ...]]:
    imported = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kerasmed."):
            imported.append(tuple(node.module.split(".")[1:]))
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names if name.name.startswith("kerasmed.")]
            imported += [tuple(name.split(".")[1:]) for name in names]
    return imported


def test_every_module_has_a_layer():
    assert {_layer(path.relative_to(PACKAGE).parts) for path in _modules()} == set(LAYERS)


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    own = _layer(path.relative_to(PACKAGE).parts)
    for imported in _imports(path):
        other = _layer(imported)
        assert LAYERS.index(other) <= LAYERS.index(own), f"{own} imports {other}"


def test_modules_of_one_package_have_no_cycle():
    graph = {
        path.relative_to(PACKAGE).with_suffix("").parts: set(_imports(path)) for path in _modules()
    }
    done: set[tuple[str, ...]] = set()

    def visit(module, above=()):
        assert module not in above, f"cycle through {module}"
        if module not in done:
            for imported in graph.get(module, ()):
                visit(imported, (*above, module))
            done.add(module)

    for module in graph:
        visit(module)


BACKENDS = {"tensorflow", "keras", "jax", "torch", "ray"}
# What each light command imports, and what it may not import besides the backends. Each list runs
# in a process of its own, in this order.
LIGHT = {
    "--help": (["kerasmed.cli.main"], {"numpy", "PIL", "onnxruntime", "pydantic", "rich"}),
    "predict": (
        ["kerasmed.cli.main", "kerasmed.data.find_images", "kerasmed.inference.predict",
         "kerasmed.cli.tables"],
        {"scipy", "sklearn", "skimage", "matplotlib", "pydantic", "yaml", "psutil", "cpuinfo"},
    ),
    "explain MODEL.onnx": (
        ["kerasmed.cli.main", "kerasmed.cli.tables", "kerasmed.explain.files",
         "kerasmed.explain.network", "kerasmed.study.run_folder"],
        {"lime", "sklearn", "matplotlib", "psutil", "cpuinfo", "scipy.stats"},
    ),
    "a study, before its first training": (
        ["kerasmed.inference.evaluate", "kerasmed.metrics.classification",
         "kerasmed.metrics.memorisation", "kerasmed.audit.fidelity", "kerasmed.diffusion.generate",
         "kerasmed.export.precision", "kerasmed.export.verify", "kerasmed.study.stages",
         "kerasmed.study.runner", "kerasmed.study.release.write"],
        set(),
    ),
}  # fmt: skip
FIND = """
import importlib, sys
for name in {modules}:
    importlib.import_module(name)
    found = {heavy} & set(sys.modules)
    if found:
        sys.exit(f"{{name}} imports {{sorted(found)}}")
"""


@pytest.mark.parametrize("command", LIGHT)
def test_light_commands_import_nothing_heavy(command):
    modules, heavy = LIGHT[command]
    code = FIND.format(modules=modules, heavy=heavy | BACKENDS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_module_is_called_utils():
    names = {path.stem for path in _modules()}
    assert not names & {"utils", "helpers", "common", "misc"}


def _names(path):
    """What a module defines or takes in at its top level, or within an ``if`` or ``try`` there."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name
)
def test_benchmarks_name_what_is_there(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("kerasmed"):
            continue
        module = ROOT.joinpath(*node.module.split("."))
        file = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        defined = _names(file) | {path.stem for path in module.glob("*.py")}
        assert {alias.name for alias in node.names} <= defined
