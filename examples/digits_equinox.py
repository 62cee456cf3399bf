"""Handwritten digits, in Equinox: a convolutional net, calibrated.

    python examples/digits_equinox.py [--epochs 12] [--save equinox.json]

An Equinox model is a pytree of arrays and of what is none, such as functions and flags; so is
what `jr.ranges` takes: what is no array passes through to the model untouched. Therefore
`jr.ranges(predict)(model, images)` works as it is, and is compiled by `eqx.filter_jit`, which is
`jax.jit` with the same leniency.

The model is written for one image, and `jax.vmap` makes it one for many. Equinox opens a scope
for each of its layers, named after the layer's class, so both layers of a kind share a name; the
`jax.named_scope`s in `__call__` tell them apart.

Needs equinox, optax and scikit-learn.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import optax

import digits
import jax_ranges as jr


class ConvNet(eqx.Module):
    """Two convolutions at a stride of 2, and a dense layer; for one image."""

    first: eqx.nn.Conv2d
    second: eqx.nn.Conv2d
    dense: eqx.nn.Linear

    def __init__(self, key: jax.Array):
        keys = jax.random.split(key, 3)
        self.first = eqx.nn.Conv2d(1, 16, 3, stride=2, padding=1, key=keys[0])
        self.second = eqx.nn.Conv2d(16, 32, 3, stride=2, padding=1, key=keys[1])
        self.dense = eqx.nn.Linear(32 * 2 * 2, 10, key=keys[2])

    def __call__(self, image: jax.Array) -> jax.Array:
        x = image[None]
        with jax.named_scope("first"):
            x = jax.nn.relu(self.first(x))
        with jax.named_scope("second"):
            x = jax.nn.relu(self.second(x))
        with jax.named_scope("dense"):
            return self.dense(x.ravel())


def predict(model: ConvNet, images: jax.Array) -> jax.Array:
    """Score the ten digits: float32 [n, 8, 8] -> [n, 10]."""
    return jax.vmap(model)(images)


def train(data: digits.Digits, epochs: int) -> ConvNet:
    """Follow Adam, over those leaves of the model that are arrays of floats."""
    optimizer = optax.adam(3e-3)

    @eqx.filter_jit
    def step(model: ConvNet, adam: Any, batch: digits.Digits) -> tuple[ConvNet, Any]:
        @eqx.filter_grad
        def gradient(model: ConvNet) -> jax.Array:
            return digits.cross_entropy(predict(model, batch.images), batch.labels)

        change, adam = optimizer.update(gradient(model), adam)
        return eqx.apply_updates(model, change), adam

    model = ConvNet(jax.random.key(0))
    adam = optimizer.init(eqx.filter(model, eqx.is_inexact_array))
    for batch in digits.shuffled(data, epochs):
        model, adam = step(model, adam, batch)
    return model


def calibrate(model: ConvNet, data: digits.Digits) -> tuple[float, jr.Ranges]:
    """The accuracy, and the ranges of every operation."""
    measured = eqx.filter_jit(jr.ranges(predict))
    return digits.evaluate(functools.partial(measured, model), data)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, calibrate, print."""
    options = digits.arguments(argv, epochs=12)
    training, held_out = digits.load()
    model = train(training, options.epochs)
    accuracy, ranges = calibrate(model, held_out)
    plan = jr.plan(predict)(model, held_out.images[: digits.BATCH])
    digits.show(accuracy, ranges, plan, options.save)


if __name__ == "__main__":
    main()
