"""JAX's own cases for every primitive: outputs to the bit, and ranges as the oracle's.

One case a primitive and precision runs in CI; all of them (an hour) with `-m slow`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import pytest

from tests.harnesses import SLOW, NotInJax, check, check_jitted, groups, sampled

SAMPLE = {x64: sampled(x64, cases=1) for x64 in (False, True)}


def each(harnesses: dict[bool, dict[str, Any]]) -> pytest.MarkDecorator:
    """One test a primitive."""
    params = [
        pytest.param(x64, group, id=f"{group}-{'x64' if x64 else 'x32'}")
        for x64, found in harnesses.items()
        for group in found
    ]
    return pytest.mark.parametrize(("x64", "group"), params)


def run(one: Callable[[Any, bool], None], harnesses: Iterable[Any], x64: bool) -> int:
    """Check cases, all of them before it complains; how many there were that JAX can run."""
    ran, failures = 0, []
    for harness in harnesses:
        try:
            one(harness, x64)
            ran += 1
        except NotInJax:
            continue
        except Exception as error:
            failures.append(f"{harness.fullname}: {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures)
    return ran


@each(SAMPLE)
def test_a_primitive_keeps_its_outputs_and_has_the_oracle_s_ranges(x64, group):
    assert run(check, SAMPLE[x64][group], x64) == len(SAMPLE[x64][group])


@each({False: {group: cases for group, cases in SAMPLE[False].items() if group not in SLOW}})
def test_a_jitted_primitive_keeps_its_outputs(x64, group):
    assert run(check_jitted, SAMPLE[x64][group][:1], x64) == 1


def test_the_sample_has_every_primitive_of_the_list():
    assert list(SAMPLE[False]) == list(groups(False))


@pytest.mark.slow
@each({x64: groups(x64) for x64 in (False, True)})
def test_all_cases_of_a_primitive_keep_their_outputs_and_have_the_oracle_s_ranges(x64, group):
    assert run(check, groups(x64)[group], x64)
    jax.clear_caches()  # thousands of compiled programs otherwise


@pytest.mark.slow
@each({x64: groups(x64) for x64 in (False, True)})
def test_all_jitted_cases_of_a_primitive_keep_their_outputs(x64, group):
    assert run(check_jitted, groups(x64)[group], x64)
    jax.clear_caches()
