"""How each operator is written in ONNX.

A rule gets the writer, the node, the names of its operands ("" for none) and its attributes, and
gives the name of the (first) result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["RULES"]

Rule = Callable[..., str]
RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def declare(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule
    return declare


def _same(kind: str) -> Rule:
    return lambda w, node, args: w.emit(kind, *args)


_SAME = {
    "abs": "Abs", "acos": "Acos", "add": "Add", "asin": "Asin", "atan": "Atan", "bmm": "MatMul",
    "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh", "div": "Div", "eq": "Equal", "erf": "Erf",
    "exp": "Exp", "floor": "Floor", "ge": "GreaterOrEqual", "gt": "Greater", "isnan": "IsNaN",
    "le": "LessOrEqual", "log": "Log", "lt": "Less", "maximum": "Max", "minimum": "Min",
    "mm": "MatMul", "mul": "Mul", "mv": "MatMul", "dot": "MatMul", "neg": "Neg", "pow": "Pow",
    "reciprocal": "Reciprocal", "relu": "Relu", "round": "Round", "sigmoid": "Sigmoid",
    "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "sub": "Sub", "tan": "Tan",
    "tanh": "Tanh", "where": "Where",
}  # fmt: skip
RULES.update({name: _same(kind) for name, kind in _SAME.items()})


@_rule("view", "squeeze", "unsqueeze", "alias", "clone")
def _reshape(w: Any, node: Any, args: Any, **_: Any) -> str:
    return w.emit("Reshape", args[0], w.integers(node.shape))


@_rule("expand")
def _expand(w: Any, node: Any, args: Any, size: Any) -> str:
    return w.emit("Expand", args[0], w.integers(node.shape))


@_rule("permute")
def _permute(w: Any, node: Any, args: Any, dims: Any) -> str:
    return w.emit("Transpose", args[0], perm=list(dims))


@_rule("transpose", "t")
def _transpose(w: Any, node: Any, args: Any, dim0: int = 0, dim1: int = 1) -> str:
    order = list(range(len(node.shape)))
    if order:
        order[dim0], order[dim1] = order[dim1], order[dim0]
    return w.emit("Transpose", args[0], perm=order)


@_rule("cat")
def _cat(w: Any, node: Any, args: Any, dim: int) -> str:
    return w.emit("Concat", *args, axis=dim)


@_rule("select")
def _select(w: Any, node: Any, args: Any, dim: int, index: int) -> str:
    return w.emit("Gather", args[0], w.constant(index, np.int64), axis=dim)


@_rule("slice")
def _slice(w: Any, node: Any, args: Any, dim: int, start: int, stop: int, step: int) -> str:
    parts = [w.integers([value]) for value in (start, stop, dim, step)]
    return w.emit("Slice", args[0], *parts)


@_rule("to_copy")
def _cast(w: Any, node: Any, args: Any, **_: Any) -> str:
    return w.cast(args[0], node.dtype)


@_rule("linear")
def _linear(w: Any, node: Any, args: Any) -> str:
    x, weight, bias = args
    if len(node.shape) == 2 and bias:
        return w.emit("Gemm", x, weight, bias, transB=1)
    product = w.emit("MatMul", x, w.emit("Transpose", weight, perm=[1, 0]))
    return w.emit("Add", product, bias) if bias else product


@_rule("addmm")
def _addmm(w: Any, node: Any, args: Any, beta: float, alpha: float) -> str:
    return w.emit("Gemm", args[1], args[2], args[0], alpha=float(alpha), beta=float(beta))


@_rule("convolution")
def _convolution(w: Any, node: Any, args: Any, stride: Any, padding: Any, dilation: Any,
                 groups: int) -> str:
    return w.emit("Conv", *args, strides=list(stride), pads=list(padding) * 2,
                  dilations=list(dilation), group=groups)


@_rule("native_batch_norm")
def _batch_norm(w: Any, node: Any, args: Any, training: bool, eps: float) -> str:
    x, weight, bias, mean, var = args
    if training or not mean:
        raise NotImplementedError("batch norm on the statistics of the batch has no translation to "
                                  "ONNX yet: export a model in evaluation mode")
    channels, kind = node.args[3].shape, node.args[0].dtype
    weight = weight or w.constant(np.ones(channels), kind)
    bias = bias or w.constant(np.zeros(channels), kind)
    return w.emit("BatchNormalization", x, weight, bias, mean, var, epsilon=eps)


@_rule("native_layer_norm")
def _layer_norm(w: Any, node: Any, args: Any, dims: int, eps: float) -> str:
    x, weight, bias = args
    source = node.args[0]
    shape = source.shape[len(source.shape) - dims:]
    scale = weight or w.constant(np.ones(shape), source.dtype)
    inputs = (x, scale, bias) if bias else (x, scale)
    return w.emit("LayerNormalization", *inputs, axis=-dims, epsilon=eps)


@_rule("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices")
def _max_pool(w: Any, node: Any, args: Any, kernel: Any, stride: Any, padding: Any, dilation: Any,
              ceil_mode: bool) -> str:
    return w.emit("MaxPool", args[0], kernel_shape=list(kernel), strides=list(stride),
                  pads=list(padding) * 2, dilations=list(dilation), ceil_mode=int(ceil_mode))


@_rule("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(w: Any, node: Any, args: Any, kernel: Any, stride: Any, padding: Any,
              ceil_mode: bool, include: bool, override: Any = None) -> str:
    if override is not None:
        raise NotImplementedError("divisor_override has no translation to ONNX")
    return w.emit("AveragePool", args[0], kernel_shape=list(kernel), strides=list(stride),
                  pads=list(padding) * 2, ceil_mode=int(ceil_mode),
                  count_include_pad=int(include))


@_rule("softmax", "log_softmax")
def _softmax(w: Any, node: Any, args: Any, dim: int) -> str:
    return w.emit("Softmax" if node.op.name == "softmax" else "LogSoftmax", args[0], axis=dim)


@_rule("mean", "sum", "amax", "amin")
def _reduction(w: Any, node: Any, args: Any, dims: Any, keepdim: bool) -> str:
    kind = {"mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax", "amin": "ReduceMin"}
    rank = len(node.args[0].shape)
    axes = range(rank) if dims is None or dims == () else dims
    return w.emit(kind[node.op.name], args[0], w.integers(axes), keepdims=int(keepdim))


@_rule("embedding")
def _embedding(w: Any, node: Any, args: Any, **_: Any) -> str:
    return w.emit("Gather", args[0], args[1], axis=0)


@_rule("clamp")
def _clamp(w: Any, node: Any, args: Any) -> str:
    low, high = args[1], args[2]
    name = w.emit("Max", args[0], low) if low else args[0]
    return w.emit("Min", name, high) if high else name


@_rule("leaky_relu")
def _leaky_relu(w: Any, node: Any, args: Any, slope: float) -> str:
    return w.emit("LeakyRelu", args[0], alpha=float(slope))


@_rule("silu")
def _silu(w: Any, node: Any, args: Any) -> str:
    return w.emit("Mul", args[0], w.emit("Sigmoid", args[0]))


@_rule("rsqrt")
def _rsqrt(w: Any, node: Any, args: Any) -> str:
    return w.emit("Reciprocal", w.emit("Sqrt", args[0]))


@_rule("square")
def _square(w: Any, node: Any, args: Any) -> str:
    return w.emit("Mul", args[0], args[0])


@_rule("gelu")
def _gelu(w: Any, node: Any, args: Any, tanh: bool) -> str:
    x = args[0]

    def number(value: float) -> str:
        return str(w.constant(value, node.dtype))

    if tanh:
        cubic = w.emit("Mul", w.emit("Pow", x, number(3)), number(0.044715))
        inner = w.emit("Mul", w.emit("Add", x, cubic), number(math.sqrt(2 / math.pi)))
        bent = w.emit("Tanh", inner)
    else:
        bent = w.emit("Erf", w.emit("Mul", x, number(math.sqrt(0.5))))
    return w.emit("Mul", w.emit("Mul", x, number(0.5)), w.emit("Add", bent, number(1)))
