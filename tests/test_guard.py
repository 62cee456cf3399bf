"""`jr.guard`: what is a violation, in the graph and on the host; its texts and its errors."""

from __future__ import annotations

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jax_ranges as jr
from jax_ranges.expected import Expectation
from jax_ranges.ranges import from_states
from jax_ranges.report.guard_table import violations_table
from jax_ranges.report.tables import plain
from jax_ranges.site import Site
from jax_ranges.stats import MinMax, extrema_of
from tests.programs import other_args, random_program
from tests.values import FLOATS, INTS, float_arrays, random_array

INF, NAN = math.inf, math.nan
F32 = np.dtype(np.float32)


def f(x: Any) -> Any:
    with jax.named_scope("layer"):
        return jnp.maximum(jnp.sqrt(x) * -2, -100).T - 3


def expected_of(fun: Any, *args: Any) -> jr.Ranges:
    return jr.ranges(fun)(*args)[1]


def ranges_of(values: Any, dtype: Any = F32, name: str = "neg") -> jr.Ranges:
    """Ranges of one site at which these values were seen."""
    array = np.asarray(values, np.float64).astype(dtype)
    return from_states([Site(name, name, 0, (2,), array.dtype)], [{MinMax(): extrema_of(array)}])


def of_one(
    expected: Any, seen: Any, tolerance: float = 0.1, dtype: Any = F32, atol: float = 0.0
) -> jr.Violations:
    expectation = Expectation.of(ranges_of(expected, dtype), tolerance, atol)
    return jr.Violations(ranges_of(seen, dtype), expectation)


class Traces:
    """A function that counts how often it is traced."""

    def __init__(self, fun: Any):
        self.fun, self.count = fun, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return self.fun(*args, **kwargs)


# -- what is a violation ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "seen", "what", "excess"),
    [
        ([0, 10], [0, 10], (), None),
        ([0, 10], [-1, 11], (), None),
        ([0, 10], [0, 11.01], ("above",), 0.101),
        ([0, 10], [-1.01, 5], ("below",), 0.101),
        ([0, 10], [-2, 12], ("above", "below"), 0.2),
        ([1000, 1001], [1000, 1001.2], ("above",), 0.2),
        ([5, 5], [5.000001], (), None),
        ([5, 5], [5.5], ("above",), 0.1),
        ([0, 0], [1e-30], ("above",), 1e-30),
        ([0, 0], [-0.0], (), None),
        ([-0.0, 0], [0.0], (), None),
        ([0, 1], [0, 1, NAN], ("nan",), INF),
        ([0, NAN], [0, 0, NAN], (), None),
        ([NAN], [0], ("unexpected",), INF),
        ([], [0], ("unexpected",), INF),
        ([], [], (), None),
        ([0, 1], [], (), None),
        ([0, 1], [INF], ("inf",), INF),
        ([0, 1], [-INF, 3], ("inf", "above"), INF),
        ([0, INF], [0, INF], (), None),
        ([0, INF], [-INF, INF], ("inf",), INF),
        ([4, INF], [3.7, 1e38], (), None),
        ([4, INF], [3.5, 1e38], ("below",), 0.125),
        ([-3e38, 3e38], [-3.4e38, 3.4e38], (), None),
        ([-3e38, 3e38], [INF, 0], ("inf",), INF),
        ([INF], [0], ("below",), INF),
    ],
)
def test_what_is_a_violation(expected, seen, what, excess):
    violations = of_one(expected, seen)
    assert violations.violated.tolist() == [bool(what)]
    assert bool(violations.any) == bool(violations) == bool(what)
    if what:
        (row,) = violations.rows
        assert row.what == what
        assert row.excess == pytest.approx(excess, rel=1e-4)
    else:
        assert violations.rows == ()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_integers_are_exact_and_stay_in_their_dtype(dtype):
    info = np.iinfo(dtype)
    everything = of_one([], [], dtype=dtype)
    whole = from_states(
        everything.sites, [{MinMax(): extrema_of(np.array([info.min, info.max], dtype))}]
    )
    assert not jr.Violations(whole, Expectation.of(whole, 10.0, 0.0))
    assert not of_one([0, 10], [1, 11], dtype=dtype)
    assert of_one([0, 10], [1, 12], dtype=dtype).rows[0].what == ("above",)
    assert not of_one([7], [9], dtype=dtype, atol=2)
    assert of_one([7], [10], dtype=dtype, atol=2.9)


def test_the_larger_tolerance_counts():
    assert not of_one([0, 1], [1.5], tolerance=0, atol=0.5)
    assert of_one([0, 1], [1.5], tolerance=0.1, atol=0.1)
    assert not of_one([0, 1], [1.5], tolerance=0.5, atol=0.1)
    assert of_one([0, 1], [1.0001], tolerance=0)


@pytest.mark.parametrize("dtype", [d for d in FLOATS if d.name != "float8_e8m0fnu"])
@given(data=st.data())
def test_the_margin_is_the_formula(dtype, data):
    values = data.draw(float_arrays(dtype)).astype(np.float64).ravel()
    numbers = values[np.isfinite(values)]
    if not numbers.size or numbers.size < values.size:
        return
    tolerance = data.draw(st.sampled_from([0.0, 0.1, 3.0]))
    lo, hi = numbers.min(), numbers.max()
    info = jnp.finfo(dtype)
    margin = max(tolerance * (hi - lo), 4 * float(info.eps) * max(abs(lo), abs(hi)))
    allowed = Expectation.of(ranges_of(numbers, dtype), tolerance, 0.0).allowed("neg", dtype)
    assert allowed.min is not None and allowed.max is not None
    with np.errstate(over="ignore"):
        wanted = np.clip([lo - margin, hi + margin], float(info.min), float(info.max))
        wanted = np.asarray(wanted).astype(dtype).astype(np.float64)
    np.testing.assert_allclose([allowed.min, allowed.max], wanted, rtol=1e-6, atol=1e-300)


# -- in the graph as on the host --------------------------------------------------------------


def by_hand(violations: jr.Violations) -> list[bool]:
    """Site by site, from the ranges as they are read: nothing is pulled back through steps."""
    found = []
    for site in violations.sites:
        r, allowed = (
            violations.seen[site.name],
            violations._expectation.allowed(site.name, site.dtype),
        )
        beyond = allowed.min is None or r.min < allowed.min or r.max > allowed.max
        found.append(bool((r.nan and not allowed.nan) or (r.min <= r.max and beyond)))
    return found


CHAINS = {
    "order kept": lambda x: (jnp.maximum(x, -1) * 3, jnp.minimum(x + 0.1, 8), jnp.floor(x) / 4),
    "turned round": lambda x: (-x, 3 - x, x * -0.5, jnp.maximum(-x, 0)),
    "rounded": lambda x: (x.astype(jnp.bfloat16) * 2, x.astype(jnp.float16), jnp.sign(x)),
    "constant": lambda x: (jnp.clip(x, 2, 2), jnp.maximum(x, jnp.inf), lax.iota("int32", 4)),
    "joined": lambda x: (jnp.concatenate([jnp.ravel(y) for y in (x * 2, -x, jnp.abs(x))]),),
    "integers": lambda x: (~x.astype(jnp.int8), (x > 0).astype(jnp.int32), ~(x > 1)),
}


@pytest.mark.parametrize("chain", CHAINS)
@settings(max_examples=8)
@given(data=st.data())
def test_derived_sites_are_watched_through_what_is_measured(chain, data):
    some, others = (data.draw(float_arrays(F32)) for _ in range(2))
    if not some.size:
        return
    others = np.resize(others, some.shape) if others.size else some
    tolerance = data.draw(st.sampled_from([0.0, 0.1, 5.0]))
    guarded = jr.guard(CHAINS[chain], expected_of(CHAINS[chain], some), tolerance)
    for x in (some, others):
        _, violations = jax.jit(lambda x: guarded(x))(x)
        assert violations.violated.tolist() == by_hand(violations)
        assert len(violations.rows) == int(violations.count)
    assert not guarded(some)[1]


@pytest.mark.parametrize("dtype", [*FLOATS, *INTS], ids=str)
def test_every_dtype(dtype):
    rng = np.random.default_rng(5)
    some, others = (random_array(dtype, (8,), rng) for _ in range(2))

    def copied(x: Any) -> Any:
        return lax.rev(x, (0,)), lax.sort(x)

    guarded = jr.guard(copied, expected_of(copied, some), 0.0)
    assert not guarded(some)[1]
    _, violations = guarded(others)
    assert violations.violated.tolist() == by_hand(violations)


@pytest.mark.parametrize("seed", [*range(15), 32])  # 32: a bfloat16 site that saw only NaN
def test_random_programs(seed):
    program = random_program(seed)
    with program.mode():
        expected = jax.jit(jr.ranges(program.fun))(*program.args)[1]
        if not len(expected):
            return
        guarded = jr.guard(program.fun, expected, tolerance=0.01)
        out, violations = guarded(*program.args)
        assert not violations, violations
        assert violations.unknown == violations.missing == ()
        assert jax.tree.structure(out) == jax.tree.structure(program.fun(*program.args))
        _, violations = guarded(*other_args(program, 1))
        assert violations.violated.tolist() == by_hand(violations)


def test_64_bits(x64):
    def g(x):
        return x * -2

    small, large = jnp.array([1e-300]), jnp.array([1e300])
    guarded = jax.jit(jr.guard(g, expected_of(g, small)))
    _, violations = guarded(large)
    assert violations.rows[0].what == ("below",)
    assert not guarded(small)[1]
    fine = guarded(small)[1]
    with jax.enable_x64(False):
        assert violations.violated.tolist() == [True]
        assert (violations | fine).rows[0].seen.min == -2e300


# -- composition ------------------------------------------------------------------------------


def test_one_trace_for_each_kind_of_call():
    counted = Traces(f)
    expected = expected_of(f, jnp.array([1.0, 4.0]))
    guarded = jr.guard(counted, expected)
    for x in (1.0, 2.0, 3.0):
        guarded(jnp.full(2, x))
    assert counted.count == 1
    guarded(jnp.ones((3, 2)))
    assert counted.count == 2
    outer = jax.jit(guarded)
    total = None
    for x in (1.0, 9.0, 3.0):
        _, violations = outer(jnp.full(2, x))
        total = violations if total is None else total | violations
    assert counted.count == 3
    assert [row.what for row in total.rows] == [("above",)] + [("below",)] * 3


def test_inside_a_jitted_step_the_flag_is_an_array_like_others():
    guarded = jr.guard(f, expected_of(f, jnp.array([1.0, 4.0])))

    @jax.jit
    def step(x):
        out, violations = guarded(x)
        return jnp.where(violations.any, 0.0, out), violations.count

    assert step(jnp.array([1.0, 3.0]))[0].tolist() != [0, 0]
    out, count = step(jnp.array([1.0, 30.0]))
    assert out.tolist() == [0, 0] and int(count) == 4


def test_a_scan_of_steps():
    guarded = jr.guard(f, expected_of(f, jnp.array([1.0, 4.0])))

    def step(carry, x):
        out, violations = guarded(x)
        return carry + out.sum(), violations

    _, violations = jax.jit(lambda xs: lax.scan(step, 0.0, xs))(jnp.array([[1.0, 2], [1, 99]]))
    assert violations.any.tolist() == [False, True]
    assert violations.count.tolist() == [0, 4]
    assert bool(violations)
    assert violations.reduce().rows == violations.rows
    assert violations.reduce().count == 4


def test_vmap_has_violations_for_each_example():
    guarded = jr.guard(f, expected_of(f, jnp.array([1.0, 4.0])))
    _, violations = jax.vmap(guarded)(jnp.array([[1.0, 2], [-1, 4], [3, 3]]))
    assert violations.any.tolist() == [False, True, False]
    assert violations.violated.shape == (3, 4)


def test_gradients_are_those_of_the_function():
    guarded = jr.guard(f, expected_of(f, jnp.array([1.0, 4.0])))
    x = jnp.array([1.0, 3.0])
    grads, violations = jax.grad(
        lambda x: (lambda out, v: (out.sum(), v))(*guarded(x)), has_aux=True
    )(x)
    np.testing.assert_array_equal(grads, jax.grad(lambda x: f(x).sum())(x))
    assert not violations


def test_a_whole_training_step_forward_and_backward():
    def loss(w, x):
        return jnp.mean(jnp.tanh(x @ w) ** 2)

    def step(w, x):
        return w - 0.1 * jax.grad(loss)(w, x)

    w, x = jnp.ones((3, 2)), jnp.ones((4, 3))
    guarded = jr.guard(jax.jit(step), expected_of(jax.jit(step), w, x), atol=1e-3)
    assert not guarded(w, x)[1]
    _, violations = guarded(w * -jnp.inf, x)
    assert any(row.site.backward for row in violations.rows)
    assert violations.rows[0].excess == INF


def test_merging_keeps_what_was_in_violation_in_any_step():
    guarded = jr.guard(f, expected_of(f, jnp.array([1.0, 4.0])))
    fine, low = guarded(jnp.array([2.0, 3.0]))[1], guarded(jnp.array([0.1]))[1]
    high = guarded(jnp.array([[9.0, 1.0]]))[1]  # of another shape, so of another program
    both = low | fine | high
    assert both.rows[0].what == ("above", "below")
    assert {row.site.name for row in both.rows} == set(both.seen)
    assert (both | both).violated.tolist() == both.violated.tolist()


def test_static_arguments_and_donation():
    def scaled(x, how, factor):
        return x * factor if how == "up" else x / factor

    jitted = jax.jit(scaled, static_argnames=("how", "factor"), donate_argnums=0)
    expected = expected_of(jitted, jnp.ones(3), "up", 2.0)
    guarded = jr.guard(jitted, expected)
    out, violations = guarded(jnp.ones(3), "up", 2.0)
    assert out.tolist() == [2, 2, 2] and not violations
    assert guarded(jnp.ones(3), "up", 3.0)[1].rows[0].what == ("above",)


# -- sites that are in one only ---------------------------------------------------------------


def branching(x, flag):
    return lax.cond(flag, lambda x: x * 2, lambda x: jnp.exp(x), x)


def test_a_branch_that_was_not_expected_to_run_and_one_that_did_not():
    expected = expected_of(branching, jnp.ones(2), True)
    _, violations = jr.guard(branching, expected)(jnp.ones(2), jnp.array(False))
    (row,) = [row for row in violations.rows if row.site.primitive == "exp"]
    assert row.what == ("unexpected",) and row.excess == INF
    assert any("mul" in name for name in violations.not_run)


def test_unknown_and_missing_sites_are_told_apart():
    expected = expected_of(f, jnp.array([1.0, 4.0]))

    def changed(x):
        with jax.named_scope("layer"):
            return jnp.log1p(jnp.sqrt(x) * -2 - 3)

    guarded = jr.guard(changed, expected)
    _, violations = guarded(jnp.array([1.0, 4.0]))
    assert list(violations.seen) == ["layer/sqrt", "layer/mul", "layer/sub"]
    assert violations.unknown == ("layer/log1p",)
    assert violations.missing == ("layer/max",) or "layer/max" in violations.missing
    with pytest.raises(ValueError, match=r"strict=True, but of layer/log1p nothing is expected"):
        jr.guard(changed, expected, strict=True)(jnp.ones(2))
    assert not jr.guard(f, expected, strict=True)(jnp.array([1.0, 4.0]))[1]


def test_select_guards_some_sites():
    expected = expected_of(f, jnp.array([1.0, 4.0]))
    _, violations = jr.guard(f, expected, select="mul")(jnp.array([99.0]))
    assert [row.site.name for row in violations.rows] == ["layer/mul"]
    assert violations.unknown == violations.missing == ()


def test_inputs_are_guarded_if_they_are_expected():
    _, expected = jr.ranges(f, inputs=True)(jnp.array([1.0, 4.0]))
    _, violations = jr.guard(f, expected)(jnp.array([99.0]))
    assert "input/x" in {row.site.name for row in violations.rows}


def test_a_file_and_stacked_loops_are_expected_too(tmp_path):
    def looped(x):
        return lax.scan(lambda c, x: (c * x, jnp.exp(x)), 1.0, x)

    _, expected = jr.ranges(looped, loops="stack")(jnp.arange(3.0))
    expected.save(tmp_path / "r.json")
    guarded = jr.guard(looped, tmp_path / "r.json")
    assert not guarded(jnp.arange(3.0))[1]
    assert guarded(jnp.arange(4.0))[1].rows[0].site.name == "scan/exp"


# -- errors and texts -------------------------------------------------------------------------


def test_raising_names_sites_and_lines():
    guarded = jr.guard(f, expected_of(f, jnp.array([1.0, 4.0])), raises=True)
    out, violations = guarded(jnp.array([1.0, 4.0]))
    assert out.tolist() == f(jnp.array([1.0, 4.0])).tolist() and not violations
    with pytest.raises(jr.RangeViolationError) as caught:
        guarded(jnp.array([1.0, -4.0]))
    text = str(caught.value)
    assert text.startswith("4 of 4 sites left what was expected (tolerance=0.1, atol=0):\n")
    assert "layer/sqrt (" in text and "test_guard.py:" in text
    assert "nan; saw [1, 1] NaN, expected [1, 2]" in text
    assert caught.value.violations.rows[0].site.name == "layer/sqrt"


def test_raising_inside_jit_says_what_to_do():
    guarded = jr.guard(f, expected_of(f, jnp.array([1.0, 4.0])), raises=True)
    with pytest.raises(TypeError, match=r"call violations.raise_if_any\(\) outside"):
        jax.jit(guarded)(jnp.ones(2))
    quiet = jr.guard(f, expected_of(f, jnp.array([1.0, 4.0])))
    with pytest.raises(TypeError, match=r"use .raise_if_any\(\) outside"):
        jax.jit(lambda x: quiet(x)[1].raise_if_any())(jnp.ones(2))
    with pytest.raises(TypeError, match=r"use .rows outside"):
        jax.jit(lambda x: quiet(x)[1].rows)(jnp.ones(2))


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"tolerance": -0.1}, ValueError, "tolerance is a finite number from 0 on; got -0.1"),
        ({"tolerance": NAN}, ValueError, "tolerance is a finite number"),
        ({"atol": INF}, ValueError, "atol is a finite number"),
        ({"tolerance": "0.1"}, TypeError, "tolerance is a number; got '0.1' of type str"),
        ({"select": "nothing/*"}, ValueError, "selects none of the 4 sites"),
    ],
)
def test_wrong_options(wrong, kind, message):
    with pytest.raises(kind, match=message):
        jr.guard(f, expected_of(f, jnp.ones(2)), **wrong)


def test_other_errors():
    expected = expected_of(f, jnp.ones(2))
    with pytest.raises(TypeError, match="jr.guard takes a function"):
        jr.guard(3, expected)  # pyright: ignore[reportArgumentType]
    for call in (jr.guard(jnp.sin, expected), jax.jit(jr.guard(jnp.sin, expected))):
        with pytest.raises(ValueError, match=r"none of the 4 sites .* In the program: sin"):
            call(1.0)
    health = jr.ranges(f, stats=jr.Health())(jnp.ones(2))[1]
    with pytest.raises(ValueError, match=r"no sites with MinMax\(\)"):
        jr.guard(f, health)
    one, two = (jr.guard(f, expected, tolerance)(jnp.ones(2))[1] for tolerance in (0.1, 0.2))
    with pytest.raises(ValueError, match="different expectations"):
        _ = one | two


def test_texts():
    guarded = jr.guard(f, expected_of(f, jnp.array([1.0, 4.0])))
    fine, wrong = guarded(jnp.array([1.0]))[1], guarded(jnp.array([1.0, 4.41]))[1]
    assert repr(fine) == "Violations: 0 of 4 sites left what was expected"
    wrong |= guarded(jnp.array([81.0]))[1]
    head, titles, _, first, *_ = repr(wrong).split("\n")
    assert head == "Violations: 4 of 4 sites left what was expected · 1 above · 3 below"
    assert titles.split() == ["site", "type", "what", "seen", "expected", "excess", "source"]
    assert first.split()[:5] == ["layer/sqrt", "f32", "above", "[1,", "9]"]
    assert "… 3 more" in plain(violations_table(wrong, limit=1))
    abstract = jax.eval_shape(guarded, jnp.ones(2))[1]
    assert repr(abstract) == "Violations: 4 sites guarded, abstract"
    plain_values = json.loads(json.dumps(wrong.to_json(), allow_nan=False))
    assert plain_values["violations"][0]["what"] == ["above"]


@pytest.mark.parametrize("width", [*range(1, 60, 7), 80, 160])
def test_the_table_fits_any_width(width):
    guarded = jr.guard(f, expected_of(f, jnp.array([1.0, 4.0])))
    lines = plain(guarded(jnp.array([-81.0]))[1], width).split("\n")
    assert max(map(len, lines)) <= max(width, 20)
