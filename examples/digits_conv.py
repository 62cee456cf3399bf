"""Fewer bits for a convolutional net, in plain JAX: what becomes of its accuracy on digits.

    python examples/digits_conv.py [--nets 5] [--epochs 10]

Trains a small net (two convolutions and a dense layer), calibrates it on images that it was
trained on, quantizes it by each recipe of `recipes.py`, and asks for the digits on images that
were held out. There are 360 of those, so one image is 0.28% of accuracy; hence several nets, each
with other random weights and another fifth of the images held out. With five of them every one of
the 1797 images is judged once, by a net that has not seen it: 0.06% an image.

Printed for each recipe: the accuracy over all held-out images, how much of float32's accuracy is
lost (in percentage points; and the most that any one net loses), how many answers are those of
float32, and how many bits a weight takes, its share of the scales included.

Calibration is `recipes.calibrate`; the data come from `digits.py` beside this file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import digits
import jax_ranges as jr
import recipes
from digits import Digits, Params

FOLDS = 5
CALIBRATION = 240  # images
ENOUGH = 0.5  # percentage points of accuracy to lose

# --------------------------------------------------------------------------------------------
# The model, and its training.
# --------------------------------------------------------------------------------------------


def init(key: jax.Array) -> Params:
    """Random weights: 16 and 32 features of 3x3 pixels, and 10 digits from what is left."""
    first, second, third = jax.random.split(key, 3)
    return {
        "first": _layer(first, 3, 3, 1, 16),
        "second": _layer(second, 3, 3, 16, 32),
        "logits": _layer(third, 4 * 4 * 32, 10),
    }


def _layer(key: jax.Array, *shape: int) -> dict[str, jax.Array]:
    kernel = jax.random.normal(key, shape) * np.sqrt(2 / np.prod(shape[:-1]))
    return {"kernel": kernel, "bias": jnp.zeros(shape[-1])}


def predict(params: Params, images: jax.Array) -> jax.Array:
    """Score the ten digits: float32 [n, 8, 8] -> [n, 10]."""
    x = images[..., None]
    with jax.named_scope("first"):
        x = jax.nn.relu(convolve(params["first"], x))  # [n, 8, 8, 16]
    with jax.named_scope("second"):
        x = largest_of_four(jax.nn.relu(convolve(params["second"], x)))  # [n, 4, 4, 32]
    with jax.named_scope("logits"):
        return x.reshape(len(x), -1) @ params["logits"]["kernel"] + params["logits"]["bias"]


def convolve(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """A convolution: [n, height, width, in] -> [n, height, width, out]."""
    layout = ("NHWC", "HWIO", "NHWC")
    kernel = params["kernel"]
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
    return y + params["bias"]


def largest_of_four(x: jax.Array) -> jax.Array:
    """Max pooling: [n, height, width, features] to half the height and width."""
    n, height, width, features = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, features).max(axis=(2, 4))


def train(data: Digits, epochs: int, seed: int = 0, rate: float = 0.05) -> Params:
    """Descend along the gradient, with momentum, one batch at a time."""

    @jax.jit
    def step(params: Params, speed: Params, batch: Digits) -> tuple[Params, Params]:
        gradient = jax.grad(lambda p: digits.cross_entropy(predict(p, batch.images), batch.labels))(
            params
        )
        speed = jax.tree.map(lambda v, g: 0.9 * v - rate * g, speed, gradient)
        return jax.tree.map(jnp.add, params, speed), speed

    params = init(jax.random.key(seed))
    speed = jax.tree.map(jnp.zeros_like, params)
    for batch in digits.shuffled(data, epochs):
        params, speed = step(params, speed, batch)
    return params


# --------------------------------------------------------------------------------------------
# How good it is.
# --------------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """A trained net, what calibration saw, and the images that were held out."""

    params: Params
    ranges: jr.Ranges
    held_out: Digits
    answers: np.ndarray  # of float32

    def run(self, recipe: jr.Recipe, on_codes: bool = False) -> Answers:
        """What the net answers by a recipe; see `recipes.lowered`."""
        low = answers(recipes.lowered(predict, recipe, on_codes), self.params, self.held_out)
        return Answers(low, self.answers, self.held_out.labels)


class Answers(NamedTuple):
    """Digits that were answered in fewer bits, in float32, and the right ones."""

    low: np.ndarray
    exact: np.ndarray
    right: np.ndarray

    @property
    def accuracy(self) -> float:
        """In per cent."""
        return 100 * float(np.mean(self.low == self.right))

    @property
    def loss(self) -> float:
        """Percentage points of accuracy less than float32."""
        return 100 * float(np.mean(self.exact == self.right)) - self.accuracy

    @property
    def same(self) -> float:
        """How many answers are those of float32, in per cent."""
        return 100 * float(np.mean(self.low == self.exact))


def split(fold: int) -> tuple[Digits, Digits]:
    """Images to train on, and the fifth of that number."""
    parts = [np.concatenate(both) for both in zip(*digits.load(), strict=True)]
    held_out = np.arange(len(parts[0])) % FOLDS == fold % FOLDS
    return Digits(*(part[~held_out] for part in parts)), Digits(*(part[held_out] for part in parts))


def prepare(seed: int, epochs: int) -> Trial:
    """Train a net and calibrate it."""
    training, held_out = split(seed)
    params = train(training, epochs, seed)
    ranges = recipes.calibrate(predict, [(params, images) for images, _ in calibration(training)])
    return Trial(params, ranges, held_out, answers(jax.jit(predict), params, held_out))


def calibration(training: Digits) -> list[Digits]:
    """Batches of the first images that the net was trained on."""
    return list(digits.batches(Digits(*(part[:CALIBRATION] for part in training))))


def answers(
    predict: Callable[[Params, np.ndarray], jax.Array], params: Params, data: Digits
) -> np.ndarray:
    """The digits with the highest scores."""
    return np.argmax(np.asarray(predict(params, data.images)), axis=-1)


def compare(trials: Sequence[Trial], names: Iterable[str], console: Console) -> list[str]:
    """Try recipes on all nets, and print the table; which of them lose too much."""
    sites = recipes.sites_of(predict, trials[0].params, trials[0].held_out.images)
    table = Table("recipe", "accuracy", "lost", "lost by one net", "as float32", "bits")
    poor = []
    for name in names:
        given = [recipes.RECIPES[name](trial.ranges) for trial in trials]
        codes = name in recipes.ON_CODES
        nets = [trial.run(recipe, codes) for trial, recipe in zip(trials, given, strict=True)]
        table.add_row(name, *cells(nets), f"{recipes.weight_bits(given[0], sites):.2f}")
        if joined(nets).loss >= ENOUGH:
            poor.append(name)
    console.print(table)
    return poor


def joined(nets: Sequence[Answers]) -> Answers:
    """The answers of all nets."""
    return Answers(*map(np.concatenate, zip(*nets, strict=True)))


def cells(nets: Sequence[Answers]) -> list[str]:
    """What a table says of them."""
    together, most = joined(nets), max(net.loss for net in nets)
    figures = (together.accuracy, together.loss, most, together.same)
    return [f"{figure + 0:.2f}%" for figure in figures]


def main(argv: Sequence[str] | None = None) -> None:
    """Train, calibrate, compare, and say whether the recommended recipe is good enough."""
    options = _arguments(argv)
    console = Console()
    trials = [prepare(seed, options.epochs) for seed in range(options.nets)]
    exact = np.concatenate([trial.answers == trial.held_out.labels for trial in trials])
    console.print(f"float32: {exact.mean():.2%} of {len(exact)} held-out images", highlight=False)
    poor = compare(trials, options.only or recipes.RECIPES, console)
    console.print(f"Loses {ENOUGH}% or more: {'; '.join(poor) or 'none'}", highlight=False)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare a conv net in fewer bits with float32.")
    parser.add_argument("--nets", type=int, default=FOLDS, help="how many to train")
    parser.add_argument("--epochs", type=int, default=10, help="passes over the training data")
    parser.add_argument("--only", nargs="+", metavar="RECIPE", choices=recipes.RECIPES)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
