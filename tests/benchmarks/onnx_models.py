"""The two models of the accuracy table as ONNX graphs, from the same weights.

Written by hand, node by node, as exporters write them: GELU by Erf, layer normalisation as one
node, NCHW convolutions. Images enter as [n, 8, 8] and sentences as int32 [n, length], as in JAX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17  # the first with LayerNormalization


@dataclass
class Graph:
    """Collects nodes; what `add` returns is the name of a node's output."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, op: str, *inputs: Any, name: str = "", **attributes: Any) -> str:
        """A node; inputs are names, or arrays, which become constants."""
        name = name or f"{op}_{len(self.nodes)}"
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        self.nodes.append(helper.make_node(op, names, [f"{name}_out"], name, **attributes))
        return f"{name}_out"

    def _constant(self, value: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def model(self, inputs: Sequence[onnx.ValueInfoProto], output: str, width: int) -> Any:
        """The model whose inputs are these and whose only output is float32 [n, width]."""
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", width])
        graph = helper.make_graph(self.nodes, "model", list(inputs), [result], self.constants)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        onnx.checker.check_model(model)
        return model


def _f32(x: Any) -> np.ndarray:
    return np.asarray(x, np.float32)


def _i64(*shape: int) -> np.ndarray:
    return np.array(shape, np.int64)


# -- digits -----------------------------------------------------------------------------------


def conv_net(params: Any) -> Any:
    """`examples/digits_conv.py`'s net."""
    graph = Graph()
    x = graph.add("Unsqueeze", "images", _i64(1))
    x = graph.add("Relu", _convolve(graph, params["first"], x))
    x = graph.add("Relu", _convolve(graph, params["second"], x))
    x = graph.add("MaxPool", x, kernel_shape=(2, 2), strides=(2, 2))
    x = graph.add("Flatten", x)
    # Flattened in the order channel, row, column here; in row, column, channel there.
    kernel = _f32(params["logits"]["kernel"]).reshape(4, 4, 32, 10).transpose(2, 0, 1, 3)
    x = graph.add("Gemm", x, kernel.reshape(512, 10), _f32(params["logits"]["bias"]))
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 8, 8])
    return graph.model([images], x, 10)


def _convolve(graph: Graph, params: Any, x: str) -> str:
    kernel = _f32(params["kernel"]).transpose(3, 2, 0, 1)  # HWIO to OIHW
    return graph.add("Conv", x, kernel, _f32(params["bias"]), pads=(1, 1, 1, 1))


# -- MiniLM -----------------------------------------------------------------------------------


def encoder(params: Any, length: int, heads: int) -> Any:
    """`examples/minilm.py`'s encoder, for sentences of one length."""
    graph = Graph()
    embeddings = params["embeddings"]
    x = graph.add("Gather", _f32(embeddings["word"]), "ids")
    x = graph.add("Add", x, _f32(embeddings["position"][:length]))
    x = graph.add("Add", x, _f32(embeddings["segment"][0]))
    x = _layer_norm(graph, embeddings["layer_norm"], x)
    bias = _padding_bias(graph)
    for layer in range(len(params["encoder"])):
        x = _layer(graph, params["encoder"][f"layer_{layer}"], x, bias, length, heads)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT32, ["n", length])
        for name in ("ids", "mask")
    ]
    return graph.model(inputs, _pool(graph, x), params["embeddings"]["word"].shape[-1])


def _padding_bias(graph: Graph) -> str:
    real = graph.add("Unsqueeze", graph.add("Cast", "mask", to=TensorProto.BOOL), _i64(1, 2))
    return graph.add("Where", real, _f32(0), _f32(np.finfo(np.float32).min))


def _layer(graph: Graph, params: Any, x: str, bias: str, length: int, heads: int) -> str:
    x = _attention(graph, params["attention"], x, bias, length, heads)
    y = _dense(graph, params["mlp"]["up"], x)
    y = _dense(graph, params["mlp"]["down"], _gelu(graph, y))
    return _layer_norm(graph, params["mlp"]["layer_norm"], graph.add("Add", x, y))


def _attention(graph: Graph, params: Any, x: str, bias: str, length: int, heads: int) -> str:
    width = params["query"]["kernel"].shape[1]
    query, key, value = (
        graph.add(
            "Reshape", _dense(graph, params[part], x), _i64(-1, length, heads, width // heads)
        )
        for part in ("query", "key", "value")
    )
    query, value = (graph.add("Transpose", y, perm=(0, 2, 1, 3)) for y in (query, value))
    key = graph.add("Transpose", key, perm=(0, 2, 3, 1))
    scores = graph.add("MatMul", query, key)
    scores = graph.add("Mul", scores, _f32((width // heads) ** -0.5))
    weights = graph.add("Softmax", graph.add("Add", scores, bias), axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", weights, value), perm=(0, 2, 1, 3))
    y = _dense(graph, params["output"], graph.add("Reshape", mixed, _i64(-1, length, width)))
    return _layer_norm(graph, params["layer_norm"], graph.add("Add", x, y))


def _dense(graph: Graph, params: Any, x: str) -> str:
    y = graph.add("MatMul", x, _f32(params["kernel"]))
    return graph.add("Add", y, _f32(params["bias"]))


def _gelu(graph: Graph, x: str) -> str:
    inner = graph.add("Erf", graph.add("Div", x, _f32(np.sqrt(2))))
    return graph.add("Mul", graph.add("Mul", x, graph.add("Add", inner, _f32(1))), _f32(0.5))


def _layer_norm(graph: Graph, params: Any, x: str) -> str:
    scale, bias = _f32(params["scale"]), _f32(params["bias"])
    return graph.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)


def _pool(graph: Graph, x: str) -> str:
    weights = graph.add("Unsqueeze", graph.add("Cast", "mask", to=TensorProto.FLOAT), _i64(2))
    count = graph.add("ReduceSum", weights, _i64(1), keepdims=0)
    count = graph.add("Max", count, _f32(1))
    total = graph.add("ReduceSum", graph.add("Mul", x, weights), _i64(1), keepdims=0)
    mean = graph.add("Div", total, count)
    square = graph.add("ReduceSum", graph.add("Mul", mean, mean), _i64(1), keepdims=1)
    return graph.add("Div", mean, graph.add("Sqrt", graph.add("Max", square, _f32(1e-12))))
