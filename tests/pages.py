"""Pages for people (README, guides) whose snippets run as a reader would run them.

A page is Markdown. Its fenced blocks are run in their order, in one namespace and one folder:

- `python` is run as the file `model.py`, so lines count from 1 in each snippet;
- `console` has commands, `$ jax-ranges show run.json`, each with what it prints below it;
- `text` right after a snippet is what that prints; `...` stands for what is left out, any white
  space for any other, and numbers with a point are compared to three digits: the others differ
  between releases of XLA and processors.

All other blocks are for the eye only.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jax_ranges.__main__ import main

FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
POINTED = re.compile(r"\d+\.\d+(?:e[-+]?\d+)?")
RELAXED = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FILE = "model.py"


@dataclass(frozen=True)
class Step:
    """One block, or one command of a block.

    Attributes:
      kind: "python" or "console".
      text: the code, or the command without its `$`.
      line: of the page.
      shown: what the page says that it prints; None if it does not say.
    """

    kind: str
    text: str
    line: int
    shown: str | None


def steps(page: str) -> list[Step]:
    """What there is to run in a page."""
    found: list[Step] = []
    blocks = list(FENCED.finditer(page))
    for block, after in zip(blocks, [*blocks, None][1:], strict=True):
        kind, text = block.groups()
        line = page.count("\n", 0, block.start(2)) + 1
        if kind == "python":
            found.append(Step(kind, text, line, _output(page, block, after)))
        elif kind == "console":
            found.extend(_commands(text, line))
    return found


def _output(page: str, block: re.Match[str], after: re.Match[str] | None) -> str | None:
    if after is None or after[1] != "text" or page[block.end() : after.start()].strip():
        return None
    return after[2]


def _commands(text: str, line: int) -> Iterator[Step]:
    for command in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
        yield Step("console", command[1], line + text.count("\n", 0, command.start()), command[2])


def follow(page: Path) -> int:
    """Do what a page says, in the current folder; how many steps that were.

    AssertionError where something else is printed than the page shows.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    found = steps(page.read_text("utf-8"))
    for step in found:
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                _typed(step.text) if step.kind == "console" else _run(step.text, namespace)
        except Exception as error:
            error.add_note(f"in the snippet at {page.name}:{step.line}")
            raise
        if step.shown is not None:
            _check(step, said.getvalue(), page.name)
    return len(found)


def _run(code: str, namespace: dict[str, Any]) -> None:
    Path(FILE).write_text(code, "utf-8")  # where tracebacks look for it
    exec(compile(code, FILE, "exec"), namespace)


def _typed(command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "jax-ranges", f"only jax-ranges can be typed here, not {program!r}"
    main(arguments)


def _check(step: Step, said: str, page: str) -> None:
    assert step.shown is not None
    if not doctest.OutputChecker().check_output(_rounded(step.shown), _rounded(said), RELAXED):
        pytest.fail(f"{page}:{step.line} shows\n{step.shown}\nand prints\n{said}", pytrace=False)


def _rounded(text: str) -> str:
    return POINTED.sub(lambda number: f"{float(number[0]):.3g}", text)
