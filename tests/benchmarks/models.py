"""Models in plain JAX, of the sizes they are asked for.

A function here returns what is measured: a function and its arguments. Weights are arguments;
as constants XLA would fold what it can of them (`captured` is there to see what that costs).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Fun = Callable[..., Any]
Made = tuple[Fun, tuple[Any, ...]]
Params = dict[str, Any]

VOCABULARY = 1000


def normal(rng: np.random.Generator, *shape: int) -> jax.Array:
    """Weights that keep the variance of what they are applied to. By numpy: compiles nothing."""
    scale = 1 / math.sqrt(math.prod(shape[:-1]))
    return jnp.asarray(rng.standard_normal(shape, np.float32) * np.float32(scale))


def data(rng: np.random.Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.standard_normal(shape, np.float32))


def cast(tree: Any, dtype: str) -> Any:
    """The floating-point arrays of a tree in another precision."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def captured(made: Made) -> Made:
    """The same function with all its arguments but the last as constants."""
    fun, args = made
    return functools.partial(fun, *args[:-1]), args[-1:]


def adam(loss: Fun, rate: float = 1e-3) -> Fun:
    """A training step, (params, moments, batch) -> (params, moments, loss)."""

    def step(params: Any, moments: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(params, batch)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], gradient)
        params = jax.tree.map(
            lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-8), params, first, second
        )
        return params, (first, second), value

    return step


def training(loss: Fun, params: Any, batch: Any) -> Made:
    # Two trees: a call may donate what it is given, but never the same array twice.
    moments = jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params)
    return adam(loss), (params, moments, batch)


# -- transformer ------------------------------------------------------------------------------


def transformer(layers: int, width: int, batch: int, length: int, dtype: str) -> Made:
    """A decoder with causal attention, its layers one after another in the program."""
    rng = np.random.default_rng(0)
    params = cast(_transformer_params(rng, layers, width), dtype)
    return decode, (params, _tokens(rng, batch, length))


def transformer_training(layers: int, width: int, batch: int, length: int, dtype: str) -> Made:
    """Adam on float32 weights, computed in `dtype`, each layer recomputed in the backward pass."""
    rng = np.random.default_rng(0)
    layer = jax.checkpoint(transformer_layer)

    def loss(params: Params, tokens: jax.Array) -> jax.Array:
        logits = decode(cast(params, dtype), tokens, layer).astype(jnp.float32)
        chosen = jnp.take_along_axis(
            jax.nn.log_softmax(logits[:, :-1]), tokens[:, 1:, None], axis=-1
        )
        return -jnp.mean(chosen)

    return training(loss, _transformer_params(rng, layers, width), _tokens(rng, batch, length))


def scanned_decoder(layers: int, width: int, batch: int, length: int, dtype: str) -> Made:
    """The same decoder as one loop over stacked layers."""
    rng = np.random.default_rng(0)
    params = cast(_transformer_params(rng, layers, width), dtype)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params["layers"])

    def decode_scan(params: Params, tokens: jax.Array) -> jax.Array:
        x, _ = lax.scan(
            lambda x, layer: (transformer_layer(layer, x), None),
            params["embed"][tokens],
            params["layers"],
        )
        return layer_norm(x, params["norm"]) @ params["embed"].T

    return decode_scan, ({**params, "layers": stacked}, _tokens(rng, batch, length))


def decode(params: Params, tokens: jax.Array, layer: Fun | None = None) -> jax.Array:
    """Logits; `layer` is what a layer is computed by, if not `transformer_layer` as it is."""
    with jax.named_scope("embed"):
        x = params["embed"][tokens]
    for n, weights in enumerate(params["layers"]):
        with jax.named_scope(f"layer_{n}"):
            x = (layer or transformer_layer)(weights, x)
    with jax.named_scope("head"):
        return layer_norm(x, params["norm"]) @ params["embed"].T


def transformer_layer(params: Params, x: jax.Array) -> jax.Array:
    with jax.named_scope("attention"):
        x = x + attention(params, layer_norm(x, params["norm_1"]))
    with jax.named_scope("mlp"):
        hidden = jax.nn.gelu(layer_norm(x, params["norm_2"]) @ params["up"])
        return x + hidden @ params["down"]


def attention(params: Params, x: jax.Array, head: int = 32) -> jax.Array:
    """Causal, in heads of 32 features."""
    split = (*x.shape[:2], -1, 3, head)
    q, k, v = jnp.moveaxis((x @ params["qkv"]).reshape(split), 3, 0)
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(head)
    causal = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    weights = jax.nn.softmax(jnp.where(causal, scores, -1e9), axis=-1)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
    return mixed.reshape(x.shape) @ params["out"]


def layer_norm(x: jax.Array, params: Params) -> jax.Array:
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    return centred * lax.rsqrt(variance + 1e-5) * params["scale"] + params["bias"]


def _transformer_params(rng: np.random.Generator, layers: int, width: int) -> Params:
    return {
        "embed": data(rng, VOCABULARY, width) * 0.02,
        "layers": [_layer_params(rng, width) for _ in range(layers)],
        "norm": _norm_params(width),
    }


def _layer_params(rng: np.random.Generator, width: int) -> Params:
    return {
        "qkv": normal(rng, width, 3 * width),
        "out": normal(rng, width, width),
        "up": normal(rng, width, 4 * width),
        "down": normal(rng, 4 * width, width),
        "norm_1": _norm_params(width),
        "norm_2": _norm_params(width),
    }


def _norm_params(width: int) -> Params:
    return {"scale": jnp.ones(width), "bias": jnp.zeros(width)}


def _tokens(rng: np.random.Generator, batch: int, length: int) -> jax.Array:
    return jnp.asarray(rng.integers(0, VOCABULARY, (batch, length)), jnp.int32)


# -- smaller networks -------------------------------------------------------------------------


def mlp(layers: int, width: int, batch: int) -> Made:
    rng = np.random.default_rng(0)
    return perceptron, (_mlp_params(rng, layers, width), data(rng, batch, width))


def mlp_training(layers: int, width: int, batch: int) -> Made:
    """Adam on the mean squared error."""
    rng = np.random.default_rng(0)

    def loss(params: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.mean(jnp.square(perceptron(params, batch[0]) - batch[1]))

    batches = data(rng, batch, width), data(rng, batch, width)
    return training(loss, _mlp_params(rng, layers, width), batches)


def tiny_net(layers: int, width: int, batch: int) -> Made:
    """So small that nothing counts but how many things are done."""
    rng = np.random.default_rng(0)
    return perceptron, (_mlp_params(rng, layers, width), data(rng, batch, width))


def perceptron(params: Sequence[Params], x: jax.Array) -> jax.Array:
    for n, layer in enumerate(params):
        with jax.named_scope(f"layer_{n}"):
            x = jnp.tanh(x @ layer["kernel"] + layer["bias"])
    return x


def _mlp_params(rng: np.random.Generator, layers: int, width: int) -> list[Params]:
    return [{"kernel": normal(rng, width, width), "bias": data(rng, width)} for _ in range(layers)]


def conv_net(channels: Sequence[int], size: int, batch: int) -> Made:
    """Convolutions of 3x3 with relu, each of a stride of 2 but the first, then a dense layer."""
    rng = np.random.default_rng(0)
    pairs = zip((3, *channels), channels, strict=False)
    kernels = [normal(rng, 3, 3, n, m) for n, m in pairs]
    biases = [data(rng, m) * 0.1 for m in channels]
    params = {"kernels": kernels, "biases": biases, "dense": normal(rng, channels[-1], 10)}
    return convolve, (params, data(rng, batch, size, size, 3))


def convolve(params: Params, images: jax.Array) -> jax.Array:
    x = images
    for n, (kernel, bias) in enumerate(zip(params["kernels"], params["biases"], strict=True)):
        stride = 2 if n else 1
        with jax.named_scope(f"conv_{n}"):
            x = lax.conv_general_dilated(
                x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + bias)
    return jnp.mean(x, axis=(1, 2)) @ params["dense"]


def gru(steps: int, width: int, batch: int) -> Made:
    """A gated recurrent unit, scanned over time."""
    rng = np.random.default_rng(0)
    params = {
        "inputs": normal(rng, width, 3 * width),
        "gates": normal(rng, width, 2 * width),
        "candidate": normal(rng, width, width),
    }

    def cell(params: Params, state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        from_x = jnp.split(x @ params["inputs"], 3, axis=-1)
        reset, update = jnp.split(state @ params["gates"], 2, axis=-1)
        reset, update = jax.nn.sigmoid(reset + from_x[0]), jax.nn.sigmoid(update + from_x[1])
        candidate = jnp.tanh((reset * state) @ params["candidate"] + from_x[2])
        state = update * state + (1 - update) * candidate
        return state, state

    def recur(params: Params, xs: jax.Array) -> jax.Array:
        start = jnp.zeros(xs.shape[1:])
        return lax.scan(functools.partial(cell, params), start, xs)[1]

    return recur, (params, data(rng, steps, batch, width))
