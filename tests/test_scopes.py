"""jr.scopes: the modules of nnx and equinox by their attribute paths."""

from __future__ import annotations

import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jax_ranges as jr

X = jnp.ones((3, 4))


class Block(nnx.Module):
    def __init__(self, rngs):
        self.attn = nnx.MultiHeadAttention(2, 4, rngs=rngs, decode=False)
        self.mlp = nnx.Sequential(
            nnx.Linear(4, 4, rngs=rngs), nnx.relu, nnx.Linear(4, 4, rngs=rngs)
        )

    def __call__(self, x):
        return self.mlp(self.attn(x))


class Model(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([Block(rngs) for _ in range(2)])
        self.heads = nnx.Dict({"a": nnx.Linear(4, 2, rngs=rngs)})
        self.first = self.blocks[0]  # the same module elsewhere

    def encode(self, x):
        for block in self.blocks:
            x = block(x)
        return self.again(x)

    def again(self, x):
        return x * 2

    def __call__(self, x):
        return self.heads["a"](self.encode(x))


class Tree(eqx.Module):
    mlp: eqx.nn.MLP
    parts: dict[str, list[eqx.nn.Linear]]

    def __init__(self, key):
        self.mlp = eqx.nn.MLP(4, 4, 8, 1, key=key)
        self.parts = {"out": [eqx.nn.Linear(4, 4, key=key) for _ in range(2)]}

    def __call__(self, x):
        x = jax.vmap(self.mlp)(x)
        for part in self.parts["out"]:
            x = jax.vmap(part)(x)
        return x


MODEL = Model(nnx.Rngs(0))
TREE = Tree(jax.random.key(0))


def products(fun, *args, **options):
    """The scopes of the matrix products, without what JAX and equinox put into them."""
    names = jr.ranges(jr.scopes(fun), select="dot_general", **options)(*args)[1]
    return [name.rpartition("/")[0] for name in names]


def test_nnx_modules_have_their_attribute_path():
    found = products(MODEL, X[None])
    for i in range(2):
        for part in ("attn/query", "attn/key", "attn/value", "mlp/layers/0", "mlp/layers/2"):
            assert f"blocks/{i}/{part}" in found
    assert found[-1] == "heads/a"
    assert not any("first" in name for name in found)


def test_equinox_modules_have_theirs():
    linear = "eqx.nn.Linear"  # what equinox itself says
    assert products(TREE, X) == [
        *(f"vmap(mlp)/eqx.nn.MLP/layers/{i}/{linear}" for i in range(2)),
        *(f"vmap(parts/out/{i})/{linear}" for i in range(2)),
    ]


def test_modules_may_be_arguments_or_captured():
    expected = products(MODEL, X[None])
    assert products(lambda model, x: model(x), MODEL, X[None]) == expected
    assert products(lambda x: MODEL(x), X[None]) == expected


def test_a_module_made_anew_inside_is_found_there():
    expected = products(MODEL, X[None])
    inside = products(nnx.jit(lambda model, x: model(x)), MODEL, X[None])
    assert [name.partition("/")[2] for name in inside] == expected
    assert inside[0].startswith("jit(")


def test_a_module_made_anew_within_another_is_called_by_its_class():
    class Stack(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.vmap(lambda rngs: nnx.Linear(4, 4, rngs=rngs))(rngs.split(3))

        def __call__(self, x):
            return nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(
                x, self.layers
            )

    (name,) = products(lambda model, x: model(x), Stack(nnx.Rngs(0)), X)
    assert name == "scan/Linear"


def test_gradients_keep_the_paths():
    names = jr.ranges(jr.scopes(nnx.grad(lambda model, x: jnp.sum(model(x)))))(MODEL, X[None])[1]
    backward = [s.name for s in names.sites if s.backward and s.primitive == "dot_general"]
    assert "transpose(jvp(heads/a))/dot_general" in backward
    assert any(name.startswith("transpose(jvp(blocks/1))/mlp/layers/0") for name in backward)


def test_outputs_and_methods_are_those_without():
    np.testing.assert_array_equal(jr.scopes(MODEL)(X[None]), MODEL(X[None]))
    np.testing.assert_array_equal(jr.scopes(TREE)(X), TREE(X))
    before = [vars(cls)["__call__"] for cls in (Model, Block, nnx.Linear, Tree, eqx.nn.Linear)]
    seen = []

    def f(x):
        seen.append(vars(nnx.Linear)["__call__"] is before[2])
        return MODEL(x)

    jr.scopes(f)(X[None])
    assert seen == [False]
    after = [vars(cls)["__call__"] for cls in (Model, Block, nnx.Linear, Tree, eqx.nn.Linear)]
    assert all(a is b for a, b in zip(after, before, strict=True))


def test_what_is_raised_inside_leaves_no_trace():
    call = vars(nnx.Linear)["__call__"]
    with pytest.raises(ValueError, match="Incompatible input dimension"):
        jr.scopes(MODEL)(jnp.ones((1, 2, 3)))
    assert vars(nnx.Linear)["__call__"] is call


def test_threads_do_not_see_each_others_paths():
    found, start = {}, threading.Barrier(4)

    def run(k):
        start.wait()
        fun = jr.scopes(MODEL) if k % 2 else MODEL
        found[k] = list(jr.ranges(lambda x: fun(x), select="dot_general")(X[None])[1])

    threads = [threading.Thread(target=run, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[1] == found[3]
    assert found[0] == found[2]
    assert "heads/a/dot_general" in found[1]
    assert found[0][0] == "dot_general"


def test_a_function_without_modules_is_as_it_was():
    assert list(jr.ranges(jr.scopes(jnp.exp))(X)[1]) == ["exp"]
    assert jr.scopes(jnp.exp).__name__ == "scopes(exp)"
    with pytest.raises(TypeError, match="jr.scopes takes a function or a module"):
        jr.scopes(3)  # pyright: ignore[reportArgumentType]


def test_a_net_of_scopes():
    net = jr.Net(jr.scopes(lambda model, x: model(x)))
    net(MODEL, X[None])
    assert "heads/a/dot_general" in net.get_info()
