"""What is left of two models in fewer bits: by `jr` and by onnxruntime's static quantization.

    pip install onnx onnxruntime
    python -m tests.benchmarks.accuracy [digits | minilm] [--nets 5] [--sentences 256]

The models, the data and the figures are those of `examples/digits_conv.py` and
`examples/quantize_minilm.py`. onnxruntime gets the same weights, as ONNX graphs (checked: the
largest difference to JAX is printed), calibrates with the same data in the same batches, and is
judged by the same held-out data. It computes in int8; `jr.simulate` rounds, and computes in
float32.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization as ort
from rich.console import Console
from rich.table import Table

from tests.benchmarks import onnx_models
from tests.benchmarks.frameworks import example

PRODUCTS = ["MatMul", "Gemm", "Conv"]
COMPARED = ("int8", "int8, percentile", "int8, mse", "int8, symmetric")
Feed = dict[str, np.ndarray]


class Setting(NamedTuple):
    """Arguments of `quantize_static`."""

    method: Any = ort.CalibrationMethod.MinMax
    products: bool = True
    options: dict[str, Any] = {}  # noqa: RUF012 - read only

    def arguments(self) -> dict[str, Any]:
        """Weights a channel; `products`: their operands only, as `jr.Recipe.from_ranges` does."""
        given: dict[str, Any] = {"per_channel": True, "calibrate_method": self.method}
        # One batch at a time, or a histogram keeps the activations of all of them in memory.
        options = {"CalibStridedMinMax": 1, **self.options}
        if self.products:
            options["OpTypesToExcludeOutputQuantization"] = PRODUCTS
            given["op_types_to_quantize"] = PRODUCTS
        return given | {"extra_options": options}


SETTINGS = {
    "int8, minmax": Setting(),
    "int8, percentile": Setting(ort.CalibrationMethod.Percentile),
    "int8, entropy": Setting(ort.CalibrationMethod.Entropy),
    "int8, symmetric": Setting(options={"ActivationSymmetric": True}),
    "int8, all operations": Setting(products=False),
}

# -- onnxruntime ------------------------------------------------------------------------------


class Reader(ort.CalibrationDataReader):
    """Batches to calibrate with, as `quantize_static` wants them."""

    def __init__(self, feeds: Sequence[Feed]):
        self.feeds, self.rest = feeds, iter(feeds)

    def get_next(self) -> Feed | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return next(self.rest, None)

    def __len__(self) -> int:
        return len(self.feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.rest = iter(self.feeds[start_index:end_index])


def session(model: Any) -> Callable[[Feed], np.ndarray]:
    """The model as a function."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    running = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feed: running.run(None, feed)[0]


def quantized(model: Any, feeds: Sequence[Feed], setting: Setting) -> Callable[[Feed], np.ndarray]:
    """The model after `quant_pre_process`, which its documentation asks for, and quantization."""
    with tempfile.TemporaryDirectory() as folder:
        given, prepared, result = (Path(folder, f"{name}.onnx") for name in ("a", "b", "c"))
        onnx.save(model, given)
        ort.quant_pre_process(given, prepared, skip_symbolic_shape=True)
        with contextlib.redirect_stdout(sys.stderr):  # its progress, not our table
            ort.quantize_static(prepared, result, Reader(feeds), **setting.arguments())
        return session(onnx.load(result))


# -- digits -----------------------------------------------------------------------------------


def digits(nets: int, console: Console) -> None:
    """Accuracy on held-out images."""
    conv, recipes = example("digits_conv"), example("recipes")
    trials = [conv.prepare(seed, epochs=10) for seed in range(nets)]
    exact = np.concatenate([trial.answers == trial.held_out.labels for trial in trials])
    models = [onnx_models.conv_net(trial.params) for trial in trials]
    difference = max(map(_difference_on_digits, trials, models))
    console.print(f"digits: float32 {exact.mean():.2%} of {len(exact)}, {difference:.1e} apart")
    table = Table("by", "recipe", "accuracy", "lost", "lost by one net", "as float32")
    for name in COMPARED:
        found = [trial.run(recipes.RECIPES[name](trial.ranges)) for trial in trials]
        table.add_row("jr", name, *conv.cells(found))
    for name, setting in SETTINGS.items():
        found = [_answers(*each, setting) for each in zip(trials, models, range(nets), strict=True)]
        table.add_row("onnxruntime", name, *conv.cells(found))
    console.print(table)


def _difference_on_digits(trial: Any, model: Any) -> float:
    images = trial.held_out.images
    exact = jax.jit(example("digits_conv").predict)(trial.params, images)
    return float(np.abs(session(model)({"images": images}) - exact).max())


def _answers(trial: Any, model: Any, seed: int, setting: Setting) -> Any:
    conv = example("digits_conv")
    feeds = [{"images": images} for images, _ in conv.calibration(conv.split(seed)[0])]
    scores = quantized(model, feeds, setting)({"images": trial.held_out.images})
    return conv.Answers(np.argmax(scores, axis=-1), trial.answers, trial.held_out.labels)


# -- MiniLM -----------------------------------------------------------------------------------


def minilm(sentences: int, console: Console) -> None:
    """Cosines of held-out sentences."""
    quantize, calibrate = example("quantize_minilm"), example("calibrate_minilm")
    trial = quantize.prepare(calibrate.load(scan=False), sentences, held_out=320)
    model = onnx_models.encoder(trial.model.params, calibrate.LENGTH, calibrate.minilm.HEADS)
    embeddings = functools.partial(_embeddings, trial)
    difference = np.abs(embeddings(session(model)) - trial.exact).max()
    console.print(f"MiniLM: {len(trial.exact)} sentences, {difference:.1e} apart in float32")
    table = Table("by", "recipe", "mean cosine", "worst", "top 1", "top 5", "rank")
    for name in COMPARED:
        score = trial.run(example("recipes").RECIPES[name](trial.ranges))
        table.add_row("jr", name, *_figures(score))
    feeds = list(_feeds(calibrate.batches(sentences)))
    for name, setting in SETTINGS.items():
        found = embeddings(quantized(model, feeds, setting))
        table.add_row("onnxruntime", name, *_figures(quantize.score(found, trial.exact)))
    console.print(table)


def _feeds(batches: Sequence[tuple[np.ndarray, np.ndarray]]) -> Iterator[Feed]:
    return ({"ids": ids, "mask": mask} for ids, mask in batches)


def _embeddings(trial: Any, encode: Callable[[Feed], np.ndarray]) -> np.ndarray:
    return np.concatenate([encode(feed) for feed in _feeds(trial.held_out)])[: trial.count]


def _figures(score: Sequence[float]) -> list[str]:
    return [f"{figure:.4f}" for figure in score]


def main(argv: Sequence[str] | None = None) -> None:
    """Both models, or one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="*", help="digits, minilm (both)")
    parser.add_argument("--nets", type=int, default=5, help="how many to train on digits")
    parser.add_argument("--sentences", type=int, default=256, help="how many to calibrate with")
    options = parser.parse_args(argv)
    console = Console(width=100, highlight=False)
    console.print(*(f"{name} {version(name)}" for name in ("jax", "onnx", "onnxruntime", "numpy")))
    if "digits" in (options.models or ["digits"]):
        digits(options.nets, console)
    if "minilm" in (options.models or ["minilm"]):
        minilm(options.sentences, console)


if __name__ == "__main__":
    main()
