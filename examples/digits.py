"""Handwritten digits, in plain JAX: train, calibrate, and see the range of every operation.

    python examples/digits.py [--epochs 25] [--save digits.json]

What calibration is: run the trained model over data that looks like what it will meet, and note
the smallest and the largest value of every operation. From those come the scales of int8 or fp8.
With `jax_ranges` that is one line around the function that predicts, and `|` between batches:

    measured = jax.jit(jr.ranges(predict))
    ranges = measured(params, first)[1] | measured(params, second)[1] | ...

The model is two dense layers; its parameters are a nested dictionary, and `jax.named_scope` gives
its parts the names under which the operations appear: `hidden/dot_general`. The examples for Flax
and Equinox beside this file share the data and everything after "Shared" below; they differ in
how a model is written and trained, not in how it is calibrated.

Needs scikit-learn, from which the 1797 images come; it brings them along.
"""

from __future__ import annotations

import argparse
import collections
import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import rich
import sklearn.datasets

import jax_ranges as jr

Params = dict[str, dict[str, jax.Array]]

# --------------------------------------------------------------------------------------------
# The model, and its training.
# --------------------------------------------------------------------------------------------


def init(key: jax.Array, hidden: int = 128) -> Params:
    """Random weights for 64 pixels, `hidden` features and 10 digits."""
    first, second = jax.random.split(key)
    return {"hidden": _dense_params(first, 64, hidden), "logits": _dense_params(second, hidden, 10)}


def _dense_params(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    kernel = jax.random.normal(key, (inputs, outputs)) * np.sqrt(2 / inputs)
    return {"kernel": kernel, "bias": jnp.zeros(outputs)}


def predict(params: Params, images: jax.Array) -> jax.Array:
    """Score the ten digits: float32 [n, 8, 8] -> [n, 10]."""
    x = images.reshape(len(images), -1)
    with jax.named_scope("hidden"):
        x = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    with jax.named_scope("logits"):
        return x @ params["logits"]["kernel"] + params["logits"]["bias"]


def train(data: Digits, epochs: int, rate: float = 0.3) -> Params:
    """Descend along the gradient, one batch at a time."""

    @jax.jit
    def step(params: Params, images: jax.Array, labels: jax.Array) -> Params:
        gradient = jax.grad(lambda p: cross_entropy(predict(p, images), labels))(params)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient)

    params = init(jax.random.key(0))
    for batch in shuffled(data, epochs):
        params = step(params, *batch)
    return params


def calibrate(params: Params, data: Digits) -> tuple[float, jr.Ranges]:
    """The accuracy, and the ranges of every operation and of every weight (`inputs=True`)."""
    measured = jax.jit(jr.ranges(predict, inputs=True))
    return evaluate(functools.partial(measured, params), data)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, calibrate, print."""
    options = arguments(argv, epochs=25)
    training, held_out = load()
    params = train(training, options.epochs)
    accuracy, ranges = calibrate(params, held_out)
    plan = jr.plan(predict, inputs=True)(params, held_out.images[:BATCH])
    show(accuracy, ranges, plan, options.save)


# --------------------------------------------------------------------------------------------
# Shared with the other digits examples: data.
# --------------------------------------------------------------------------------------------

BATCH = 60  # 1437 images to train on make 23 batches (and a rest), the 360 held out exactly 6


class Digits(NamedTuple):
    """Images and what they show."""

    images: np.ndarray  # float32 [n, 8, 8], 0 = paper, 1 = ink
    labels: np.ndarray  # int32 [n], 0 to 9


def load() -> tuple[Digits, Digits]:
    """All digits, always split in the same way: 1437 to train on and 360 held out."""
    found = sklearn.datasets.load_digits()
    images = found.images.astype(np.float32) / 16
    labels = found.target.astype(np.int32)
    training, held_out = np.split(np.random.default_rng(0).permutation(len(images)), [1437])
    return Digits(images[training], labels[training]), Digits(images[held_out], labels[held_out])


def batches(data: Digits, size: int = BATCH) -> Iterator[Digits]:
    """Cut into pieces of one size, so that `jax.jit` compiles once; the rest is left out."""
    for start in range(0, len(data.images) - size + 1, size):
        yield Digits(*(array[start : start + size] for array in data))


def shuffled(data: Digits, epochs: int) -> Iterator[Digits]:
    """Training batches: the whole of the data `epochs` times, in a new order each time."""
    random = np.random.default_rng(1)
    for _ in range(epochs):
        order = random.permutation(len(data.images))
        yield from batches(Digits(*(array[order] for array in data)))


# --------------------------------------------------------------------------------------------
# Shared: how good it is, and what came out.
# --------------------------------------------------------------------------------------------


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean surprise at the right answers."""
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1).mean()


def evaluate(
    measured: Callable[[np.ndarray], tuple[jax.Array, jr.Ranges]], data: Digits
) -> tuple[float, jr.Ranges]:
    """How often the model is right, and its ranges: one pass over the data gives both."""
    right, ranges = [], []
    for images, labels in batches(data):
        logits, seen = measured(images)
        right.append(jnp.argmax(logits, axis=-1) == labels)
        ranges.append(seen)
    return float(np.mean(right)), merged(ranges)


def merged(ranges: Iterable[jr.Ranges]) -> jr.Ranges:
    """What was seen in any of them. Merging stays on the device: nothing is fetched here."""
    return functools.reduce(operator.or_, ranges)


def show(accuracy: float, ranges: jr.Ranges, plan: jr.Plan, save: Path | None) -> None:
    """Print what every digits example prints, and keep the ranges if asked to."""
    rich.print(ranges)
    rich.print(f"held-out accuracy: {accuracy:.1%}")
    rich.print(f"what it cost: {cost(plan)}")
    if save is not None:
        ranges.save(save)
        rich.print(f"saved to {save}; jr.load({str(save)!r}) reads it back")


def cost(plan: jr.Plan) -> str:
    """A plan in one line: how many values are reduced so that all sites have their range."""
    ways = collections.Counter(row.how for row in plan.rows)
    counts = ", ".join(f"{count} {way}" for way, count in ways.items())
    return f"{plan.reductions} reductions for {len(plan.rows)} sites ({counts})"


def arguments(argv: Sequence[str] | None, epochs: int) -> Any:
    """The command line of every digits example."""
    parser = argparse.ArgumentParser(description="Train on digits, and print every range.")
    parser.add_argument("--epochs", type=int, default=epochs, help="passes over the training data")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the ranges as JSON")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
