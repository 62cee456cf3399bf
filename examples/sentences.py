"""Real English sentences that come with Python: the prose of its own language reference.

Each CPython ships the text behind `help("class")` and the like as `pydoc_data.topics`, some 80
topics of plain text.  Most of it is prose; the rest is headings, grammar, code, lists and tables,
which this module leaves out, by the way it is laid out.  The text is written by the authors of
Python's documentation, and differs a little from one version of Python to the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pydoc_data.topics import topics

WORDS = range(5, 41)

# What a line of prose starts with, and what a list item does.
_MARGIN = re.compile(r"[\w\"'(“*]")
_ITEM = re.compile(r"\* |\d+\. ")

# Where a sentence ends: after . ? or !, and any closing marks, before a space and a capital.
_BREAK = re.compile(r"(?:(?<=[.?!])|(?<=[.?!][\")”]))\s+(?=[\"(“]*[A-Z_])")
_FOOTNOTE = re.compile(r"\s*\[\d+\]")
_EMPHASIS = re.compile(r"\*+([^*\s](?:[^*]*[^*\s])?)\*+")
_HYPHENATED = re.compile(r"(?<=\w)-\n(?=\w)")
# A capital first; then words, numbers and everyday punctuation only; a full stop last.
_CLEAN = re.compile(r"[A-Z][A-Za-z0-9 ,;:'’“”\"()./–—-]*\.")  # noqa: RUF001
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf)|\b[A-Z])\.$")
_NOTES = ("Added in version", "Changed in version", "New in version", "See also")


def sentences() -> list[str]:
    """Give every clean sentence of 5 to 40 words, once each, in a fixed order."""
    found = (
        sentence
        for name in sorted(topics)
        for paragraph in _paragraphs(topics[name])
        for sentence in _BREAK.split(paragraph)
    )
    return list(dict.fromkeys(sentence for sentence in found if _is_clean(sentence)))


def _paragraphs(text: str) -> Iterator[str]:
    """Give the paragraphs of prose, each on one line and without its markup.

    Prose starts at the left margin.  What is indented is code, grammar or part of a list, and
    what starts with a mark is a list item, a note, a table or a directive.
    """
    for block in text.split("\n\n"):
        block = block.strip("\n")
        at_margin = all(_MARGIN.match(line) for line in block.split("\n"))
        if at_margin and not _ITEM.match(block):
            prose = _FOOTNOTE.sub("", _HYPHENATED.sub("-", block))
            yield _EMPHASIS.sub(r"\1", " ".join(prose.split()))


def _is_clean(sentence: str) -> bool:
    """Tell a whole sentence in plain words from a fragment or a piece of code."""
    return (
        len(sentence.split()) in WORDS
        and _CLEAN.fullmatch(sentence) is not None
        and _ABBREVIATION.search(sentence) is None
        and not sentence.startswith(_NOTES)
        and "()" not in sentence
        and sentence.count("(") == sentence.count(")")
        and sentence.count('"') % 2 == 0
        and sentence.count("“") == sentence.count("”")
    )
