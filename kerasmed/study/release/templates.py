"""The cards' templates, with the filters that they use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kerasmed.audit.tables import trained_on
from kerasmed.text import text_for_markdown


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """A card in Markdown, or its front matter in YAML.

    Args:
        template: name of a file in this folder.
        values: see ``facts_of``.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.globals["trained_on"] = trained_on
    environment.filters["text"] = text_for_markdown
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    environment.filters["points"] = _points
    return environment.get_template(template).render(values)


def _points(figure: Mapping[str, Any]) -> str:
    """A difference in percentage points, with its interval."""
    low, high = figure["interval"]
    return f"{100 * figure['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
