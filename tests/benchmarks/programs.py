"""Programs that are no networks: an elementwise chain, a solver, one of thousands of equations."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.benchmarks.models import Made, data, layer_norm, normal


def elementwise(elements: int) -> Made:
    """Two dozen operations that XLA fuses into one loop: the worst case, for all is memory traffic.

    Of the results only a few follow from others (those by a literal), as in an optimizer or an
    activation function.
    """

    def chain(x: jax.Array, y: jax.Array) -> jax.Array:
        for _ in range(2):
            gate = jax.nn.sigmoid(x * y)
            x = jnp.tanh(x + gate)
            square = x * x
            x = jnp.exp(-square) * y
            x = x / (square + gate)
            x = x - y * 0.5
        return x

    rng = np.random.default_rng(0)
    return chain, (data(rng, elements), data(rng, elements))


def conjugate_gradient(size: int, steps: int) -> Made:
    """Solves a ridge regression's normal equations, in a while loop, to a residual of 1e-6."""

    def solve(kernel: jax.Array, target: jax.Array) -> jax.Array:
        def unfinished(state: tuple[jax.Array, ...]) -> jax.Array:
            *_, norm, n = state
            return (norm > 1e-12) & (n < steps)

        def step(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            x, residual, direction, norm, n = state
            image = kernel @ direction
            rate = norm / (direction @ image)
            x, residual = x + rate * direction, residual - rate * image
            new_norm = residual @ residual
            return x, residual, residual + new_norm / norm * direction, new_norm, n + 1

        start = (jnp.zeros_like(target), target, target, target @ target, 0)
        return lax.while_loop(unfinished, step, start)[0]

    rng = np.random.default_rng(0)
    factor = np.asarray(normal(rng, size, size))
    kernel = jnp.asarray(factor @ factor.T + 0.05 * np.eye(size, dtype=np.float32))
    return solve, (kernel, data(rng, size))


def unrolled(blocks: int, width: int, batch: int) -> Made:
    """Small residual blocks of 18 equations, without a loop: what is long to trace and compile.

    The weights are the same in all of them, which XLA does not know to use.
    """

    def deep(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        norm = {"scale": params["scale"], "bias": params["bias"]}
        for n in range(blocks):
            with jax.named_scope(f"block_{n}"):
                x = x + jnp.tanh(layer_norm(x, norm) @ params["kernel"])
        return x

    rng = np.random.default_rng(0)
    params = {
        "kernel": normal(rng, width, width),
        "scale": jnp.ones(width),
        "bias": jnp.zeros(width),
    }
    return deep, (params, data(rng, batch, width))
