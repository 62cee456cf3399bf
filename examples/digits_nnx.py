"""Handwritten digits, in Flax NNX: a convolutional net with batch normalisation, calibrated.

    python examples/digits_nnx.py [--epochs 6] [--save nnx.json]

An NNX model holds its arrays, and is a pytree: it can be passed as it is to `jr.ranges(predict)`,
as to `jax.jit`. Two things are worth knowing.

NNX opens no scopes for its modules, so ranges would be named after their primitives only, and
numbered: `conv_general_dilated.1`. A `jax.named_scope` in `__call__` names them, in profiles too.

A model that is passed in is a copy inside, as with `jax.jit`: what a call writes into it (running
means, the counters of random keys) is lost unless the function returns it. The same holds under
`nnx.jit(jr.ranges(f))`. So switch to `eval()` first, where nothing is written; or split the model
and return its state, `nnx.merge(graphdef, state)` inside and `nnx.state(model)` as an output.

Needs flax, optax and scikit-learn.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import optax
from flax import nnx

import digits
import jax_ranges as jr


class Block(nnx.Module):
    """Convolve at a stride of 2, normalise, and keep what is positive."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(inputs, outputs, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(outputs, momentum=0.9, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        with jax.named_scope("conv"):
            x = self.conv(x)
        with jax.named_scope("norm"):
            x = self.norm(x)
        return nnx.relu(x)


class ConvNet(nnx.Module):
    """Two blocks and a dense layer."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.first = Block(1, 16, rngs=rngs)
        self.second = Block(16, 32, rngs=rngs)
        self.dense = nnx.Linear(2 * 2 * 32, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images[..., None]
        with jax.named_scope("first"):
            x = self.first(x)
        with jax.named_scope("second"):
            x = self.second(x)
        with jax.named_scope("dense"):
            return self.dense(x.reshape(len(x), -1))


def predict(model: ConvNet, images: jax.Array) -> jax.Array:
    """Score the ten digits: float32 [n, 8, 8] -> [n, 10]."""
    return model(images)


def train(data: digits.Digits, epochs: int) -> ConvNet:
    """Follow Adam; `nnx.jit` carries what changes in the model over to the caller's."""

    @nnx.jit
    def step(model: ConvNet, optimizer: nnx.Optimizer, batch: digits.Digits) -> None:
        def loss(model: ConvNet) -> jax.Array:
            return digits.cross_entropy(model(batch.images), batch.labels)

        optimizer.update(model, nnx.grad(loss)(model))

    model = ConvNet(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    for batch in digits.shuffled(data, epochs):
        step(model, optimizer, batch)
    model.eval()
    return model


def calibrate(model: ConvNet, data: digits.Digits) -> tuple[float, jr.Ranges]:
    """The accuracy, and the ranges of every operation."""
    measured = jax.jit(jr.ranges(predict))
    return digits.evaluate(functools.partial(measured, model), data)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, calibrate, print."""
    options = digits.arguments(argv, epochs=6)
    training, held_out = digits.load()
    model = train(training, options.epochs)
    accuracy, ranges = calibrate(model, held_out)
    plan = jr.plan(predict)(model, held_out.images[: digits.BATCH])
    digits.show(accuracy, ranges, plan, options.save)


if __name__ == "__main__":
    main()
