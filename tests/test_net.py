"""`jr.Net`: what it returns, what it keeps, and that it loses nothing."""

from __future__ import annotations

import functools
import gc
import io
import json
import re
import signal
import threading
import time
import warnings
import weakref
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.experimental import io_callback
from rich.console import Console

import jax_ranges as jr
from jax_ranges import accumulate, caller


def f(x: Any) -> Any:
    with jax.named_scope("layer"):
        return (x + x) * 2


def as_dict(ranges: jr.Ranges) -> dict[str, tuple[Any, Any, bool]]:
    return {name: (r.min.item(), r.max.item(), bool(r.nan)) for name, r in ranges.items()}


def assert_same_output(got: Any, expected: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert jax.typeof(a) == jax.typeof(b) and getattr(a, "weak_type", 0) == getattr(
            b, "weak_type", 0
        )
        np.testing.assert_allclose(a, b, rtol=1e-6)


class Traces:
    """A function that counts how often it is traced."""

    def __init__(self, fun: Any):
        self.fun, self.count = fun, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.count += 1
        return self.fun(*args, **kwargs)


# -- calls ------------------------------------------------------------------------------------


def test_calls_return_the_functions_output_and_ranges_are_those_over_all_calls():
    net = jr.Net(f)
    batches = np.random.default_rng(0).normal(size=(20, 3, 4)).astype(np.float32)
    for batch in batches:
        assert_same_output(net(batch), jax.jit(f)(batch))
    merged = functools.reduce(jr.Ranges.merge, [jr.ranges(f)(batch)[1] for batch in batches])
    assert list(net.get_info()) == ["layer/add", "layer/mul"]
    assert as_dict(net.get_info()) == as_dict(merged)


def test_outputs_keep_weak_types_pytrees_and_what_is_no_array():
    def g(x, scale, name):
        return {"y": x * scale, "name": name, "s": jnp.asarray(scale) + 1, "none": None}

    out = jr.Net(g)(jnp.ones(2), 2.0, "n")
    assert out["name"] == "n" and out["none"] is None and out["s"].weak_type
    assert out["y"].dtype == jnp.float32


def test_repeated_shapes_are_traced_once_and_new_ones_share_the_names():
    traces = Traces(f)
    net = jr.Net(traces)
    for size, low in [(2, -1.0), (2, 0.0), (3, 5.0), (2, 0.5), (3, 0.1)]:
        net(jnp.full(size, low))
    assert traces.count == 2
    info = net.get_info()
    assert list(info) == ["layer/add", "layer/mul"]
    assert (info["layer/add"].min, info["layer/add"].max) == (-2, 10)


def test_values_of_static_arguments_compile_anew_and_arrays_do_not():
    traces = Traces(lambda x, power, mode="a", *, flag=True: x**power if flag else x)
    net = jr.Net(traces)
    for power in (2, 3, 2):
        net(jnp.ones(2) * power, power, flag=True)
    net(jnp.ones(2), 2, flag=False)
    net(jnp.ones(2), 2, "b")
    assert traces.count == 4
    assert net.get_info()["integer_pow"].max == 27


def test_true_is_not_one_as_a_static_argument():
    net = jr.Net(lambda x, k: x * 2 if k is True else x + k)
    assert net(jnp.ones(()), True) == 2 and net(jnp.ones(()), 1) == 2
    assert set(net.get_info()) == {"mul", "add"}


def test_a_jitted_function_keeps_static_arguments_and_traces_other_integers():
    traces = Traces(lambda x, n, step, *, mode: x * n + step)
    jitted = jax.jit(traces, static_argnums=1, static_argnames="mode")
    net = jr.Net(jitted)
    for step in range(5):
        assert net(jnp.ones(2), 3, step, mode="m")[0] == 3 + step
    net(jnp.ones(2), 3.0, 1, mode="m")
    net(jnp.ones(2), 3.5, 1, mode="m")
    assert traces.count == 3
    assert max(r.max for r in net.get_info().select("add").values()) == 7


def test_donated_arguments_of_a_jitted_function_are_donated():
    net = jr.Net(jax.jit(lambda state, x: state + x, donate_argnums=0))
    state = jnp.zeros(4)
    out = net(state, jnp.ones(4))
    assert state.is_deleted() and not out.is_deleted()
    by_name = jr.Net(jax.jit(lambda *, state: state + 1, donate_argnames="state"))
    by_name(state=out)
    assert out.is_deleted()


def test_compiler_options_of_a_jitted_function_work():
    g = jax.jit(f, compiler_options={"xla_allow_excess_precision": False})
    assert_same_output(jr.Net(g)(jnp.ones(3)), g(jnp.ones(3)))
    assert_same_output(jr.ranges(g)(jnp.ones(3))[0], g(jnp.ones(3)))
    with pytest.raises(ValueError, match="top-level"):  # as jax.jit(g) does
        jax.jit(jr.ranges(g))(jnp.ones(3))


def test_a_method_jitted_with_static_self_works():
    class Model:
        @functools.partial(jax.jit, static_argnums=0)
        def apply(self, x, scale):
            return x * scale

    net = jr.Net(Model().apply)
    assert net(jnp.ones(2), 3)[0] == 3
    assert jr.ranges(Model().apply)(jnp.ones(2), 3)[0][0] == 3


def test_python_scalars_of_other_types_are_other_programs():
    net = jr.Net(jax.jit(lambda x: jnp.asarray(x) + 1))
    for x in (1, 2.0, True, 1j, np.float32(2), np.int8(3)):
        assert_same_output(net(x), jax.jit(lambda x: jnp.asarray(x) + 1)(x))


def test_an_unhashable_static_argument_goes_by_its_contents():
    traced = []

    def f(x, settings):
        traced.append(settings.tolist())
        return x * len(settings)

    net = jr.Net(f)
    for names in (["a"], ["a", "b"], ["a"], ["c"]):
        assert net(1.0, np.array(names)) == len(names)
    assert traced == [["a"], ["a", "b"], ["c"]]


@pytest.mark.parametrize(
    "transform", [jax.jit, jax.vmap, lambda g: jax.grad(lambda x: g(x).sum()), jax.make_jaxpr]
)
def test_a_call_under_a_transformation_points_to_ranges(transform):
    net = jr.Net(f)
    with pytest.raises(TypeError, match=r"inside jit, grad, vmap .* jr.ranges\(f\)"):
        transform(net)(jnp.ones(3))
    with pytest.raises(TypeError, match="inside jit"):
        jax.jit(lambda: net(np.ones(3, np.float32)))()
    assert not len(net.get_info())


def test_effects_happen_once_a_call():
    seen = []
    net = jr.Net(lambda x: io_callback(lambda v: seen.append(v) or v, x, x * 2))
    net(jnp.float32(1))
    net(jnp.float32(2))
    jax.effects_barrier()
    assert [float(v) for v in seen] == [2, 4]


def test_x64_is_a_program_of_its_own_and_merges_exactly():
    traces = Traces(lambda x: x / 3)
    net = jr.Net(traces)
    net(jnp.float32(1))
    with jax.enable_x64(True):
        net(jnp.float64(1))
        net(jnp.float64(-1e-300))
    assert traces.count == 2
    found = net.get_info()["div"]
    assert found.min == -1e-300 / 3 and found.max == np.float32(1) / np.float32(3)


def test_a_function_without_operations_has_no_sites():
    net = jr.Net(lambda x: x)
    assert net(jnp.ones(2)).sum() == 2
    assert list(net.get_info()) == [] and list(net.get_info(total=True)) == []


# -- frameworks -------------------------------------------------------------------------------


def test_linen_apply_with_mutable_collections():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return nn.BatchNorm(use_running_average=not train)(nn.Dense(3)(x))

    model, x = Model(), jnp.ones((4, 2))
    variables = model.init(jax.random.key(0), x, True)
    net = jr.Net(model.apply)
    out, state = net(variables, x, train=True, mutable=["batch_stats"])
    expected, expected_state = model.apply(variables, x, train=True, mutable=["batch_stats"])
    assert_same_output((out, state), (expected, expected_state))
    assert_same_output(net(variables, x, False), model.apply(variables, x, False))
    assert any(name.startswith("Model/Dense_0") for name in net.get_info())


class Trained(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(2, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(self.linear(x)))


def train_step(model, optimizer, x):
    def loss(model):
        return jnp.mean(model(x) ** 2)

    value, gradient = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradient)
    return value


@pytest.mark.parametrize("jit", [lambda g: g, nnx.jit], ids=["plain", "nnx.jit"])
@pytest.mark.parametrize("wrap", [jr.Net, lambda g: lambda *a: jr.ranges(g)(*a)[0]])
def test_an_nnx_training_step_trains_as_it_does_alone(jit, wrap):
    x = jnp.arange(8.0).reshape(4, 2)
    states = []
    for step in (jit(train_step), wrap(jit(train_step))):
        model = Trained(nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, optax.sgd(1e-2), wrt=nnx.Param)
        losses = [float(step(model, optimizer, x)) for _ in range(3)]
        states.append((losses, nnx.state(model), nnx.state(optimizer)))
    (losses, *alone), (others, *measured) = states
    np.testing.assert_allclose(losses, others, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(measured), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_module_that_is_wrapped_is_an_argument_so_its_weights_may_change():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    nets = [jr.Net(model, inputs=True), jr.Net(model.__call__)]
    for scale in (1.0, 10.0):
        model.kernel.set_value(jnp.full((2, 2), scale))
        for net in nets:
            assert_same_output(net(jnp.ones(2)), model(jnp.ones(2)))
    assert [net.get_info()["dot_general"].max for net in nets] == [20, 20]
    assert "input/self/kernel/value" in nets[0].get_info()


class Tied(nnx.Module):
    def __init__(self, rngs):
        self.a = nnx.Linear(2, 2, use_bias=False, rngs=rngs)
        self.b = self.a

    def __call__(self, x):
        return self.b(self.a(x))


def tied_step(model, x):
    gradient = nnx.grad(lambda model: jnp.sum(model(x) ** 2))(model).a.kernel[...]
    model.a.kernel[...] = model.a.kernel[...] - 0.01 * gradient
    return gradient


@pytest.mark.parametrize("jit", [lambda g: g, nnx.jit], ids=["plain", "nnx.jit"])
def test_shared_variables_of_nnx_stay_shared(jit):
    models = [Tied(nnx.Rngs(0)) for _ in range(3)]
    x, step = jnp.ones(2), jit(tied_step)
    for run, model in zip(
        (step, jr.Net(step), lambda *a: jr.ranges(step)(*a)[0]), models, strict=True
    ):
        gradients = [run(model, x) for _ in range(2)]
        model.gradients = nnx.data(gradients)
    expected = models[0]
    for model in models[1:]:
        assert model.a is model.b
        np.testing.assert_allclose(model.a.kernel[...], expected.a.kernel[...], rtol=1e-5)
        np.testing.assert_allclose(model.gradients[1], expected.gradients[1], rtol=1e-5)


def test_one_module_given_twice_is_one():
    def g(a, b, x):
        a.kernel[...] = a.kernel[...] + 1
        return b(x)

    net, x = jr.Net(g), jnp.ones(2)
    one, other = (nnx.Linear(2, 2, rngs=nnx.Rngs(n)) for n in range(2))
    expected = one(x) + 2
    assert_same_output(net(one, one, x), expected)
    assert_same_output(net(one, other, x), other(x))


def test_an_attribute_of_a_module_that_changes_is_said():
    class Counting(nnx.Module):
        def __init__(self):
            self.calls = 0

        def __call__(self, x):
            self.calls += 1
            return x

    with pytest.warns(UserWarning, match="an attribute that is no array"):
        jr.Net(lambda m, x: m(x))(Counting(), jnp.ones(2))


def test_equinox_modules_as_functions_and_as_arguments():
    model = eqx.nn.MLP(2, 2, 4, 2, key=jax.random.key(0))
    x = jnp.ones(2)
    traces = Traces(lambda m, x: m(x))
    for net, args in [
        (jr.Net(model), (x,)),
        (jr.Net(eqx.filter_jit(model)), (x,)),
        (jr.Net(traces), (model, x)),
        (jr.Net(eqx.filter_jit(lambda m, x: m(x))), (model, x)),
    ]:
        for _ in range(2):
            np.testing.assert_allclose(net(*args), model(x), rtol=1e-5)
        assert any("dot_general" in name for name in net.get_info())
    assert traces.count == 1


def test_a_dict_that_the_function_writes_into_is_written():
    def g(cache, x):
        cache["last"] = x + 1
        return x

    cache = {"last": jnp.zeros(2)}
    jr.Net(g)(cache, jnp.ones(2))
    assert cache["last"][0] == 2


def test_what_cannot_be_written_back_is_said():
    def g(cache, x):
        cache["new"] = x + 1
        return x

    with pytest.warns(UserWarning, match=r"g is traced with copies .* \[0\]\[0\]\['new'\]"):
        jr.Net(g)({}, jnp.ones(2))


# -- window and total, observers, stopping ----------------------------------------------------


def test_window_and_total(tmp_path):
    net = jr.Net(f, dump_file=tmp_path / "r.json")
    net(jnp.float32(-1))
    net.dump_and_reset(tmp_path / "first.json")
    net(jnp.float32(0.5))
    window, total = net.get_info()["layer/add"], net.get_info(total=True)["layer/add"]
    assert window.min == window.max == 1
    assert total.min == -2 and total.max == window.max
    assert jr.load(tmp_path / "first.json")["layer/add"].max < 0


def test_the_observer_of_one_operation_stops_and_resumes():
    net = jr.Net(f)
    net(jnp.float32(1))
    one = net["layer/add"]
    one.stop()
    net(jnp.float32(5))
    assert one.get_info().max == 2
    assert net["layer/mul"].get_info().max == 20
    one.resume()
    net(jnp.float32(2))
    assert one.get_info(total=True).max == 4
    with pytest.raises(jr.UnknownSiteError, match="nearest are 'layer/add'"):
        net["layer/ad"]


def test_when_all_observers_are_stopped_calls_go_straight_to_the_function():
    traced = []
    net = jr.Net(lambda x: traced.append(isinstance(x, jax.core.Tracer)) or f(x))
    net(jnp.float32(1))
    for name in net.get_info():
        net[name].stop()
    net(jnp.float32(5))  # traced once more, to see that all its sites are stopped
    assert net(jnp.float32(5)) == 20
    assert traced == [True, True, False, False]
    assert net.get_info()["layer/add"].max == 2


def test_stopped_calls_go_straight_to_the_function():
    calls = []
    net = jr.Net(lambda x: calls.append(type(x)) or x + 1)
    net(jnp.float32(1))
    net.stop()
    net(jnp.float32(100))
    assert issubclass(calls[-1], jax.Array) and not issubclass(calls[-1], jax.core.Tracer)
    assert net.get_info()["add"].max == 2
    net.resume()
    net(jnp.float32(3))
    assert net.get_info()["add"].max == 4


def test_one_call_in_k_is_observed():
    traced = []
    net = jr.Net(lambda x: traced.append(isinstance(x, jax.core.Tracer)) or x + 1, every=3)
    for i in range(7):
        net(jnp.float32(i if i % 3 == 0 else 1000))
    assert net.get_info()["add"].max == 7
    assert traced == [True, False, False, False, False]


def test_stacked_loops_of_several_lengths_are_reduced():
    net = jr.Net(lambda x: jax.lax.scan(lambda c, y: (c + y, c), 0.0, x), loops="stack")
    net(jnp.arange(3.0))
    assert net.get_info()["scan/add"].max.shape == (3,)
    net(jnp.arange(5.0))
    assert net.get_info()["scan/add"].max == 10


def test_several_statistics_accumulate_each_at_the_sites_that_were_chosen_for_it():
    stats = {"add": (jr.MinMax(), jr.Health()), "*/mul": jr.Moments()}
    net = jr.Net(f, stats=stats, inputs=True)
    for x in ([1.0, -2.0, jnp.nan], [0.0, 3.0, jnp.inf]):
        net(jnp.array(x))
    info = net.get_info()
    assert list(info) == ["layer/add", "layer/mul"]  # nothing is taken at the input
    health = info.of("layer/add", jr.Health())
    assert (health.nan, health.pos_inf, health.negative, health.positive) == (1, 1, 1, 2)
    assert info["layer/add"] == jr.Range(np.float32(-4), np.float32(np.inf), np.True_)
    moments = info.of("layer/mul", jr.Moments())
    assert (moments.count, moments.mean, moments.nonfinite) == (4, 2, 2)
    with pytest.raises(ValueError, match=r"Health\(\) was not taken at 'layer/mul'"):
        info.of("layer/mul", jr.Health())


def test_a_selection_is_of_operations_and_inputs_alike():
    nets = [jr.Net(f, select=select, inputs=True) for select in ("add", ["add", "input/*"])]
    for net in nets:
        net(jnp.ones(2))
    assert [list(net.get_info()) for net in nets] == [["layer/add"], ["input/x", "layer/add"]]
    with pytest.raises(ValueError, match="selects none"):
        jr.Net(f, select="conv")(jnp.ones(2))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"every": 0}, "every counts calls: an integer of 1 or more; got 0"),
        ({"dump_every": 2.5, "dump_file": "x"}, "dump_every counts calls"),
        ({"dump_every": 3}, "needs a dump_file"),
        ({"delimiter": "a"}, "delimiter"),
        ({"loops": "each"}, "loops must be one of"),
    ],
)
def test_options_that_make_no_sense(options, text):
    with pytest.raises(ValueError, match=text):
        jr.Net(f, **options)


def test_what_is_no_function():
    with pytest.raises(TypeError, match=r"jr.Net wraps a function: net = jr.Net\(f\); got 3"):
        jr.Net(3)


# -- dumps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["txt", "json", "csv"])
def test_windows_are_dumped_and_the_total_at_the_end(tmp_path, ending):
    file = tmp_path / f"ranges.{ending}"
    with jr.Net(f, dump_file=file, dump_every=2) as net:
        for x in (1.0, -2.0, 3.0, 4.0, 5.0):
            net(jnp.float32(x))
    assert {path.name for path in tmp_path.iterdir()} == {
        f"ranges_1.{ending}",
        f"ranges_2.{ending}",
        file.name,
    }
    tanh = [
        jr.load(tmp_path / name)["layer/add"]
        for name in (f"ranges_1.{ending}", f"ranges_2.{ending}", file.name)
    ]
    expected = [(-2.0, 1.0), (3.0, 4.0), (-2.0, 5.0)]
    for found, (lo, hi) in zip(tanh, expected, strict=True):
        assert (found.min, found.max) == (2 * lo, 2 * hi)
    merged = jr.load(*(tmp_path / f"ranges_{k}.{ending}" for k in (1, 2)))
    assert merged["layer/add"].max == tanh[1].max
    assert net.get_info(total=True)["layer/add"] == tanh[2]


def test_the_lines_are_those_of_the_ancestor(tmp_path):
    net = jr.Net(f, dump_file=tmp_path / "r.txt", delimiter=",")
    net(jnp.float32(0.5))
    net.dump()
    fields = [line.split(",") for line in (tmp_path / "r.txt").read_text().splitlines()]
    assert [line[:4] for line in fields] == [
        ["0", "add", "0", "layer/add"],
        ["1", "mul", "0", "layer/mul"],
    ]
    assert np.float32(fields[0][4]) == 1


def test_a_json_dump_says_what_it_is(tmp_path):
    net = jr.Net(f, dump_file=tmp_path / "r.json", dump_every=1)
    before = net.tm()
    net(jnp.float32(0.5))
    net.close()
    window = json.loads((tmp_path / "r_1.json").read_text())["about"]
    total = json.loads((tmp_path / "r.json").read_text())["about"]
    assert window["dump"] == 1 and total["total"] is True and window["function"] == "f"
    assert before <= window["time"] <= total["time"] <= net.tm()


def test_a_missing_folder_is_reported_once_and_nothing_is_lost(tmp_path):
    file = tmp_path / "not yet" / "r.json"
    with pytest.warns(RuntimeWarning, match="cannot write .*not yet.*nothing is lost"):
        net = jr.Net(f, dump_file=file, dump_every=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(jnp.float32(-1))
        net(jnp.float32(0.5))
        assert net.get_info(total=True)["layer/add"].min == -2
        with pytest.raises(OSError, match="not yet"):
            net.dump_and_reset()
        net._dumps._flush()
        assert net.get_info()["layer/add"].min == -2  # the window goes on
        file.parent.mkdir()
        net(jnp.float32(0.25))
        net.close()
    # The third dump holds what the first two could not.
    found = jr.load(file.parent / "r_3.json")["layer/add"]
    assert (found.min, found.max) == (-2, 1)
    assert jr.load(file)["layer/add"] == found


def test_a_dump_without_a_file_says_what_to_do():
    with pytest.raises(ValueError, match="give one here, or"):
        jr.Net(f).dump()
    with pytest.raises(ValueError, match=r"add jr.MinMax\(\)"):
        jr.Net(f, dump_file="r.json", stats=())


def test_closing_writes_once_and_the_net_is_then_a_function(tmp_path):
    net = jr.Net(f, dump_file=tmp_path / "r.json")
    net(jnp.float32(1))
    net.close()
    written = (tmp_path / "r.json").stat().st_mtime_ns
    net.close()
    assert net(jnp.float32(3)) == f(jnp.float32(3))
    assert (tmp_path / "r.json").stat().st_mtime_ns == written
    assert net.get_info(total=True)["layer/add"].max == 2
    with pytest.raises(ValueError, match="closed"):
        net.resume()


def test_an_exception_in_the_users_loop_leaves_a_dump(tmp_path):
    def loop():
        with jr.Net(f, dump_file=tmp_path / "r.json") as net:
            net(jnp.float32(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    assert "layer/add" in jr.load(tmp_path / "r.json")


def test_a_net_that_is_forgotten_writes_its_dump_and_is_freed(tmp_path):
    net = jr.Net(f, dump_file=tmp_path / "r.json")
    net(jnp.float32(1))
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None
    assert "layer/add" in jr.load(tmp_path / "r.json")


# -- threads, failures ------------------------------------------------------------------------


@dataclass(frozen=True)
class Count(jr.Statistic):
    """How many values there were: one that is lost is missed."""

    def identity(self, dtype):
        return np.zeros((), np.int32)

    def measure(self, value):
        return jnp.asarray(value.size, jnp.int32)

    def merge(self, a, b):
        return a + b


def values_in(ranges: jr.Ranges) -> int:
    """How many values a site has seen; for scalars that is the number of calls."""
    return ranges.of("layer/add", jr.Health()).total


def test_eight_threads_lose_no_call(tmp_path):
    stats = (jr.MinMax(), jr.Health())
    net = jr.Net(f, stats=stats, dump_file=tmp_path / "r.json", dump_every=37)
    counted = []

    def work(seed: int) -> None:
        for i in range(100):
            net(jnp.float32(seed * 100 + i))
            if i % 10 == 0:
                counted.append((i + 1, values_in(net.get_info(total=True))))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted) == 80 and all(own <= found <= 800 for own, found in counted)
    total = net.get_info(total=True)
    assert values_in(total) == 800 and total["layer/mul"].max == 4 * 799
    net.close()
    windows = [jr.load(file) for file in tmp_path.glob("r_*.json")]
    assert sum(map(values_in, [*windows, net.get_info()])) == 800


def test_a_call_that_fails_on_the_device_does_not_take_the_ranges_along(monkeypatch):
    monkeypatch.setattr(accumulate, "COPY_SECONDS", 1000)

    def check(v):
        if v > 100:
            raise ValueError("too large")
        return v

    net = jr.Net(lambda x: io_callback(check, x, x * 2), stats=(jr.MinMax(), Count()))
    pool_of(net, jnp.float32(0))._careful = False  # as if it failed for want of memory
    for x in (1.0, 2.0, 3.0, 4.0, 5.0):
        net(jnp.float32(x)).block_until_ready()

    def failing():
        try:
            net(jnp.float32(99)).block_until_ready()
        finally:
            net.get_info()

    warns = pytest.warns(RuntimeWarning, match="up to 1 calls before it .* of the 4 calls before")
    with warns, pytest.raises(jax.errors.JaxRuntimeError):
        failing()
    assert net.get_info()["mul"].max == 8
    assert net(jnp.float32(6)) == 12
    info = net.get_info(total=True)
    assert info["mul"].max == 12 and info.state("mul", Count()) == 5


def pool_of(net, *args):
    """The pool of the only program of a net, which is called with `args` and emptied for that."""
    net(*args)
    (program,) = net._recorder._programs
    program.pool._slots.clear()
    return program.pool


def test_an_interrupt_at_any_moment_loses_next_to_nothing():
    """None if it comes in Python; in JAX's own code, after donation, those since the last copy."""
    net, x = jr.Net(f, stats=(jr.MinMax(), Count())), jnp.float32(1)
    net(x)
    calls, interrupts = 1, 0

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    with warnings.catch_warnings(record=True) as lost:
        warnings.simplefilter("always")
        for turn in range(40):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.0001 * turn)
                for _ in range(5000):  # an interrupt in a destructor is ignored by Python
                    net(x)
                    calls += 1
            except KeyboardInterrupt:
                interrupts += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    assert interrupts > 20
    # A call may have been counted here and interrupted before it returned.
    found = net.get_info().state("layer/add", Count())
    assert calls - accumulate.COPY_CALLS * len(lost) <= found <= calls + interrupts


class Failing:
    """An array that is still being computed, and will not be there."""

    def __init__(self):
        self.waited_for = False

    def is_deleted(self):
        return False

    def is_ready(self):
        return self.waited_for

    def block_until_ready(self):
        self.waited_for = True
        raise RuntimeError("out of memory")


def test_a_copy_that_turns_out_to_have_failed_too_is_not_gone_on_from(monkeypatch):
    monkeypatch.setattr(accumulate, "_copied", list)
    accumulator = accumulate.Accumulator(lambda: [jnp.zeros(())], copy_calls=1)
    accumulator.run(lambda arrays, x: ([x], [arrays[0] + x]), [jnp.float32(2)])
    accumulator._copies.append((2, [Failing()]))
    accumulator._arrays = [Failing()]
    with pytest.warns(RuntimeWarning, match="a call failed"):
        assert accumulator.read() == [2]


def test_who_reads_a_net_that_calls_back_waits_for_another_reader(monkeypatch):
    net = jr.Net(lambda x: io_callback(lambda v: v, x, x + x))
    pool = pool_of(net, jnp.float32(0))
    net(jnp.float32(1)).block_until_ready()
    (slot,) = pool._slots
    monkeypatch.setattr(slot.accumulator, "_copies", [])  # as if none could be made yet
    reads = threading.Event()

    def read():
        with slot.locks[0]:
            reads.set()
            time.sleep(0.1)

    other = threading.Thread(target=read)
    other.start()
    reads.wait()
    assert net.get_info()["add"].max == 2
    other.join()


def test_a_callback_of_the_function_may_read_its_net():
    seen = []
    net = jr.Net(lambda x: (jax.debug.callback(lambda v: seen.append(net.get_info()), x), x + x)[1])
    for x in (1.0, 2.0):
        net(jnp.float32(x))
    jax.effects_barrier()
    assert [len(info) for info in seen] == [0, 1]
    assert seen[1]["add"].max == 2 and net.get_info()["add"].max == 4


def test_a_pure_callback_inside_a_loop_may_read_its_net_too():
    seen = []

    def look(x):
        seen.append(net.get_info())
        return np.asarray(x)

    def body(total, x):
        return total + jax.pure_callback(look, x, x), None

    net = jr.Net(lambda x: jax.lax.scan(body, 0.0, x)[0])
    for scale in (1, 10):
        assert net(jnp.float32([1, 2]) * scale) == 3 * scale
    assert [info["scan/add"].max if len(info) else None for info in seen] == [None, None, 3, 3]
    assert net.get_info()["scan/add"].max == 30


def test_a_reset_outside_x64_leaves_float64_exact(tmp_path):
    net = jr.Net(lambda x: x + x)
    for value in (5.0, 7.0):
        with jax.enable_x64(True):
            net(jnp.asarray([value]))
        found = net.get_info()["add"]
        assert found.min == found.max == 2 * value
        net.dump_and_reset(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("first", "second", "lo", "hi"),
    [
        (np.uint32(2000000000), np.int32(-5), -10, 4000000000),
        (np.int32(100000), np.float16(1), 2, 200000),
        (np.int32(1001), jnp.bfloat16(1), 2, 2002),
        (np.int8(-50), jnp.float8_e4m3fn(1), -100, 2),
        (jnp.float8_e4m3fn(1), np.float16(3), 2, 6),
        (jnp.float8_e4m3fn(1), jnp.float8_e5m2(3), 2, 6),
        (jnp.int4(-3), jnp.uint4(4), -6, 8),
    ],
)
def test_a_site_of_two_dtypes_holds_the_numbers_of_both(first, second, lo, hi):
    net = jr.Net(lambda x: jax.lax.add(x, x))
    net(np.asarray(first)[None])
    net(np.asarray(second)[None])
    found = net.get_info()["add"]
    assert (int(found.min), int(found.max)) == (lo, hi)


def test_stacked_loops_whose_lengths_are_swapped_are_reduced():
    def g(x, y):
        a = jax.lax.scan(lambda c, v: (c + v, v * v), 0.0, x)[1]
        return a, jax.lax.scan(lambda c, v: (c + v, v * v), 0.0, y)[1]

    net = jr.Net(g, loops="stack")
    net(jnp.ones(3), 2 * jnp.ones(5))
    net(3 * jnp.ones(5), jnp.ones(3))
    assert net.get_info()["scan/mul"].max == 9


def test_a_run_without_calls_leaves_an_older_file_alone(tmp_path):
    (tmp_path / "r.json").write_text("old")
    jr.Net(f, dump_file=tmp_path / "r.json").close()
    assert (tmp_path / "r.json").read_text() == "old"


def test_windows_without_an_observed_call_write_no_file(tmp_path):
    with jr.Net(f, dump_file=tmp_path / "r.txt", every=4, dump_every=2) as net:
        for _ in range(8):
            net(jnp.float32(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.txt", "r_1.txt", "r_3.txt"]


def test_a_dump_file_stays_where_it_was_meant_to_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = jr.Net(f, dump_file="r.json")
    net(jnp.float32(1))
    monkeypatch.chdir("/")
    net.close()
    assert (tmp_path / "r.json").exists()
    with pytest.raises(ValueError, match="is a folder"):
        jr.Net(f, dump_file=tmp_path)


def test_a_selection_that_is_in_some_kinds_of_calls_only():
    net = jr.Net(lambda x, train: x @ x if train else x + 1, select="dot_general")
    net(jnp.ones(2), True)
    assert net(jnp.ones(2), False)[0] == 2
    assert list(net.get_info()) == ["dot_general"]


@pytest.mark.parametrize("guard", ["disallow", "disallow_explicit"])
def test_a_transfer_guard_is_about_the_users_arrays(tmp_path, guard):
    x = jax.device_put(np.float32(1))
    with jax.transfer_guard(guard):
        net = jr.Net(lambda x: x + x, dump_file=tmp_path / "r.json")
        net(x)
        net.dump_and_reset()
        net(x)
        assert net.get_info(total=True)["add"].max == 2
        net.close()


def test_reading_and_closing_are_no_part_of_what_is_being_traced(tmp_path):
    """The garbage collector may close a net in the middle of a trace."""

    def total(x):
        return jax.lax.scan(lambda c, y: (c + y, None), 0.0, x)[0]

    net = jr.Net(total, loops="stack", dump_file=tmp_path / "r.json")
    for length in (2, 3):
        net(jnp.ones(length))

    @jax.jit
    def traced(x):
        net.dump_and_reset(tmp_path / "window.json")
        net.close()
        return x

    traced(1.0)
    assert jr.load(tmp_path / "r.json")["scan/add"].max == 3
    assert jr.load(tmp_path / "window.json")["scan/add"].max == 3


class Held:
    """What holds a net of a method of its own."""

    def __init__(self):
        self.net = jr.Net(self.step)

    def step(self, x):
        return x + x


def test_what_holds_a_net_of_its_own_method_is_freed():
    held = Held()
    held.net(jnp.float32(1))
    gone = weakref.ref(held)
    del held
    jax.clear_caches()
    gc.collect()
    assert gone() is None


def test_an_error_of_the_function_comes_alone():
    def fails(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as failed:
        jr.Net(fails)(jnp.ones(2))
    assert failed.value.__context__ is None  # no "During handling of the above exception"


class StopsWhenHashed:
    """A static argument that stops an observer, as another thread might, after the call began."""

    def __init__(self):
        self.observer = None

    def __hash__(self):
        if self.observer is not None:
            self.observer.stop()
            self.observer = None
        return 1


def test_what_is_stopped_while_a_call_compiles_may_be_resumed():
    net, meanwhile = jr.Net(lambda x, other: x + x), StopsWhenHashed()
    net(jnp.float32(1), None)
    observer = meanwhile.observer = net["add"]
    net(jnp.float32(2), meanwhile)
    observer.resume()
    net(jnp.float32(3), meanwhile)
    assert observer.get_info().max == 6


def test_a_net_decorates_a_method():
    class Model:
        @jr.Net
        def apply(self, x):
            return x + x

    assert Model().apply(jnp.float32(2)) == 4
    assert Model.apply.get_info()["add"].max == 4


class Unregistered:
    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize("give", [Unregistered, lambda x: (y for y in [x])], ids=["class", "gen"])
def test_outputs_that_outlive_tracing_are_refused(give):
    with pytest.raises(TypeError, match="is no pytree of arrays"):
        jr.Net(lambda x: give(x + 1))(jnp.ones(2))


def test_a_numpy_output_is_the_callers_own():
    net = jr.Net(lambda x: (x, np.zeros(3)))
    net(jnp.ones(2))[1][:] = 7
    assert not net(jnp.ones(2))[1].any()


def test_many_programs_are_worth_a_warning(monkeypatch):
    monkeypatch.setattr(caller, "MANY_PROGRAMS", 3)
    net = jr.Net(lambda x, step: x + step)
    for step in range(2):
        net(jnp.ones(2), step)
    with pytest.warns(RuntimeWarning, match="compiled 3 programs.*jnp.asarray") as warned:
        net(jnp.ones(2), 2)
    assert [w.filename for w in warned] == [__file__]  # it points to the call


def test_calibrating_a_stopped_net_is_a_mistake():
    net = jr.Net(f)
    net.stop()
    with pytest.raises(ValueError, match="observes nothing: call resume"):
        net.calibrate([jnp.ones(2)])


def test_gradients_of_a_training_step_over_many_calls():
    @functools.partial(jax.jit, donate_argnums=0)
    def step(w, x):
        loss, gradient = jax.value_and_grad(lambda w: jnp.mean((x @ w) ** 2))(w)
        return w - 0.1 * gradient, loss

    net = jr.Net(step)
    w, alone = jnp.ones((3, 2)), jnp.ones((3, 2))
    for i in range(10):
        x = jax.random.normal(jax.random.key(i), (4, 3))
        (w, loss), (alone, expected) = net(w, x), step(alone, x)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert any(site.backward for site in net.get_info().sites)


# -- showing ----------------------------------------------------------------------------------


def test_it_prints_as_what_it_is(capsys):
    net = jr.Net(f)
    assert repr(net) == "jr.Net(f, observing)" and "0 sites" in str(net)
    net(jnp.float32(1))
    assert "layer/add" in str(net)
    net.report(sort="amax", limit=1)
    printed = capsys.readouterr().out
    assert "layer/mul" in printed and "\x1b" not in printed
    net.stop()
    assert repr(net) == "jr.Net(f, stopped)"
    net.close()
    assert repr(net) == "jr.Net(f, closed)"


def test_live_draws_once_where_there_is_no_terminal(capsys):
    net = jr.Net(f)
    with net.live(sort="amax"):
        net(jnp.float32(1))
        net(jnp.float32(2))
    printed = capsys.readouterr().out
    shown = [line.split()[0] for line in printed.splitlines() if line.startswith("layer/")]
    assert shown == ["layer/mul", "layer/add"]  # each once, at the end
    assert "largest 8 at layer/mul" in printed and "\x1b" not in printed


def test_live_redraws_what_calls_have_seen_by_then_on_a_terminal():
    file = io.StringIO()
    console = Console(file=file, width=80, height=20, force_terminal=True, _environ={})
    net = jr.Net(f)
    with net.live(console=console, per_second=1e-3) as display:  # by hand, not by the clock
        for x in (1, 10):
            net(jnp.float32(x))
            display.refresh()
    found = re.findall(r"largest (\d+) at layer/mul", file.getvalue())
    assert found == ["4", "40", "40"]  # and once more at the end


def test_calibrate_takes_any_iterable_and_shows_nothing_in_a_pipe(capsys):
    net = jr.Net(lambda x, y=1.0: x * y)
    info = net.calibrate((jnp.float32(i), jnp.float32(2)) for i in range(5))
    assert info["mul"].max == 8
    assert net.calibrate([jnp.float32(100)])["mul"].max == 100
    assert capsys.readouterr() == ("", "")


def test_calibrate_survives_ctrl_c():
    def batches():
        yield jnp.float32(3)
        raise KeyboardInterrupt

    assert jr.Net(f).calibrate(batches())["layer/add"].max == 6


def test_a_tracer_that_leaked_out_of_its_trace_is_refused_as_jit_refuses_it():
    leaked = []
    jax.jit(lambda x: leaked.append(x) or x)(1.0)
    with pytest.raises(jax.errors.UnexpectedTracerError, match="unexpected tracer"):
        jr.Net(lambda x: x)(leaked[0])
