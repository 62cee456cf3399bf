"""Arguments of all kinds, used or not: what a function takes plainly it takes when observed.

And where it does not take them, the error is the function's own, or names the argument.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_ranges as jr
from tests.tools import TOOLS, TRACED

X = np.full((2, 2), 0.5, np.float32)


Point = collections.namedtuple("Point", "x y")


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Settings:
    """No pytree, and not hashable."""

    rate: Any = 1.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    weight: Any
    name: Any = dataclasses.field(default="layer", metadata={"static": True})


@jax.tree_util.register_pytree_node_class
class Pair:
    """A pytree without keys."""

    def __init__(self, a: Any, b: Any):
        self.a, self.b = a, b

    def tree_flatten(self) -> Any:
        return (self.a, self.b), None

    @classmethod
    def tree_unflatten(cls, aux: Any, children: Any) -> Any:
        return cls(*children)


class Odd:
    """Cannot be hashed, and cannot be pickled."""

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


def _read_only() -> np.ndarray:
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    return array


ONES = np.ones(3, np.float32)
KINDS: dict[str, Any] = {
    "structured": lambda: np.zeros(3, [("a", "f4"), ("b", "i4")]),
    "record": lambda: np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")])[0],
    "void": lambda: np.zeros(3, "V4"),
    "longdouble": lambda: np.ones(3, np.longdouble),
    "complex longdouble": lambda: {"deep": [np.ones(3, np.clongdouble)]},
    "longdouble number": lambda: np.longdouble(1),
    "objects": lambda: np.array([1, "a", None], object),
    "dates": lambda: np.array(["2020-01-01"], "datetime64[D]"),
    "time differences": lambda: np.array([1], "timedelta64[s]"),
    "strings": lambda: np.array(["a", "b"]),
    "variable strings": lambda: np.array(["a", "b"], np.dtypes.StringDType()),  # pyright: ignore
    "float0": lambda: np.zeros(3, jax.dtypes.float0),
    "masked": lambda: np.ma.array([1.0, 2.0], mask=[0, 1]),
    "big-endian": lambda: ONES.astype(">f4"),
    "big-endian number": lambda: np.array(2, ">i4")[()],
    "read-only": _read_only,
    "strided": lambda: np.arange(6, dtype=np.float32)[::-2],
    "empty": lambda: np.zeros((0, 3), np.float32),
    "0-d": lambda: np.array(1.0, np.float32),
    "float64": lambda: np.ones(3),
    "numbers of numpy": lambda: [np.float32(1), np.int64(2), np.bool_(True), np.complex64(1j)],
    "narrow": lambda: [np.ones(3, jnp.bfloat16), np.ones(3, jnp.int4)],
    "python numbers": lambda: (1, True, 2.0, 1j, None),
    "large int": lambda: 10**30,
    "string": lambda: "text",
    "bytearray": lambda: bytearray(b"x"),
    "memoryview": lambda: memoryview(ONES),
    "set": lambda: {1, 2},
    "objects of Python": lambda: [datetime.date(2020, 1, 1), decimal.Decimal(1), int, ..., print],
    "shape": lambda: jax.ShapeDtypeStruct((3,), np.float32),
    "nested": lambda: {"b": ONES, "a": [(1.0, {"c": ONES})]},
    "named tuple": lambda: Point(1.0, ONES),
    "enum": lambda: Color.RED,
    "enum keys": lambda: {Color.RED: ONES, Color.BLUE: {Color.BLUE: 1.0, Color.RED: "a"}},
    "mixed keys": lambda: {"b": ONES, 1: [2.0]},
    "default": lambda: collections.defaultdict(list, {"b": ONES, 1: [2.0]}),
    "slashes": lambda: {"a/b": ONES, "a": {"b": ONES}},
    "dataclass": Settings,
    "dataclass of arrays": lambda: Settings(jnp.ones(3)),
    "tree": lambda: Layer(ONES),
    "tree of strings": lambda: Layer("text"),
    "tree with a list": lambda: Layer(ONES, ["not", "hashable"]),
    "no keys": lambda: Pair(ONES, "a"),
    "unhashable": Odd,
    "key": lambda: jax.random.key(0),
}


def unused(x: Any, given: Any) -> Any:
    return jnp.tanh(x)


def used(x: Any, given: Any) -> Any:
    return jnp.tanh(x), jnp.asarray(jax.tree.leaves(given)[0])[..., None] * 2


def passed(x: Any, given: Any) -> Any:
    return jnp.tanh(x), given


def by_name(x: Any, *, given: Any = None) -> Any:
    return jnp.tanh(x)


FUNS = {"unused": unused, "used": used, "passed": passed, "jitted": jax.jit(used)}


def assert_alike(out: Any, plain: Any) -> None:
    """The same; arrays of numpy that were traced come back as JAX's."""
    if isinstance(plain, dict) and not isinstance(plain, collections.OrderedDict):
        assert type(out) is type(plain) and set(out) == set(plain)
        for key, value in plain.items():
            assert_alike(out[key], value)
        return
    leaves, tree = jax.tree.flatten(plain)
    if jax.tree_util.all_leaves([plain]):
        assert isinstance(out, (jax.Array, type(plain)))
        if isinstance(plain, (jax.Array, np.ndarray)) and isinstance(out, jax.Array):
            assert out.shape == plain.shape
            if not jnp.issubdtype(out.dtype, jax.dtypes.prng_key):
                np.testing.assert_array_equal(np.asarray(out), np.asarray(plain, out.dtype))
        return
    outs, of_out = jax.tree.flatten(out)
    assert of_out == tree
    for each, leaf in zip(outs, leaves, strict=True):
        assert_alike(each, leaf)


def check(fun: Any, tool: str, make: Any) -> None:
    try:
        plain = fun(X, make())
    except Exception:
        if tool not in ("bounds", "plan"):
            with pytest.raises((TypeError, ValueError, OverflowError)) as caught:
                TOOLS[tool](fun, X, make())(X, make())
            assert "traced[" not in str(caught.value) and "Call.trace" not in str(caught.value)
        return
    for item, value in zip(TOOLS[tool](fun, X, make())(X, make()), plain, strict=True):
        assert_alike(item, value)


DIFFERENT = {
    # jax.jit reads numbers in another byte order as if they were in this machine's.
    ("big-endian", "jitted"),
    ("big-endian number", "jitted"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fun", FUNS)
def test_what_runs_plainly_is_measured(kind, fun):
    if (kind, fun) not in DIFFERENT:
        check(FUNS[fun], "ranges", KINDS[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_what_runs_plainly_is_guarded(kind):
    """With one compiled program for calls that are alike."""
    check(passed, "guard", KINDS[kind])


FEW = ("structured", "longdouble", "masked", "strings", "enum keys", "dataclass", "big-endian")


@pytest.mark.parametrize(
    "kind", [k if k in FEW else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]
)
@pytest.mark.parametrize("tool", sorted(set(TOOLS) - {"ranges", "guard"}))
def test_every_tool_takes_them(kind, tool):
    if (tool, kind) not in EXPLAINED:
        check(unused, tool, KINDS[kind])
        check(passed, tool, KINDS[kind])


EXPLAINED = {
    # Shapes may stand for arrays there.
    ("bounds", "shape"),
    ("quantize", "shape"),
}


@pytest.mark.parametrize("kind", ["big-endian", "big-endian number"])
@pytest.mark.parametrize("tool", ["ranges", "guard", "Net"])
def test_other_byte_orders_are_read_aright(kind, tool):
    given = KINDS[kind]()
    _, doubled = TOOLS[tool](FUNS["jitted"], X, given)(X, given)
    np.testing.assert_array_equal(doubled.squeeze(), given * 2)


def test_keyword_arguments_are_of_all_kinds_too():
    for kind in FEW:
        _, ranges = jr.ranges(by_name)(X, given=KINDS[kind]())
        assert list(ranges) == ["tanh"]


def test_an_error_names_the_argument():
    with pytest.raises(TypeError, match=r"argument args\[1\]\['a'\] is the abstract"):
        jr.ranges(lambda x, given: x + given["a"])(X, {"a": jax.ShapeDtypeStruct((), np.float32)})
    with pytest.raises(TypeError, match="path given"):
        jr.ranges(jax.jit(used))(X, np.ones(3, np.longdouble))


def test_inputs_of_one_path_have_names_of_their_own():
    _, ranges = jr.ranges(unused, inputs=True)(X, KINDS["slashes"]())
    assert list(ranges) == ["input/x", "input/given/a/b", "input/given/a/b.1", "tanh"]


def test_calls_with_equal_contents_share_a_program():
    traced = []

    def f(x: Any, given: Any) -> Any:
        traced.append(given)
        return x

    net = jr.Net(f)
    for given in (Settings(), Settings(), Settings(2.0), Layer(1.0, ["a"]), Layer(2.0, ["a"])):
        net(X, given)
    assert len(traced) == 3
    odd = Odd()
    for given in (odd, odd, Odd()):  # nobody knows what is in it
        net(X, given)
    assert len(traced) == 5


def test_a_dictionary_is_written_into_whatever_its_keys_are():
    def count(x: Any, state: Any) -> Any:
        state[Color.RED] = state[Color.RED] + x.sum()
        return x * 2

    state = {Color.RED: jnp.zeros(()), Color.BLUE: 0.0}
    for _ in range(2):
        jr.ranges(count)(X, state)
    assert state[Color.RED] == 4


@pytest.mark.parametrize("number", [2.0, 1j])
@pytest.mark.parametrize("name", TRACED)
def test_python_numbers_are_arguments_inside_a_transformation_too(name, number):
    def f(x: Any, scale: Any) -> Any:
        return jnp.log(x) * scale + scale

    tool = TRACED[name](f, X, number)
    for transform in (jax.jit, jax.vmap):
        out, expected = transform(lambda x: tool(x, number))(X), f(X, number)
        np.testing.assert_allclose(out, expected, rtol=1e-6)
        assert out.dtype == expected.dtype
