"""Models of packages that may not be there; making one raises ModuleNotFoundError if so."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.benchmarks.models import Fun, Made, data

EXAMPLES = Path(__file__).parents[2] / "examples"


def minilm(sentences: int, length: int, scan: bool = False) -> Made:
    """all-MiniLM-L6-v2 with its real weights, on real sentences."""
    model, text = example("minilm"), example("sentences")
    params = model.load()
    ids, mask = map(jax.numpy.asarray, model.tokenize(text.sentences()[:sentences], length))
    if scan:
        return model.encode_scan, (model.stack_layers(params), ids, mask)
    return model.encode, (params, ids, mask)


def example(name: str) -> Any:
    """A module of the examples, which are scripts beside one another."""
    if str(EXAMPLES) not in sys.path:
        sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module(name)


# -- flax linen -------------------------------------------------------------------------------


def linen(features: Sequence[int], size: int, batch: int) -> Made:
    """A convolutional net with batch normalisation, as it is used for prediction."""
    model, (variables, images) = _linen(features, size, batch)
    return lambda variables, images: model.apply(variables, images), (variables, images)


def linen_captured(features: Sequence[int], size: int, batch: int) -> Made:
    """The same, returning its modules' outputs too."""
    model, args = _linen(features, size, batch)
    return (
        lambda variables, images: model.apply(
            variables, images, capture_intermediates=True, mutable=["intermediates"]
        ),
        args,
    )


def _linen(features: Sequence[int], size: int, batch: int) -> tuple[Any, tuple[Any, jax.Array]]:
    from flax import linen as nn

    class ConvNet(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for n in features:
                x = nn.Conv(n, (3, 3), strides=2)(x)
                x = nn.BatchNorm(use_running_average=True)(x)
                x = nn.relu(x)
            return nn.Dense(10)(x.mean(axis=(1, 2)))

    images = data(np.random.default_rng(0), batch, size, size, 3)
    return ConvNet(), (jax.jit(ConvNet().init)(jax.random.key(0), images[:1]), images)


# -- flax nnx ---------------------------------------------------------------------------------


def nnx(layers: int, width: int, size: int, batch: int) -> Made:
    """A small vision transformer on patches of 8 x 8; its state is an argument."""
    graph, args = _vision_transformer(layers, width, size, batch)
    return _nnx_merged(graph, lambda model: model), args


def nnx_captured(layers: int, width: int, size: int, batch: int) -> Made:
    """The same, returning its modules' outputs too."""
    from flax import nnx

    graph, args = _vision_transformer(layers, width, size, batch)

    def capture(model: Any) -> Fun:
        return nnx.capture(model, nnx.Intermediate, method_outputs=nnx.Intermediate)

    return _nnx_merged(graph, capture), args


def _nnx_merged(graph: Any, prepare: Fun) -> Fun:
    from flax import nnx

    return lambda state, images: prepare(nnx.merge(graph, state))(images)


def _vision_transformer(
    layers: int, width: int, size: int, batch: int
) -> tuple[Any, tuple[Any, jax.Array]]:
    from flax import nnx

    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.norm_1, self.norm_2 = (nnx.LayerNorm(width, rngs=rngs) for _ in range(2))
            self.attention = nnx.MultiHeadAttention(
                width // 32, width, decode=False, deterministic=True, rngs=rngs
            )
            self.up = nnx.Linear(width, 4 * width, rngs=rngs)
            self.down = nnx.Linear(4 * width, width, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = x + self.attention(self.norm_1(x))
            return x + self.down(nnx.gelu(self.up(self.norm_2(x))))

    class VisionTransformer(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.patches = nnx.Conv(3, width, (8, 8), strides=8, rngs=rngs)
            self.blocks = nnx.List([Block(rngs) for _ in range(layers)])
            self.head = nnx.Linear(width, 10, rngs=rngs)

        def __call__(self, images: jax.Array) -> jax.Array:
            x = self.patches(images).reshape(len(images), -1, width)
            for block in self.blocks:
                x = block(x)
            return self.head(x.mean(axis=1))

    graph, state = nnx.split(VisionTransformer(nnx.Rngs(0)))
    return graph, (state, data(np.random.default_rng(0), batch, size, size, 3))
