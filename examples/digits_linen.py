"""Handwritten digits, in Flax Linen: a convolutional net with batch normalisation, calibrated.

    python examples/digits_linen.py [--epochs 6] [--save linen.json]

Linen keeps a model's arrays outside of it, in a dictionary of collections, and puts each module's
operations into a scope of its name. So the names of ranges need no help: `Conv_0` of the class
`ConvNet` convolves in `ConvNet/Conv_0/conv_general_dilated`.

Batch normalisation runs differently in training, where it updates `batch_stats`; what is
calibrated is `predict`, the model as it will be used.

Needs flax, optax and scikit-learn.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import optax
from flax import linen as nn

import digits
import jax_ranges as jr

Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}


class ConvNet(nn.Module):
    """Two convolutions, each normalised and at a stride of 2, and a dense layer."""

    @nn.compact
    def __call__(self, images: jax.Array, training: bool = False) -> jax.Array:
        x = images[..., None]
        for features in (16, 32):
            x = nn.Conv(features, (3, 3), strides=2)(x)
            x = nn.BatchNorm(use_running_average=not training, momentum=0.9)(x)
            x = nn.relu(x)
        return nn.Dense(10)(x.reshape(len(x), -1))


def predict(variables: Variables, images: jax.Array) -> jax.Array:
    """Score the ten digits: float32 [n, 8, 8] -> [n, 10]."""
    return ConvNet().apply(variables, images)


def train(data: digits.Digits, epochs: int) -> Variables:
    """Follow Adam, and carry the running means and variances along."""
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(variables: Variables, adam: Any, batch: digits.Digits) -> tuple[Variables, Any]:
        def loss(params: Any) -> tuple[jax.Array, Any]:
            inputs = {**variables, "params": params}
            logits, updated = ConvNet().apply(
                inputs, batch.images, training=True, mutable=["batch_stats"]
            )
            return digits.cross_entropy(logits, batch.labels), updated

        gradient, updated = jax.grad(loss, has_aux=True)(variables["params"])
        change, adam = optimizer.update(gradient, adam)
        return {"params": optax.apply_updates(variables["params"], change), **updated}, adam

    variables = jax.jit(ConvNet().init)(jax.random.key(0), data.images[:1])
    adam = optimizer.init(variables["params"])
    for batch in digits.shuffled(data, epochs):
        variables, adam = step(variables, adam, batch)
    return variables


def calibrate(variables: Variables, data: digits.Digits) -> tuple[float, jr.Ranges]:
    """The accuracy, and the ranges of every operation."""
    measured = jax.jit(jr.ranges(predict))
    return digits.evaluate(functools.partial(measured, variables), data)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, calibrate, print."""
    options = digits.arguments(argv, epochs=6)
    training, held_out = digits.load()
    variables = train(training, options.epochs)
    accuracy, ranges = calibrate(variables, held_out)
    plan = jr.plan(predict)(variables, held_out.images[: digits.BATCH])
    digits.show(accuracy, ranges, plan, options.save)


if __name__ == "__main__":
    main()
