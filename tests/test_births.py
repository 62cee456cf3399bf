"""jr.find_nonfinite and net.births(): the corpus, and what each part promises."""

import inspect
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from rich.console import Console

import jax_ranges as jr
from jax_ranges.births.first import First
from jax_ranges.births.statistic import KINDS, Births
from jax_ranges.stats import Form
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


# -- what a birth says ------------------------------------------------------------------------


def births(fun, *args, **options):
    return jr.find_nonfinite(fun, **options)(*args)[1].births


def test_outputs_are_those_of_the_function():
    def f(x):
        return {"a": jnp.exp(x), "b": (x > 0, None), "c": "text"}

    x = jnp.array([-1.0, 1000.0])
    out, _ = jr.find_nonfinite(f)(x)
    jax.tree.map(np.testing.assert_array_equal, out, f(x))


@pytest.mark.parametrize(
    ("fun", "x", "reason"),
    [
        (jnp.exp, 104.2, "exp overflows float32 above 88.7228; its input reached 104.2"),
        (jnp.log, 0.0, "log of 0"),
        (jnp.sqrt, -2.0, "sqrt of a negative number; its input was in -2"),
        (lambda x: x / x, 0.0, "division of 0 by 0; inputs 0, 0"),
        (lambda x: 3 / x, 0.0, "division by 0; the numerator was in 3"),
        (
            lambda x: x.astype(jnp.float16),
            70123.0,
            "overflow in the cast float32 -> float16; largest was 70123, the limit is 65504",
        ),
        (lax.rsqrt, 0.0, "rsqrt of 0"),
        (jnp.log1p, -1.0, "log1p of -1"),
        (jnp.arccos, 2.0, "acos of a number outside [-1, 1]; its input was in 2"),
        (lambda x: x**-3, 0.0, "0 to the power -3"),
        (lambda x: jnp.where(x > 0, jnp.inf, 0) * (x - 1), 1.0, "0 * inf; inputs inf, 0"),
    ],
)
def test_a_sentence_says_what_happened(fun, x, reason):
    assert births(fun, jnp.float32(x))[0].reason == reason


def test_limits_are_those_of_the_dtype():
    (birth,) = births(jnp.exp, jnp.array([12.0], jnp.float16))
    assert birth.reason == "exp overflows float16 above 11.0899; its input reached 12"


def test_inputs_are_the_ranges_of_that_moment_not_of_the_whole_loop():
    def f(x):
        return lax.fori_loop(0, 60, lambda i, x: x * -10.0, x)

    (birth,) = births(f, 1.0)
    assert birth.iteration == (38,)
    found = birth.inputs[0]
    assert found.min == found.max == pytest.approx(1e38)


def test_elements_are_compared_one_by_one_so_that_a_mask_hides_nothing():
    x = jnp.array([-jnp.inf, 1.0, 200.0])
    found = births(lambda x: jnp.exp(x - 1) * 2, x)
    assert [(b.site.name, b.kind, b.count) for b in found if b.site.primitive == "exp"] == [
        ("exp", "+inf", 1)
    ]


def test_fates():
    def f(x):
        masked = jnp.where(x > 0, jnp.log(x), 0.0)
        propagated = jnp.where(x > 0, 2 * jnp.sqrt(x), 1.0)
        return masked + propagated, 1 / x

    found = {b.site.primitive: b for b in births(f, jnp.array([-1.0, 0.0]))}
    assert found["div"].fate == "escaped" and found["div"].outputs == ("output/1",)
    assert found["log"].fate == "masked" and not found["log"].path
    assert found["sqrt"].fate == "propagated" and found["sqrt"].path == ("mul",)


def test_escaped_births_come_first():
    def f(x):
        masked = jnp.where(x > 0, jnp.log(x), 0.0)
        return masked + 1 / x

    assert [b.fate for b in births(f, jnp.zeros(2))] == ["escaped", "masked"]


def test_the_trap_of_where_is_explained():
    fun, args = BUGS["gradient_through_the_branch_that_where_did_not_take"].make()
    _, product = births(fun, *args)
    assert product.site.backward and product.derivative.of.primitive == "sqrt"
    assert "the branch that where" in str(product) and "0 * inf" in product.reason


def test_saturation_and_flushing_are_watched_for():
    def f(x):
        return (x * x).astype(jnp.float16)

    found = births(
        f, jnp.array([30.0, 1e-3]), watch=("float8_e4m3fn saturates", "float16 subnormals")
    )
    assert [(b.site.name, b.kind, b.watch) for b in found] == [
        ("mul", "saturated", "float8_e4m3fn"),
        ("mul", "flushed", "float16"),
    ]


def test_a_zero_made_by_a_conversion_is_flushed():
    (_, birth) = births(
        lambda x: x.astype(jnp.float16), jnp.array([1e-9]), watch="float16 subnormals"
    )
    assert (birth.site.primitive, birth.kind) == ("convert_element_type", "flushed")


@pytest.mark.parametrize("watch", ["float16", "float99 saturates", 3, "int8 explodes"])
def test_what_cannot_be_watched_is_refused(watch):
    with pytest.raises((ValueError, TypeError), match="watch|format|iterable"):
        jr.find_nonfinite(jnp.sin, watch=watch)


def test_select_says_what_may_give_birth():
    found = births(lambda x: jnp.log(x) + 1 / x, jnp.zeros(2), select="div")
    assert [b.site.primitive for b in found] == ["div"]


# -- transformations --------------------------------------------------------------------------


def test_it_composes_with_jit_and_vmap_and_reads_on_the_host():
    f = jr.find_nonfinite(lambda x: jnp.log(x).sum())
    assert not jax.jit(f)(jnp.zeros(2))[1].ok
    _, report = jax.vmap(f)(jnp.array([[1.0, 2.0], [0.0, 0.0]]))
    assert [(b.kind, b.count) for b in report.births] == [("-inf", 2)]


def test_inside_of_jit_a_report_says_that_it_cannot_be_read():
    def f(x):
        _, report = jr.find_nonfinite(jnp.log)(x)
        assert "not to be read here" in repr(report)
        return report.ok

    with pytest.raises(ValueError, match="read it outside"):
        jax.jit(f)(0.0)


def test_gradients_are_those_of_the_function():
    f = jr.find_nonfinite(lambda x: jnp.sum(jnp.exp(x) ** 2))
    gradient, _ = jax.grad(f, has_aux=True)(jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(gradient, jax.grad(lambda x: f(x)[0])(jnp.array([0.5, 1.0])))


def test_reports_as_text_and_json():
    _, report = jr.find_nonfinite(jnp.log)(jnp.zeros(2))
    assert repr(report).startswith("Report: 1 birth: 1 escaped")
    record = json.loads(report.to_json())
    assert not record["ok"] and record["births"][0]["site"] == "log"
    console = Console(width=100, file=io.StringIO())
    console.print(report)
    assert "log of 0" in console.file.getvalue()


def test_values_of_64_bits(x64):
    def f(x):
        return lax.fori_loop(0, 400, lambda i, y: y * x.astype(jnp.float32), x)

    (birth,) = births(f, jnp.float64(10.0))
    assert (birth.site.dtype, birth.iteration) == (np.float64, (307,))
    assert birth.inputs[0].max == pytest.approx(1e308)
    assert birth.reason.startswith("the product overflows float64 (largest 1.8e+308)")


def test_complex_numbers():
    found = births(lambda x: jnp.log(x) * 1j, jnp.array([0j, 1 + 1j]))
    assert [(b.site.primitive, b.kind, b.reason) for b in found] == [
        ("log", "-inf", "log of 0"),
        ("mul", "nan", "0 * inf; inputs [-inf, 0.785398], [0, 1]"),
    ]


def test_the_way_through_deep_scopes_is_short():
    def f(x):
        with jax.named_scope("model"), jax.named_scope("block"), jax.named_scope("head"):
            y = jnp.log(x) * 2
            with jax.named_scope("last"):
                y = y + 1
        return y * 3

    (birth,) = births(f, 0.0)
    assert birth.site.name == "model/block/head/log"
    assert birth.path == ("model/block/head/mul", "model/block/head/last/add", "mul")
    assert str(birth).endswith("It escaped through …/mul, …/last/add, mul to output.")


@pytest.mark.slow  # the solver has thousands of operations to compile
def test_gradient_of_an_adaptive_solver():
    diffrax = pytest.importorskip("diffrax")

    def loss(y):
        def slope(t, y, args):
            return -y * jnp.where(y > 0, jnp.sqrt(y), 0.0)  # its derivative at 0 is NaN

        return diffrax.diffeqsolve(
            *(diffrax.ODETerm(slope), diffrax.Tsit5(), 0.0, 1.0, 0.1, y),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-6),
            max_steps=64,
        ).ys.sum()

    gradient, report = jr.find_nonfinite(jax.grad(loss))(jnp.array([1.0, 0.0]))
    assert np.isnan(gradient).tolist() == [False, True]
    assert [(b.kind, b.fate) for b in report.births] == [("+inf", "escaped"), ("nan", "escaped")]
    line = inspect.getsourcelines(loss)[1] + 2
    assert {b.site.source.rpartition(":")[2] for b in report.births} == {str(line)}


# -- nets -------------------------------------------------------------------------------------


def test_a_net_tells_the_call():
    def f(x):
        return jnp.where(x > 5, 0.0, jnp.log(x))

    net = jr.Net(f, births=True)
    for x in (9.0, 6.0, 3.0, 2.0, 0.0, 0.0):
        net(jnp.full(3, x))
    (birth,) = net.births()
    assert (birth.kind, birth.call, birth.count, birth.fate) == ("-inf", 5, 3, "escaped")
    # What it takes to find them is not in the ranges that were asked for.
    assert list(net.get_info()) == list(jr.ranges(f)(jnp.full(3, 9.0))[1])


def test_births_of_a_net_survive_a_reset_and_other_shapes(tmp_path):
    net = jr.Net(jnp.sqrt, births=True)
    net(jnp.array([-1.0]))
    net.dump_and_reset(tmp_path / "first.csv")
    net(jnp.array([-1.0, -2.0]))
    assert [(b.kind, b.call) for b in net.births()] == [("nan", 1)]
    assert jr.load(tmp_path / "first.csv")["sqrt"].nan


def test_stacked_loops_tell_the_iteration_too():
    def f(x):
        return lax.scan(lambda c, _: (c - 1, jnp.sqrt(c)), x, length=9)[1]

    net = jr.Net(f, births=True, loops="stack")
    net(3.0)
    net(20.0)
    (birth,) = net.births()
    assert (birth.iteration, birth.call) == ((4,), 1)
    assert net.get_info()["scan/sqrt"].max.shape == (9,)


def test_a_net_that_looks_for_none_says_so():
    with pytest.raises(ValueError, match="births=True"):
        jr.Net(jnp.sin).births()


# -- the monoid -------------------------------------------------------------------------------


def firsts(draw):
    """States as measuring and settling make them: nothing, or something in canonical form."""
    stat, form = Births(), Form(np.dtype(np.float32), (), loops=1)
    state = stat.identity_in(form)
    counts = np.array([draw(st.integers(0, 2)) for _ in KINDS], np.int32)
    when = np.array([[draw(st.integers(0, 2)) for _ in range(3)] for _ in KINDS], np.int32)
    key = np.array([[draw(st.integers(-3, 3))] * 4 for _ in KINDS], np.int32)
    there = counts[:, None] > 0
    return First(
        counts,
        np.where(there, when, state.when),
        *(np.where(there, key, leaf) for leaf in state.seen),
    )


@given(st.data())
def test_merging_is_associative_and_commutative_and_has_an_identity(data):
    stat = Births()
    a, b, c = (firsts(data.draw) for _ in range(3))
    nothing = stat.identity_in(Form(np.dtype(np.float32), (), loops=1))

    def same(x, y):
        jax.tree.map(np.testing.assert_array_equal, tuple(x), tuple(y))

    same(stat.merge(a, b), stat.merge(b, a))
    same(stat.merge(stat.merge(a, b), c), stat.merge(a, stat.merge(b, c)))
    same(stat.merge(a, nothing), a)
