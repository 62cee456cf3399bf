"""Every primitive of JAX's own list of cases: outputs to the bit, ranges as the oracle's."""

from __future__ import annotations

import pytest

from tests.harnesses import NotInJax, check, check_jitted, groups

pytest.importorskip("absl", reason="JAX's list of cases needs absl-py")

CASES = 3


def _primitives(cases: int | None) -> list[pytest.ParameterSet]:
    return [
        pytest.param(group, x64, id=f"{group}-{'x64' if x64 else 'x32'}")
        for x64 in (False, True)
        for group in groups(x64, cases)
    ]


def _run(harnesses, x64, one) -> int:
    """Check some cases; says how many plain JAX could run."""
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


@pytest.mark.parametrize(("group", "x64"), _primitives(CASES))
def test_a_primitive_gives_its_own_outputs_and_the_ranges_of_the_oracle(group, x64):
    harnesses = groups(x64, CASES)[group]
    assert _run(harnesses, x64, check), "plain JAX ran none of the cases"
