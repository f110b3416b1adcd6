"""The pages of the site: those of the repository, its notebooks, and the API reference."""

import json
import re
from collections import defaultdict
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
# Documented in addition to the public names. A module stands for all that it holds.
FURTHER = ("kerasmed.errors", "kerasmed.explain.explainer.Explainer", "kerasmed.metrics")


def on_config(config: MkDocsConfig) -> None:
    """Add the pages of the API reference to the navigation."""
    (reference,) = (section["Reference"] for section in config.nav if "Reference" in section)
    reference += [{_title(group): _uri(group)} for group in _public_names()]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give the site the layout of the repository, so that the same links serve on a git host."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    linked = {path for page in pages for path in _linked_files(page)}
    own = [
        File(path.relative_to(ROOT).as_posix(), str(ROOT), config.site_dir, False)
        for path in sorted({*pages, *linked})
    ]
    api = [
        File.generated(config, _uri(group), content=_api_page(group, names))
        for group, names in _public_names().items()
    ]
    notebooks = [
        File.generated(config, f"docs/notebooks/{path.stem}.md", content=_notebook_page(path))
        for path in sorted(ROOT.glob("docs/notebooks/*.ipynb"))
    ]
    of_theme = [file for file in files if file.src_dir != config.docs_dir]
    return Files([*of_theme, *own, *notebooks, *api])


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point links to a notebook at its page."""
    return re.sub(r"(\]\([^)#]+)\.ipynb\b", r"\1.md", markdown)


def _notebook_page(path: Path) -> str:
    """The text and the code of a notebook, which is not run, with a link to its file."""
    blocks = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = [("".join(block["source"]), block["cell_type"] == "code") for block in blocks]
    shown = [f"```python\n{source}\n```" if is_code else source for source, is_code in sources]
    shown.insert(1, f'<a href="{path.name}" download>Download this notebook.</a>')
    return "\n\n".join(shown)


def _linked_files(page: Path) -> list[Path]:
    """Files of the repository that a page links to. MkDocs reports a missing one."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    paths = [(page.parent / link).resolve() for link in links]
    return [path for path in paths if path.is_file()]


def _public_names() -> dict[str, list[str]]:
    """All of ``kerasmed.__all__``, and FURTHER, by the package that holds them.

    Nothing is imported: ``__init__.py`` says under TYPE_CHECKING where each name comes from. A name
    that is missing there is taken for a module.
    """
    package = griffe.load("kerasmed", search_paths=[ROOT], submodules=False)
    homes = {name: name for name in FURTHER}
    for name in map(str, package.exports):
        home = package[name].target_path if name in package.members else f"kerasmed.{name}"
        homes[f"kerasmed.{name}"] = home
    groups = defaultdict(list)
    for name, home in sorted(homes.items()):
        groups[home.split(".")[1]].append(name)
    return dict(sorted(groups.items()))


def _uri(group: str) -> str:
    return f"reference/{group}.md"


def _title(group: str) -> str:
    return f"API: {group}"


def _api_page(group: str, names: list[str]) -> str:
    return "\n\n".join([f"# {_title(group)}", *(f"::: {name}" for name in names)])
