"""Tests that pass plainly and not when observed, for a reason that is theirs."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from .tools import TOOLS


@dataclass(frozen=True)
class Explained:
    """One reason, and the tests that have it.

    Attributes:
      suite: the name of the suite; a glob.
      tests: globs of pytest's names, `file.py::Class::test[...]`, from the file's name on.
      reason: why the test cannot pass.
      tools: with which it does not.
      rarely: it fails at some runs only, so it is not told that one passed.
    """

    suite: str
    tests: tuple[str, ...]
    reason: str
    tools: tuple[str, ...] = TOOLS
    rarely: bool = False

    def covers(self, suite: str, test: str, tool: str) -> bool:
        """Whether the test of this suite may fail with this tool."""
        here = fnmatchcase(suite, self.suite) and tool in self.tools
        return here and any(fnmatchcase(_from_file(test), glob) for glob in self.tests)


def _from_file(test: str) -> str:
    """A test's name without the folders."""
    file, colons, rest = test.partition("::")
    return file.rsplit("/", 1)[-1] + colons + rest


EXPLAINED: tuple[Explained, ...] = ()
