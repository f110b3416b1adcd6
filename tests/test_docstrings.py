"""Everything public says what it is, since the API reference and ``help()`` show it."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import kerasmed

PACKAGE = Path(kerasmed.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def lacking(node: ast.Module | ast.ClassDef, name: str = "") -> Iterator[str]:
    """Names of the public definitions in it that have no docstring, with dots between them."""
    if not ast.get_docstring(node):
        yield name
    for child in node.body:
        if not isinstance(child, DEFINITIONS) or child.name.startswith("_"):
            continue
        child_name = f"{name}.{child.name}".lstrip(".")
        if isinstance(child, ast.ClassDef):
            yield from lacking(child, child_name)
        elif not ast.get_docstring(child):
            yield child_name


def overrides(path: Path, name: str) -> bool:
    """Whether it is a method that a base class, such as a callback of Keras, has too."""
    owner, _, method = name.rpartition(".")
    if not owner:
        return False
    value = import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))
    for attribute in owner.split("."):
        value = getattr(value, attribute)
    return any(hasattr(base, method) for base in value.__mro__[1:])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_everything_public_has_a_docstring(path):
    names = lacking(ast.parse(path.read_text(encoding="utf-8")))
    assert not [name or "the module" for name in names if not overrides(path, name)]


def test_the_check_finds_what_lacks_one():
    source = """
        class Both:
            def method(self): ...
            def _private(self): ...
            class Inner:
                "has one"
        def function(): "has one"
        async def other(): ...
        def _private(): ...
    """
    module = ast.parse("if True:\n" + source).body[0]
    found = lacking(ast.Module(module.body, []))
    assert list(found) == ["", "Both", "Both.method", "other"]
    assert overrides(PACKAGE / "diffusion" / "unet.py", "VelocityToImage.call")
    assert not overrides(PACKAGE / "diffusion" / "unet.py", "VelocityToImage.another")
