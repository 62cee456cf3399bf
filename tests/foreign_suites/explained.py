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


COUNTS = "counts how often JAX traced or compiled, and a measured function is another function"
CONCRETE = "sees whether a value is traced: what is measured is, as what is jitted is"
STATE = "its function changes a state each time that it is traced"
WORDS = "expects the words in which jit refuses; those are other ones, of the same error"
INSIDE = "expects inside a function the error of differentiating it, and it is traced before that"
REMAT = "expects that optimize_remat drops a forward rule, which is kept where it is measured"
NOT_THERE = "pretends to be on a device that is not there, for which no operation can be traced"

EXPLAINED = (
    Explained(
        "jax-rules",
        ("*::test_leak_checker_remat3_zero_tangent_output_stays_concrete",),
        CONCRETE,
        ("ranges", "nonfinite", "simulate"),
    ),
    Explained(
        "equinox",
        ("*::test_unperturbed_output",),
        INSIDE,
        ("ranges", "nonfinite", "simulate"),
    ),
    Explained(
        "jax-rules",
        ("*::CustomVJP3Test::test_optimize_remat_vmap",),
        REMAT,
        ("ranges", "net", "nonfinite"),
    ),
    Explained("jax-rules", ("*::test_vjp3_dont_want_bilinear",), STATE),
    Explained("jax-rules", ("*::JitTest::test_jit_kwargs*",), COUNTS, ("simulate",)),
    Explained("jax-pjit", ("*::test_lowering_cache_hit_with_closed_over_constants*",), COUNTS),
    Explained(
        "jax-pjit",
        ("*::test_changing_abstract_device",),
        COUNTS,
        ("ranges", "net", "simulate"),
    ),
    Explained("jax-pjit", ("*::test_changing_abstract_device",), NOT_THERE, ("nonfinite",)),
    Explained(
        "jax-pjit",
        ("*::test_jit_device_with_sharding_constraint_error",),
        WORDS,
        ("net",),
    ),
)
