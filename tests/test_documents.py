"""The README, the pages under docs/ and what they name."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]


def test_readme_names_every_page():
    readme = (ROOT / "README.md").read_text()
    assert all(f"(docs/{page.name})" in readme for page in ROOT.glob("docs/*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_are_there(page):
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    named = re.findall(r"`((?:benchmarks|configs|tests|kerasmed)/[\w./]*\w)", text)
    missing = [name for name in links if not (page.parent / name).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_glossary_is_sorted_and_each_term_has_a_page():
    rows = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()[5:]
    terms = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert terms == sorted(terms, key=str.casefold)
    assert all(re.search(r"\]\([^)]+\.md[^)]*\) \|$", row) for row in rows)
