"""README and the guides: each snippet runs, in order, and prints what the page shows."""

import re
from pathlib import Path

import pytest

from tests.pages import follow, steps

ROOT = Path(__file__).parent.parent
GUIDES = sorted((ROOT / "examples" / "guides").glob("*.md"))
PAGES = [ROOT / "README.md", *GUIDES, ROOT / ".github" / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_says_can_be_done(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    follow(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target


def page_of(*blocks):
    return "\n".join(f"Words.\n\n```{kind}\n{text}\n```\n" for kind, text in blocks)


def test_a_page_is_taken_apart():
    found = steps(page_of(("python", "a"), ("sh", "b"), ("console", "$ x 1\nout\n$ y")) + "\nend")
    assert [(s.kind, s.text.strip(), s.line, s.shown) for s in found] == [
        ("python", "a", 4, None),
        ("console", "x 1", 16, "out\n"),
        ("console", "y", 18, ""),
    ]
    (shown,) = steps("```python\na\n```\n\n```text\nb\n```\n")
    assert shown.shown == "b\n"
    (apart,) = steps("```python\na\n```\n\nThis file:\n\n```text\nb\n```\n")
    assert apart.shown is None


def shows(said, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"```python\nprint('a', 1.2345678)\n```\n\n```text\n{said}\n```\n")
    return page


@pytest.mark.parametrize("said", ["a 1.2345678", "a  1.2345679", "a ...", "a\n1.23"])
def test_what_is_printed_may_differ_a_little(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert follow(shows(said, tmp_path)) == 1


@pytest.mark.parametrize("said", ["a 1.25", "b ...", ""])
def test_what_is_not_printed_is_noticed(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pytest.fail.Exception, match=r"page.md:2 shows"):
        follow(shows(said, tmp_path))


def test_an_error_says_which_snippet_it_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 1\n```\n\n```python\n1 / (x - 1)\n```\n")
    with pytest.raises(ZeroDivisionError) as caught:
        follow(page)
    assert caught.value.__notes__ == ["in the snippet at page.md:6"]


def test_the_map_of_the_code_has_every_module():
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text("utf-8")
    section = text.partition("\n## The map\n")[2].partition("\n## ")[0]
    named = {name.rstrip("/") for name in re.findall(r"`(\w+(?:\.py|/))`", section)}
    package = ROOT / "jax_ranges"
    there = {path.name for path in package.iterdir() if path.suffix == ".py"}
    there |= {path.parent.name for path in package.glob("*/__init__.py")}
    there -= {"__init__.py", "compat.py"}
    assert named == there, "put new modules into the map in .github/CONTRIBUTING.md"
