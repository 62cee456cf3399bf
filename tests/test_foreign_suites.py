"""Samples of optax's and haiku's tests through the tools; and that what differs is told."""

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import pytest

import jax_ranges as jr
from tests.foreign_suites import results
from tests.foreign_suites.__main__ import pytest_options, run_suite
from tests.foreign_suites.explained import Explained
from tests.foreign_suites.outputs import check_outputs, check_ranges, exits_of
from tests.foreign_suites.results import Result, Summary
from tests.foreign_suites.suites import SUITES, Suite
from tests.foreign_suites.tools import TOOLS

# Of the suites that are in wheels: a file, and an expression that chooses tests of it.
SAMPLES = {
    "optax": ("_src/utils_test.py", "scale_gradient"),
    "haiku": ("_src/stateful_test.py", "test_grad or test_cond"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_of_a_suite_passes(name, tmp_path):
    file, chosen = SAMPLES[name]
    suite = dataclasses.replace(SUITES[name], files=(file,))
    summary = run(suite, tmp_path, tmp_path, "-k", chosen)
    assert not summary.failed, summary.text()
    assert summary.measured > 2


MINE = """
import os, time
import jax, jax.numpy as jnp
import pytest
from foreign_suites.observed import CURRENT

@jax.jit
def log(x):
    return jnp.log(x)

def test_passes():
    assert log(1.0) == 0
    assert jax.grad(log)(2.0) == 0.5

def test_differs():
    log(1.0)
    assert CURRENT.tool not in ("net", "nonfinite")

def test_is_not_measured():
    assert abs(-1) == 1

def test_fails_plainly():
    assert log(1.0) == 1

def test_is_skipped():
    pytest.skip("as it is")

def test_hangs():
    log(1.0)
    time.sleep(100 * (CURRENT.tool == "simulate"))

def test_kills():
    log(1.0)
    if CURRENT.tool == "ranges":
        os.abort()
"""


def test_what_differs_is_told_and_run_again(tmp_path):
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "test_mine.py"
    file.write_text(MINE)
    suite = Suite("mine", "numpy", "mine", ("test_*.py",))
    summary = run(suite, tmp_path, tmp_path, "--tb=line", limit=15)
    assert (summary.ran, summary.passed, summary.measured, summary.explained) == (6, 5, 4, 0)
    told = {(r.test.rpartition("::")[2], r.tool, r.outcome) for r in summary.failed}
    assert told == {
        ("test_differs", "net", results.FAILED),
        ("test_differs", "nonfinite", results.FAILED),
        ("test_hangs", "simulate", results.OUT_OF_TIME),
        ("test_kills", "ranges", results.BEGUN),
    }
    file.write_text(MINE.replace("CURRENT.tool", "None"))
    again = run(suite, tmp_path, tmp_path, again=True)
    assert again.clean and (again.ran, again.measured) == (6, 4)


def run(suite, sources, folder, *arguments, limit=60, again=False):
    out = folder / "results.jsonl"
    options = argparse.Namespace(
        tools=",".join(TOOLS), sample=1.0, seed="0", seconds=0.0, limit=limit, again=again
    )
    run_suite(suite, sources, out, [*pytest_options(options), *arguments])
    return Summary.of(suite.name, results.read(out), reasons=())


RESULTS = [
    Result("a/b_test.py::B::test_1[x]", None, results.PASSED),
    Result("a/b_test.py::B::test_1[x]", "net", results.FAILED),
    Result("a/b_test.py::B::test_2", None, results.PASSED),
    Result("a/b_test.py::B::test_2", "net", results.PASSED),
    Result("a/b_test.py::B::test_3", None, results.SKIPPED),
]


def test_a_reason_explains_the_failures_that_it_names():
    reason = Explained("mine", ("b_test.py::B::test_1*",), "counts compilations", ("net",))
    summary = Summary.of("mine", RESULTS, [reason])
    assert summary.clean and summary.explained == 1
    assert summary.row("mine") == "| mine | 2 | 2 | 2 | 1 | 1 |"
    for suite, tools in (("other", ("net",)), ("mine", ("ranges",))):
        unlike = Explained(suite, reason.tests, reason.reason, tools)
        assert [r.tool for r in Summary.of("mine", RESULTS, [unlike]).failed] == ["net"]


def test_a_reason_that_no_longer_explains_anything_is_told():
    first = Explained("*", ("b_test.py::B::test_1*",), "counts compilations")
    idle = Explained("*", ("b_test.py::B::test_2",), "inspects its trace")
    elsewhere = Explained("*", ("c_test.py::*",), "was not run")
    rarely = Explained("*", ("b_test.py::B::test_2",), "is random", rarely=True)
    summary = Summary.of("mine", RESULTS, [first, idle, elsewhere, rarely])
    assert summary.idle == [idle] and not summary.clean
    assert "inspects its trace" in summary.text()


def two(x):
    return jax.jit(jnp.exp)(x), jax.lax.scan(lambda c, x: (c + x, c * x), 0.0, x)


def test_outputs_are_compared_with_the_sites_that_make_them():
    x = jnp.array([0.5, -1.0, 2.0])
    exits = exits_of(jr.plan(two)(x).frame)
    assert [made and (made.site, made.whole) for made in exits] == [
        ("jit(exp)/exp", True),
        ("scan/add", False),
        ("scan/mul", False),
    ]
    out, ranges = jr.ranges(two)(x)
    check_ranges(ranges)
    check_outputs(ranges, exits, out)
    for wrong in (out[0] + 1, out[0] / 2, out[0].at[0].set(jnp.nan)):
        with pytest.raises(AssertionError, match="jit"):
            check_outputs(ranges, exits, (wrong, out[1]))


def test_a_range_that_is_none_is_told():
    for low, high in ((1.0, 0.0), (jnp.nan, 0.0)):
        with pytest.raises(AssertionError, match="x"):
            check_ranges({"x": jr.Range(low, high, False)})
