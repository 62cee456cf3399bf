"""jr.find_nonfinite and net.births(): the corpus, and what each part promises."""

import pytest

import jax_ranges as jr
from tests.numerics_bugs import BUGS, CLEAN


@pytest.mark.parametrize("name", BUGS)
def test_the_first_birth_reported_is_the_planted_one(name):
    planted = BUGS[name]
    if planted.missing:
        pytest.skip(f"{planted.needs} is not installed")
    fun, args = planted.make()
    _, report = jr.find_nonfinite(fun)(*args)
    assert not report.ok, report
    first = report.births[0]
    if planted.site:
        assert first.site.name == planted.site
    else:
        assert first.site.source.endswith(f"numerics_bugs.py:{planted.line}"), report
    assert (first.kind, first.fate, first.iteration) == (
        planted.kind,
        "escaped",
        planted.iteration,
    ), report


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_said_against_programs_that_make_infinities_for_good(name):
    fun, args = CLEAN[name]()
    _, report = jr.find_nonfinite(fun)(*args)
    assert report.ok, report
