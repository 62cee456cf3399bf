"""Derivative rules of the user's own see what they see plainly, whatever observes them.

Plainly is: jitted. Whether a rule was called is told by what is returned (each has a factor of its
own); how, by what it saw: which tangents and cotangents are zeros, what is perturbed, the types,
and how often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.jet import jet

import jax_ranges as jr
from tests.custom_rules import KINDS, TRANSFORMS, X, Y, logging_vjp, symbolic_vjp
from tests.tools import SAME, STATS, TOOLS, TRACED

Fun = Callable[..., Any]

# What may itself be differentiated. The simulation replaces all values, by equal ones.
OUTSIDE: dict[str, Fun] = {
    **{name: TRACED[name] for name in ("ranges", "stacked", "find_nonfinite", "watched", "guard")},
    "simulate": lambda f, *args: jr.simulate(f, SAME, straight_through=True),
}
PAIRS = [(kind, transform) for kind in KINDS for transform in TRANSFORMS]
SAMPLE = [(i, *pair) for i, pair in enumerate(PAIRS[::31])]


def outcome(kind: str, make: Callable[..., Fun], exact: bool = True) -> Any:
    """What comes of it, and what the rule saw; or the error.

    exact: bit for bit, weak types included. (Of the simulation no more can be expected than that
    its cotangents are equal numbers.)
    """
    seen: list[Any] = []
    rule, args = KINDS[kind]
    try:
        outs = jax.block_until_ready(make(rule(seen), *args)(*args))
    except Exception as error:
        return error
    leaves, tree = jax.tree.flatten(outs)
    if not exact:
        values = [np.asarray(x) for x in leaves]
        types = [(x.shape, x.dtype) for x in values]
        return str(tree), types, [x.tolist() for x in values], [rule for rule, *_ in seen]
    types = [(str(jax.typeof(x)), bool(getattr(x, "weak_type", False))) for x in leaves]
    return str(tree), types, [np.asarray(x).tobytes() for x in leaves], seen


def check_outside(kind: str, transform: str, tool: str) -> None:
    """The transformation of what is observed."""
    change, observe, exact = TRANSFORMS[transform], OUTSIDE[tool], tool != "simulate"
    plain = outcome(kind, lambda f, *args: change(jax.jit(f)), exact)
    found = outcome(kind, lambda f, *args: change(jax.jit(observe(f, *args))), exact)
    if not isinstance(plain, Exception):
        assert found == plain


def check_inside(kind: str, transform: str, tool: str) -> None:
    """The transformation, observed: a step that has gradients in it."""
    change, observe = TRANSFORMS[transform], TOOLS[tool]
    plain = outcome(kind, lambda f, *args: change(jax.jit(f)), exact=False)
    found = outcome(kind, lambda f, *args: observe(change(f), *args), exact=False)
    if not isinstance(plain, Exception):  # how often a tool traces is its own affair
        assert not isinstance(found, Exception), found
        assert found[:-1] == plain[:-1]


@pytest.mark.parametrize(("i", "kind", "transform"), SAMPLE)
def test_a_rule_sees_the_same_when_what_is_observed_is_transformed(i, kind, transform):
    check_outside(kind, transform, list(OUTSIDE)[i % len(OUTSIDE)])


@pytest.mark.parametrize(("i", "kind", "transform"), SAMPLE)
def test_a_rule_sees_the_same_when_what_is_transformed_is_observed(i, kind, transform):
    check_inside(kind, transform, list(TOOLS)[i % len(TOOLS)])


@pytest.mark.slow
@pytest.mark.parametrize("tool", OUTSIDE)
@pytest.mark.parametrize(("kind", "transform"), PAIRS)
def test_all_rules_with_all_transformations_outside_of_all_tools(kind, transform, tool):
    check_outside(kind, transform, tool)


@pytest.mark.slow
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(("kind", "transform"), PAIRS)
def test_all_rules_with_all_transformations_inside_of_all_tools(kind, transform, tool):
    check_inside(kind, transform, tool)


def test_an_unused_output_has_a_symbolic_zero_for_its_cotangent_eager_too():
    seen: list[Any] = []
    f = symbolic_vjp(seen)
    jax.grad(lambda x: jnp.sum(jr.ranges(f)(x, Y)[0][0]))(X)
    (_, _, primals), (_, _, (*_, first, second)) = seen
    assert [perturbed for perturbed, _ in primals] == [True, False]
    assert (first, second) == (("float32[3]", False), ("zero", "float32[3]"))


@pytest.mark.skipif("vjp, logs" not in KINDS, reason="rules have logs since jax 0.12")
@pytest.mark.parametrize("jitted", [False, True])
def test_what_a_rule_logs_is_not_lost(jitted):
    f = logging_vjp([])
    observed = OUTSIDE["ranges"](f)
    _, vjp = jax.vjp(jax.jit(observed) if jitted else observed, X, Y)
    _, logs = vjp.with_logs(jnp.ones(3))
    np.testing.assert_array_equal(logs["logged"]["x"], X)


def test_a_rule_runs_once_and_the_function_beside_it_without_effects():
    ran: list[str] = []

    def tell(name: str) -> None:
        jax.debug.callback(lambda: ran.append(name))

    @jax.custom_vjp
    def f(x: Any) -> Any:
        tell("function")
        return x * 2

    def forward(x: Any) -> Any:
        tell("forward")
        return x * 2, x

    def backward(kept: Any, ct: Any) -> Any:
        tell("backward")
        return (ct * kept,)

    f.defvjp(forward, backward)

    def step(x: Any) -> Any:
        out, ranges = jr.ranges(f)(x)
        return jnp.sum(out), ranges

    grad, ranges = jax.jit(jax.grad(step, has_aux=True))(X)
    jax.effects_barrier()
    np.testing.assert_array_equal(grad, X)
    assert sorted(ran) == ["backward", "forward"]
    assert (ranges["custom_vjp_call/mul"].min, ranges["custom_vjp_call/mul"].max) == (-2.0, 4.0)
    jr.ranges(f)(X)
    jax.effects_barrier()
    assert ran[2:] == ["function"]


def test_ranges_in_a_loss_have_no_derivative_and_a_rule_does_not_see_them():
    """Of a statistic of floats, whose states could have one."""
    seen: list[Any] = []
    f = symbolic_vjp(seen)

    def loss(x: Any) -> Any:
        (first, _), ranges = jr.ranges(f, stats=jr.Moments())(x, Y)
        moments = ranges.state("custom_vjp_call/mul", jr.Moments())
        return jnp.sum(first) * moments.mean * 2.0**moments.exponent

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(X), Y * 4 * np.mean(X * Y), 1e-6)
    assert [rule for rule, *_ in seen] == ["fwd", "bwd"] and len(seen[1][2]) == 4


# -- jet --------------------------------------------------------------------------------------


def _smooth(x: Any) -> Any:
    return jnp.sin(x) * jnp.tanh(x * 2), jnp.where(x > 0, x, jnp.exp(x))


JETS: dict[str, Fun] = {
    **{str(stat): lambda f, x, stat=stat: _with_stat(f, stat) for stat in STATS},
    **{name: TRACED[name] for name in ("ranges", "find_nonfinite", "watched", "guard")},
}


def _with_stat(f: Fun, stat: jr.Statistic) -> Fun:
    return lambda x: jr.ranges(f, stats=stat, inputs=True)(x)[0]


@pytest.mark.parametrize("tool", JETS)
@pytest.mark.parametrize("jitted", [False, True])
def test_higher_derivatives_by_jet_of_what_is_observed(tool, jitted):
    change = jax.jit if jitted else lambda f: f
    series = ((np.ones_like(X), np.full_like(X, 0.5), X),)
    want = jet(change(_smooth), (X,), series)
    found = jet(change(JETS[tool](_smooth, X)), (X,), series)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-5), found, want)
    assert jet(jr.ranges(_smooth), (X,), series)[0][1]["sin"].observed
