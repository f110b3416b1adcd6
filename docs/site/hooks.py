"""The pages of the site: those of the repository, its notebooks, and the reference."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import griffe
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from kerasmed.cli.main import app
from kerasmed.study.config import Config

ROOT = Path(__file__).parents[2]
# Documented in addition to the public names. A module stands for all that it holds.
FURTHER = ("kerasmed.errors", "kerasmed.explain.explainer.Explainer", "kerasmed.metrics")


def on_config(config: MkDocsConfig) -> None:
    """Add the generated pages to the navigation."""
    (reference,) = (section["Reference"] for section in config.nav if "Reference" in section)
    reference[:0] = [{"Commands": "reference/commands.md"}, {"Settings": "reference/settings.md"}]
    reference += [{_title(group): _uri(group)} for group in _public_names()]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give the site the layout of the repository, so that the same links serve on a git host."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
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
    generated = [
        File.generated(config, "reference/commands.md", content=_commands_page()),
        File.generated(config, "reference/settings.md", content=_settings_page()),
    ]
    of_theme = [file for file in files if file.src_dir != config.docs_dir]
    return Files([*of_theme, *own, *notebooks, *generated, *api])


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point links to a notebook at its page."""
    return re.sub(r"(\]\([^)#]+)\.ipynb\b", r"\1.md", markdown)


def _notebook_page(path: Path) -> str:
    """The text, code and one picture of a notebook, which is not run, with a link to its file."""
    shown = []
    for block in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source, is_code = "".join(block["source"]), block["cell_type"] == "code"
        shown.append(f"```python\n{source}\n```" if is_code else source)
        if "picture" in block["metadata"].get("tags", []):
            shown.append(f"![What this block shows](../images/{path.stem}.png)")
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


def _commands_page() -> str:
    """Every command with its arguments and options, from the command line's own help."""
    lines = ["# Commands", "From the command line's own help, `kerasmed COMMAND --help`."]
    for context in _contexts(typer.main.get_command(app), "kerasmed"):
        command = context.command
        lines += [
            f"## `{context.command_path}`",
            f"    {context.command_path} {' '.join(command.collect_usage_pieces(context))}",
            *_paragraphs(command.help or ""),
            *_options(context),
        ]
    return "\n\n".join(lines)


def _contexts(command: Any, name: str, parent: Any = None) -> list[Any]:
    """The contexts of a command, or of all commands of a group, in the order of the help."""
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    within = getattr(command, "commands", None)
    if within is None:
        return [context]
    return [leaf for key, inner in within.items() for leaf in _contexts(inner, key, context)]


def _paragraphs(text: str) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _options(context: Any) -> list[str]:
    rows = [parameter.get_help_record(context) for parameter in context.command.params]
    table = [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in filter(None, rows)]
    return ["\n".join(["| option | |", "|---|---|", *table])] if table else []


def _settings_page() -> str:
    """Every key of an experiment file with its values and its default, from the JSON schema."""
    schema = Config.model_json_schema()
    first = (
        "# Settings",
        "Keys of an experiment file; `--set section.key=value` overrides one. A key that is not "
        "listed is an error.",
    )
    return "\n\n".join([*first, *_section("", schema, schema["$defs"])])


def _section(prefix: str, schema: dict[str, Any], sections: dict[str, Any]) -> list[str]:
    """The keys of a section, and the sections within it."""
    rows = ["| key | values | default | meaning |", "|---|---|---|---|"]
    within: list[str] = []
    for name, key in schema["properties"].items():
        inner = sections.get(_referred(key).rpartition("/")[2])
        if inner is not None:
            of_each = "<name>." if key.get("type") == "object" else ""
            within += _section(f"{prefix}{name}.{of_each}", inner, sections)
        if inner is None or "$ref" not in key:
            default = f"`{_cell(json.dumps(key['default']))}`" if "default" in key else ""
            row = (f"`{name}`", _values(key), default, _cell(key.get("description", "")))
            rows.append(f"| {' | '.join(row)} |")
    heading = [f"## `{prefix.rstrip('.')}`", schema.get("description", "")] if prefix else []
    table = ["\n".join(rows)] if len(rows) > 2 else []
    return [*heading, *table, *within]


def _referred(key: dict[str, Any]) -> str:
    """The section that a key is, or may be, or has by name."""
    of_each = (key.get("additionalProperties") or {}, *key.get("patternProperties", {}).values())
    places = (key, *of_each, *key.get("anyOf", ()))
    return next((place["$ref"] for place in places if "$ref" in place), "")


def _values(key: dict[str, Any]) -> str:
    """What a key takes, in words."""
    if "anyOf" in key:
        return " or ".join(map(_values, key["anyOf"]))
    if "enum" in key or "const" in key:
        return ", ".join(f"`{value}`" for value in key.get("enum", [key.get("const")]))
    kind = {"array": "list", "object": "names with sections", "string": "text"}
    words = [kind.get(key.get("type", "section"), key.get("type", "section"))]
    for bound, name in (
        ("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "to"),
        ("exclusiveMaximum", "below"),
    ):  # fmt: skip
        if bound in key:
            words.append(f"{name} {key[bound]}")
    if "items" in key:
        words.append(f"of {_values(key['items'])}")
    return " ".join(words)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
