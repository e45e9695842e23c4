"""Matrix products: mm, bmm, addmm, linear, matmul, einsum, dot, outer, cdist."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from ..tensor.dtype import int8, int32, int64, uint8
from ..tensor.names import c_name, scalar_type
from ..tensor.tensor import Tensor
from .autocast import adjust
from .autocast import switch as autocast
from .errors import argument_type
from .families import Array, OptArray, broadcast_shape, conj
from .promotion import as_scalar, cast
from .record import leaf, not_differentiable, op, publish
from .reduce import _sum
from .view import _t

__all__ = ["linear"]


def _same_dtype(name: str, *tensors: Any) -> None:
    first = tensors[0]
    for t in tensors:
        if not isinstance(t, Tensor):
            raise argument_type(name, "input", "Tensor", t)
        if t._dtype is not first._dtype and autocast.dtype is None:
            raise RuntimeError(
                "expected m1 and m2 to have the same dtype, but got: "
                f"{c_name(first._dtype)} != {c_name(t._dtype)}: {name}() takes operands of one "
                "dtype; convert one with .to()")


def _shapes_error(name: str, a: Any, b: Any) -> RuntimeError:
    n, m = a._a.shape, b._a.shape
    return RuntimeError(
        f"mat1 and mat2 shapes cannot be multiplied ({'x'.join(map(str, n))} and "
        f"{'x'.join(map(str, m))}): {name}() needs mat1.shape[-1] ({n[-1]}) equal to "
        f"mat2.shape[-2] ({m[-2] if len(m) > 1 else m[0]})")


def _mm_shape(a: Any, b: Any, *_: Any) -> Any:
    return (*a.shape[:-1], b.shape[-1]), a.dtype


@leaf({"input": lambda g, mat2: mm(g, conj(mat2).t()),
       "mat2": lambda g, input: mm(conj(input).t(), g)}, name="mm", shape=_mm_shape)
def _mm(input: Array, mat2: Array) -> Array:
    return _product(input, mat2)


def _check_matrices(name: str, a: Tensor, b: Tensor, labels: tuple[str, str]) -> None:
    _same_dtype(name, a, b)
    for label, t in zip(labels, (a, b), strict=True):
        if t._a.ndim != 2:
            raise RuntimeError(f"{label} must be a matrix, got {t._a.ndim}-D tensor: {name}() "
                               f"received shape {list(t._a.shape)}")
    if a._a.shape[1] != b._a.shape[0]:
        raise _shapes_error(name, a, b)


@op(out=True)
def mm(input: Tensor, mat2: Tensor, *, out_dtype: Any = None) -> Tensor:
    """The product of two matrices; `out_dtype` keeps the precision of its accumulation."""
    if out_dtype is not None:
        return mm(cast(input, out_dtype), cast(mat2, out_dtype))
    _check_matrices("mm", input, mat2, ("self", "mat2"))
    return _mm(input, mat2)


@leaf({"input": lambda g, mat2: bmm(g, conj(mat2).transpose(1, 2)),
       "mat2": lambda g, input: bmm(conj(input).transpose(1, 2), g)}, name="bmm",
      shape=_mm_shape)
def _bmm(input: Array, mat2: Array) -> Array:
    return _product(input, mat2)


_MANY = 1 << 12  # elements of a product of integers worth a look at them


def _product(a: Array, b: Array) -> Array:
    """NumPy's product; of integers in float64, where every sum is exact there: much quicker."""
    if a.dtype.kind not in "iu" or min(a.size, b.size) < _MANY or not _is_exact(a, b):
        return np.matmul(a, b)
    wide = np.matmul(a.astype(np.float64), b.astype(np.float64))
    return wide.astype(np.int64).astype(a.dtype)


def _is_exact(a: Array, b: Array) -> bool:
    """Whether float64 holds all sums of a product of integers."""
    largest = [max(abs(int(x.min())), abs(int(x.max()))) for x in (a, b)]
    return a.shape[-1] * largest[0] * largest[1] < 1 << 53


@leaf(not_differentiable("its results are integers"), name="_int_mm",
      shape=lambda a, b: ((a.shape[0], b.shape[1]), np.dtype(np.int32)))
def _int_product(input: Array, mat2: Array) -> Array:
    return _product(input.astype(np.int32), mat2.astype(np.int32))


def _int_mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The product of an int8 or uint8 matrix and an int8 matrix, summed in int32.

    RuntimeError where dtypes or shapes do not fit. `out`: contiguous, int32.

    >>> import lampion as torch
    >>> torch._int_mm(torch.tensor([[100, 100]], dtype=torch.int8),
    ...               torch.tensor([[100], [-3]], dtype=torch.int8))
    tensor([[9700]], dtype=torch.int32)
    """
    for argument, t in (("input", input), ("mat2", mat2)):
        if not isinstance(t, Tensor):
            raise argument_type("_int_mm", argument, "Tensor", t)
    _check_bytes(input, mat2)
    if out is None:
        return _int_product(input, mat2)
    _check_int_out(out, (input._a.shape[0], mat2._a.shape[1]))
    return out.copy_(_int_product(input, mat2))


publish("torch", "_int_mm", _int_mm)


def _check_bytes(a: Tensor, b: Tensor) -> None:
    for name, t in (("self", a), ("mat2", b)):
        if t._a.ndim != 2:
            raise RuntimeError(f"int_mm_out_cpu: Expected {name} to be of dimension 2 but got "
                               f"{t._a.ndim}")
    if a._a.shape[1] != b._a.shape[0]:
        raise RuntimeError("int_mm_out_cpu: self.size(1) needs to match mat2.size(0) but got "
                           f"{a._a.shape[1]} and {b._a.shape[0]}")
    if a._dtype not in (int8, uint8):
        raise RuntimeError("int_mm_out_cpu: Expected self dtype to be int8 or uint8 but got "
                           f"{c_name(a._dtype)}")
    if b._dtype is not int8:
        raise RuntimeError("int_mm_out_cpu: Expected mat2 dtype to be of type int8 but got "
                           f"{c_name(b._dtype)}")


def _check_int_out(out: Tensor, shape: tuple[int, int]) -> None:
    if out._dtype is not int32:
        name = "long int" if out._dtype is int64 else c_name(out._dtype)
        raise RuntimeError("int_mm_out_cpu: Expected result dtype to be of type kInt but got "
                           f"{name}")
    for d, (size, wanted) in enumerate(zip(out._a.shape, shape, strict=False)):
        if size != wanted:
            raise RuntimeError(f"int_mm_out_cpu: Expected result.size({d}) to be {wanted} but got "
                               f"{size}")
    if out._a.ndim != 2:
        raise RuntimeError("int_mm_out_cpu: Expected result to be of dimension 2 but got "
                           f"{out._a.ndim}")
    if not out.is_contiguous():
        raise RuntimeError("int_mm_out_cpu: Expected result to be contiguous.")


@op(out=True)
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of two batches of matrices: (B, N, M) x (B, M, P)."""
    _same_dtype("bmm", input, mat2)
    a, b = input._a.shape, mat2._a.shape
    if len(a) != 3 or len(b) != 3:
        raise RuntimeError(f"batch1 and batch2 must be 3D tensors: bmm() received shapes {list(a)} "
                           f"and {list(b)}")
    if a[0] != b[0] or a[2] != b[1]:
        raise RuntimeError(
            f"Expected size for first two dimensions of batch2 tensor to be: [{a[0]}, {a[2]}] but "
            f"got: [{b[0]}, {b[1]}]. bmm() received shapes {list(a)} and {list(b)}; the batch "
            "sizes must agree, and the columns of the first with the rows of the second.")
    return _bmm(input, mat2)


def _scaled(g: Any, by: Any) -> Any:
    return g if by == 1 else g * (by.conjugate() if isinstance(by, complex) else by)


@leaf({"input": lambda g, beta: _scaled(g, beta),
       "mat1": lambda g, mat2, alpha: _scaled(mm(g, conj(mat2).t()), alpha),
       "mat2": lambda g, mat1, alpha: _scaled(mm(conj(mat1).t(), g), alpha)},
      name="addmm", shape=lambda i, a, b, *_: (a.shape[:1] + b.shape[1:], a.dtype),
      broadcasts=True)
def _addmm(input: Array, mat1: Array, mat2: Array, beta: Any, alpha: Any) -> Array:
    return _plus(input, np.matmul(mat1, mat2), beta, alpha)


def _plus(input: Array, product: Array, beta: Any, alpha: Any) -> Array:
    """`beta * input + alpha * product`; with beta 0 the input is ignored, even NaN."""
    if alpha != 1:
        product = product * alpha
    if beta == 0:
        return product
    shape = np.broadcast_shapes(np.shape(input), product.shape)
    term = input if beta == 1 else input * beta
    if shape == product.shape and product.flags.writeable:
        product += term
        return product
    return product + term


def _add_product(name: str, product_leaf: Any, input: Tensor, a: Tensor, b: Tensor, beta: Any,
                 alpha: Any, shape: tuple[int, ...]) -> Tensor:
    _same_dtype(name, a, b, input)
    if broadcast_shape(name, input._a.shape, shape) != shape:
        raise RuntimeError(f"The expanded size of the tensor ({list(shape)}) must match the "
                           f"existing size ({list(input._a.shape)}): {name}() adds its input to a "
                           "product of that shape")
    d = a._dtype
    return product_leaf(input, a, b, as_scalar(beta, d, name),
                        as_scalar(alpha, d, name))


@op(inplace=True, out=True)
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`beta * input + alpha * (mat1 @ mat2)`."""
    _check_matrices("addmm", mat1, mat2, ("mat1", "mat2"))
    shape = (mat1._a.shape[0], mat2._a.shape[1])
    return _add_product("addmm", _addmm, input, mat1, mat2, beta, alpha, shape)


@leaf({"input": lambda g, beta: _scaled(g, beta),
       "batch1": lambda g, batch2, alpha: _scaled(bmm(g, conj(batch2).transpose(1, 2)), alpha),
       "batch2": lambda g, batch1, alpha: _scaled(bmm(conj(batch1).transpose(1, 2), g), alpha)},
      name="baddbmm", broadcasts=True,
      shape=lambda i, a, b, *_: ((*a.shape[:2], b.shape[2]), a.dtype))
def _baddbmm(input: Array, batch1: Array, batch2: Array, beta: Any, alpha: Any) -> Array:
    return _plus(input, np.matmul(batch1, batch2), beta, alpha)


def _check_batches(name: str, a: Tensor, b: Tensor) -> tuple[int, ...]:
    n, m = a._a.shape, b._a.shape
    if len(n) != 3 or len(m) != 3 or n[0] != m[0] or n[2] != m[1]:
        raise RuntimeError(f"{name}(): batch1 and batch2 must be 3D tensors of shapes (B, N, M) and"
                           f" (B, M, P); received {list(n)} and {list(m)}")
    return (n[0], n[1], m[2])


@op(inplace=True, out=True)
def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1,
            alpha: Any = 1) -> Tensor:
    """`beta * input + alpha * (batch1 @ batch2)`."""
    shape = _check_batches("baddbmm", batch1, batch2)
    return _add_product("baddbmm", _baddbmm, input, batch1, batch2, beta, alpha, shape)


@op(inplace=True, out=True)
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1,
           alpha: Any = 1) -> Tensor:
    """`beta * input + alpha *` the sum of the batch's products."""
    _check_batches("addbmm", batch1, batch2)
    products = bmm(batch1, batch2)
    total = products.sum(0, dtype=products._dtype)
    return (beta * input if beta else 0 * total) + alpha * total


@op(inplace=True, out=True)
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`beta * input + alpha * (mat @ vec)`."""
    product = mv(mat, vec) * alpha
    return product if beta == 0 else beta * input + product


@op(inplace=True, out=True)
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """`beta * input + alpha *` the outer product."""
    product = outer(vec1, vec2) * alpha
    return product if beta == 0 else beta * input + product


@leaf({"input": lambda g, vec: outer(g, conj(vec)),
       "vec": lambda g, input: mv(conj(input).t(), g)}, name="mv",
      shape=lambda a, b: (a.shape[:1], a.dtype))
def _mv(input: Array, vec: Array) -> Array:
    return np.matmul(input, vec)


@op(out=True)
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector."""
    _same_dtype("mv", input, vec)
    if input._a.ndim != 2 or vec._a.ndim != 1:
        raise RuntimeError("vector + matrix @ vector expected, got "
                           f"{vec._a.ndim}, {input._a.ndim}, {vec._a.ndim}")
    if input._a.shape[1] != vec._a.shape[0]:
        raise RuntimeError(f"size mismatch, got input ({input._a.shape[0]}), mat "
                           f"({input._a.shape[0]}x{input._a.shape[1]}), vec ({vec._a.shape[0]})")
    return _mv(input, vec)


@leaf({"input": lambda g, other: g * conj(other), "other": lambda g, input: g * conj(input)},
      name="dot", shape=lambda a, b: ((), a.dtype))
def _dot(input: Array, other: Array) -> Array:
    return np.dot(input, other)


@op(out=True)
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The inner product of two vectors (no conjugation)."""
    if input._a.ndim != 1 or tensor._a.ndim != 1:
        raise RuntimeError(f"1D tensors expected, but got {input._a.ndim}D and {tensor._a.ndim}D "
                           "tensors")
    if input._dtype is not tensor._dtype:
        raise RuntimeError("dot : expected both vectors to have same dtype, but found "
                           f"{input._dtype.name} and {tensor._dtype.name}")
    if input._a.shape != tensor._a.shape:
        raise RuntimeError("inconsistent tensor size, expected tensor "
                           f"{list(input._a.shape)} and src {list(tensor._a.shape)} to have the "
                           "same number of elements")
    return _dot(input, tensor)


@op(out=True)
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The inner product with the first vector conjugated."""
    return dot(conj(input), other)


@op(out=True, aliases="ger")
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The outer product of two vectors."""
    if input._a.ndim != 1 or vec2._a.ndim != 1:
        raise RuntimeError(f"outer: Expected 1-D argument, but got {input._a.ndim}-D and "
                           f"{vec2._a.ndim}-D")
    return input.reshape(-1, 1) * vec2


@op(out=True)
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products along the last dimensions of both."""
    if input._a.ndim == 0 or other._a.ndim == 0:
        return input * other
    if input._a.shape[-1] != other._a.shape[-1]:
        raise RuntimeError("inner() the last dimension must match on both input tensors but got "
                           f"shapes {list(input._a.shape)} and {list(other._a.shape)}")
    return tensordot(input, other, ([-1], [-1]))


# --- matmul ---------------------------------------------------------------------------------------


@op("torch Tensor linalg", out=True)
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product, broadcast over leading dimensions; vectors as rows or columns.

    >>> import lampion as torch
    >>> torch.matmul(torch.ones(2, 3), torch.ones(3))
    tensor([3., 3.])
    """
    if not isinstance(other, Tensor) or not isinstance(input, Tensor):
        raise argument_type("matmul", "other", "Tensor",
                            other if isinstance(input, Tensor) else input)
    n, m = input._a.ndim, other._a.ndim
    if n == 0 or m == 0:
        raise RuntimeError("both arguments to matmul need to be at least 1D, but they are "
                           f"{n}D and {m}D")
    if m == 1 and n < 3 and autocast.dtype is not None:
        input, other = adjust("matmul", (input, other))
    if n == 1 and m == 1:
        return dot(input, other)
    if n == 2 and m == 1:
        return mv(input, other)
    if n == 2 and m == 2:
        return mm(input, other)
    if n == 1 and m == 2:
        return mm(input.unsqueeze(0), other).squeeze(0)
    return _batched(input, other)


def _batched(a: Tensor, b: Tensor) -> Tensor:
    """Products over leading dimensions: folded into one matrix product, or a batch of them."""
    _same_dtype("matmul", a, b)
    n, m = a._a.shape, b._a.shape
    if n[-1] != (m[-2] if len(m) > 1 else m[0]):
        raise _shapes_error("matmul", a, b)
    if len(m) <= 2 and len(n) > 2:
        flat = a.reshape(math.prod(n[:-1]), n[-1])
        product = mm(flat, b) if len(m) == 2 else mv(flat, b)
        return product.reshape((*n[:-1], *m[1:]))
    left = a.unsqueeze(0) if len(n) == 1 else a
    right = b.unsqueeze(-1) if len(m) == 1 else b
    lead = broadcast_shape("matmul", left._a.shape[:-2], right._a.shape[:-2])
    count = math.prod(lead)
    parts = [(t if t._a.shape[:-2] == lead else t.expand((*lead, *t._a.shape[-2:]))).reshape(
        (count, *t._a.shape[-2:])) for t in (left, right)]
    product = bmm(*parts).reshape((*lead, left._a.shape[-2], right._a.shape[-1]))
    if len(n) == 1:
        product = product.squeeze(-2)
    return product.squeeze(-1) if len(m) == 1 else product


# --- linear ---------------------------------------------------------------------------------------


def _linear_shape(x: Any, w: Any, b: Any) -> Any:
    return (*x.shape[:-1], w.shape[0]), x.dtype


def _linear_input_grad(g: Tensor, weight: Tensor) -> Tensor:
    product = _mm(_g2(g), conj(weight))
    return product if g._a.ndim == 2 else product.reshape((*g._a.shape[:-1], weight._a.shape[1]))


def _linear_node(tensors: Any, attrs: Any) -> str:
    """PyTorch makes several operators of this one; the node is named after the last of them."""
    input, _, bias = tensors
    n = input._a.ndim
    if n == 2:
        return "MmBackward0" if bias is None else "AddmmBackward0"
    if bias is None:
        return "UnsafeViewBackward0" if n > 2 else "SqueezeBackward4"
    return "ViewBackward0" if input.is_contiguous() else "AddBackward0"


@leaf({"input": _linear_input_grad,
       "weight": lambda g, input: _mm(_t(_g2(g)), conj(_g2(input))),
       "bias": lambda g: _sum(_g2(g), (0,), False)}, name="linear", shape=_linear_shape,
      node=_linear_node)
def _linear(input: Array, weight: Array, bias: OptArray) -> Array:
    out = np.matmul(input, weight.T)
    if bias is not None:
        out += bias
    return out


def _g2(t: Tensor) -> Tensor:
    """All leading dimensions made one."""
    shape = t._a.shape
    return t if len(shape) == 2 else t.reshape((math.prod(shape[:-1]), shape[-1]))


@op("F")
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`input @ weight.T + bias`: (*, in) with weight (out, in) and bias (out)."""
    try:
        x, w = input._a.shape, weight._a.shape
        d = input._dtype
        if len(w) == 2 and x and x[-1] == w[1] and weight._dtype is d and (
                bias is None or (bias._dtype is d and bias._a.shape == (w[0],))):
            return _linear(input, weight, bias)
    except AttributeError:
        pass
    return _linear_general(input, weight, bias)


def _linear_general(input: Any, weight: Any, bias: Any) -> Tensor:
    for argument, t in (("input", input), ("weight", weight)):
        if not isinstance(t, Tensor):
            raise argument_type("linear", argument, "Tensor", t)
    for other in (weight, bias):
        if other is not None and other._dtype is not input._dtype and autocast.dtype is None:
            raise RuntimeError(
                "mat1 and mat2 must have the same dtype, but got "
                f"{scalar_type(input._dtype)} and {scalar_type(other._dtype)}: linear() received "
                f"an input of {input._dtype} and a "
                f"parameter of {other._dtype}; convert one with .to()")
    x, w = input._a.shape, weight._a.shape
    if len(w) not in (1, 2) or not x or x[-1] != w[-1]:
        rows = 1
        for n in x[:-1]:
            rows *= n
        raise RuntimeError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{x[-1] if x else 1} and "
            f"{w[-1]}x{w[0]}): linear() received an input of shape {list(x)} and a weight of shape "
            f"{list(w)}; the input's last dimension must be {w[-1]}")
    if len(w) == 1:
        out = matmul(input, weight)
        return out if bias is None else out + bias
    if bias is not None and bias._a.shape != (w[0],):
        return matmul(input, weight.t()) + bias
    return _linear(input, weight, bias)


@op("F")
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    """`x1 @ W[k] @ x2` for every k: weight (out, in1, in2)."""
    for x, axis in ((input1, 1), (input2, 2)):
        if x._a.shape[-1] != weight._a.shape[axis]:
            raise RuntimeError(f"bilinear(): input{axis} size does not match weight size: got "
                               f"{x._a.shape[-1]} but expected {weight._a.shape[axis]}")
    lead = input1._a.shape[:-1]
    x1, x2 = _g2(input1), _g2(input2)
    out = einsum("bi,kij,bj->bk", x1, weight, x2).reshape((*lead, weight._a.shape[0]))
    return out if bias is None else out + bias


# --- einsum and friends ---------------------------------------------------------------------------


@op("torch", out=True)
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Sums of products over pairs of dimensions."""
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        left, right = list(range(a._a.ndim - dims, a._a.ndim)), list(range(dims))
    else:
        left, right = ([d] if isinstance(d, int) else list(d) for d in dims)
    n, m = a._a.ndim, b._a.ndim
    left, right = [d % n for d in left], [d % m for d in right]
    for d, e in zip(left, right, strict=True):
        if a._a.shape[d] == 1 or b._a.shape[e] == 1:
            # Sizes of 1 are summed over the other side, as in PyTorch.
            a = a.sum(d, keepdim=True, dtype=a._dtype) if b._a.shape[e] == 1 else a
            b = b.sum(e, keepdim=True, dtype=b._dtype) if a._a.shape[d] == 1 else b
        if a._a.shape[d] != b._a.shape[e]:
            raise RuntimeError(f"contracted dimensions need to match, but first has size "
                               f"{a._a.shape[d]} in dim {d} and second has size {b._a.shape[e]} in "
                               f"dim {e}")
    keep_a = [d for d in range(n) if d not in left]
    keep_b = [d for d in range(m) if d not in right]
    count = 1
    for d in left:
        count *= a._a.shape[d]
    rows = a.permute(keep_a + left).reshape((-1 if count else _prod(a, keep_a), count))
    columns = b.permute(right + keep_b).reshape((count, -1 if count else _prod(b, keep_b)))
    shape = [a._a.shape[d] for d in keep_a] + [b._a.shape[d] for d in keep_b]
    return mm(rows, columns).reshape(shape)


def _prod(t: Tensor, dims: Any) -> int:
    count = 1
    for d in dims:
        count *= t._a.shape[d]
    return count


@op("torch")
def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sums of products described by subscripts, such as "bij,bjk->bik".

    >>> import lampion as torch
    >>> torch.einsum("ij->ji", torch.tensor([[1, 2], [3, 4]]))
    tensor([[1, 3],
            [2, 4]])
    """
    if not isinstance(equation, str):
        equation, operands = _from_sublists((equation, *operands))
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not operands:
        raise ValueError("einsum(): must provide at least one operand")
    inputs, output, ellipsis = _parse_einsum(equation, operands)
    terms = [(_diagonalised(t, labels)) for t, labels in zip(operands, inputs, strict=True)]
    return _contract(terms, output, ellipsis)


def _from_sublists(args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
    """The form einsum(op1, [0, 1], op2, [1, 2], [0, 2])."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

    def text(labels: Any) -> str:
        return "".join("..." if x is Ellipsis else letters[x] for x in labels)
    operands = args[0:len(args) - len(args) % 2:2]
    equation = ",".join(text(x) for x in args[1::2])
    return (equation + "->" + text(args[-1]) if len(args) % 2 else equation), operands


def _parse_einsum(equation: str, operands: Any) -> tuple[list[list[str]], list[str], int]:
    """Labels of every operand and of the output; an ellipsis becomes labels "0", "1", ..."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(operands):
        more = "fewer" if len(parts) > len(operands) else "more"
        raise RuntimeError(f"einsum(): {more} operands were provided than specified in the "
                           f"equation: {len(operands)} operands for '{equation}'")
    widths = [t._a.ndim - len(p.replace("...", "")) if "..." in p else 0
              for p, t in zip(parts, operands, strict=True)]
    width = max(widths, default=0)
    inputs = []
    for i, (part, t) in enumerate(zip(parts, operands, strict=True)):
        labels = _labels(part, widths[i], width)
        if len(labels) != t._a.ndim or widths[i] < 0:
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({len(labels)}) does not match"
                f" the number of dimensions ({t._a.ndim}) for operand {i} and no ellipsis was "
                f"given: '{part}' for shape {list(t._a.shape)}")
        inputs.append(labels)
    if arrow:
        output = _labels(right, width, width)
    else:
        flat = [x for labels in inputs for x in labels]
        output = [str(k) for k in range(width)] + sorted(
            x for x in set(flat) if not x.isdigit() and flat.count(x) == 1)
    for x in output:
        if output.count(x) > 1 or not any(x in labels for labels in inputs):
            why = ("appears more than once in the output" if output.count(x) > 1 else
                   "does not appear in the equation for any input operand")
            raise RuntimeError(f"einsum(): output subscript {x} {why}")
    return inputs, output, width


def _labels(part: str, here: int, width: int) -> list[str]:
    dots = [str(k) for k in range(width - here, width)]
    before, ellipsis, after = part.partition("...")
    labels = [*before, *(dots if ellipsis else ()), *after]
    for x in [*before, *after]:
        if not x.isalpha():
            raise RuntimeError(f"einsum(): invalid subscript given: '{x}', subscripts must be in "
                               "[a-zA-Z]")
    return labels


def _diagonalised(t: Tensor, labels: list[str]) -> tuple[Tensor, list[str]]:
    """Repeated labels of one operand mean its diagonal."""
    labels = list(labels)
    for x in set(labels):
        while labels.count(x) > 1:
            i = labels.index(x)
            j = labels.index(x, i + 1)
            if t._a.shape[i] != t._a.shape[j]:
                raise RuntimeError(f"einsum(): subscript {x} is repeated for operand but the sizes "
                                   f"don't match, {t._a.shape[j]} != {t._a.shape[i]}")
            t = t.diagonal(0, i, j)
            labels = [y for k, y in enumerate(labels) if k not in (i, j)] + [x]
    return t, labels


def _sizes(terms: list[tuple[Tensor, list[str]]]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for t, labels in terms:
        for x, n in zip(labels, t._a.shape, strict=True):
            if sizes.get(x, 1) not in (1, n) and n != 1:
                raise RuntimeError(f"einsum(): operands do not broadcast with remapped shapes: "
                                   f"subscript {x} has sizes {sizes[x]} and {n}")
            sizes[x] = max(sizes.get(x, 1), n) if n else 0
    return sizes


def _contract(terms: list[tuple[Tensor, list[str]]], output: list[str], width: int) -> Tensor:
    """Pairs from the left, each one batched matrix product."""
    _sizes(terms)
    terms = list(terms)
    t, labels = terms.pop(0)
    t, labels = _sum_out(t, labels, output, terms)
    while terms:
        u, others = terms.pop(0)
        u, others = _sum_out(u, others, output, [(t, labels), *terms])
        t, labels = _pair(t, labels, u, others, output, terms)
    return t.permute([labels.index(x) for x in output]) if labels != output else t


def _sum_out(t: Tensor, labels: list[str], output: list[str], rest: Any) -> tuple[Any, list[str]]:
    """Sums over labels that nobody else needs."""
    needed = set(output).union(*(set(other) for _, other in rest))
    drop = [i for i, x in enumerate(labels) if x not in needed]
    return (t.sum(drop), [x for x in labels if x in needed]) if drop else (t, labels)


def _pair(t: Tensor, a: list[str], u: Tensor, b: list[str], output: list[str],
          rest: Any) -> tuple[Any, list[str]]:
    needed = set(output).union(*(set(other) for _, other in rest))
    sizes_t, sizes_u = dict(zip(a, t._a.shape, strict=True)), dict(zip(b, u._a.shape, strict=True))
    both = [x for x in a if x in b]
    # A size of 1 that broadcasts is no contraction: it is dropped from its side.
    for x in list(both):
        if sizes_t[x] != sizes_u[x]:
            both.remove(x)
            if sizes_t[x] == 1:
                t, a = t.squeeze(a.index(x)), [y for y in a if y != x]
            else:
                u, b = u.squeeze(b.index(x)), [y for y in b if y != x]
    batch = [x for x in both if x in needed]
    contracted = [x for x in both if x not in needed]
    left, right = [x for x in a if x not in both], [x for x in b if x not in both]
    shape = dict(zip(a, t._a.shape, strict=True)) | dict(zip(b, u._a.shape, strict=True))

    def count(names: list[str]) -> int:
        total = 1
        for x in names:
            total *= shape[x]
        return total
    x1 = t.permute([a.index(x) for x in batch + left + contracted]).reshape(
        (count(batch), count(left), count(contracted)))
    x2 = u.permute([b.index(x) for x in batch + contracted + right]).reshape(
        (count(batch), count(contracted), count(right)))
    product = bmm(x1, x2) if batch else mm(x1.squeeze(0), x2.squeeze(0))
    labels = batch + left + right
    return product.reshape([shape[x] for x in labels]), labels


@op("linalg", out=True)
def multi_dot(tensors: Any) -> Tensor:
    """The product of several matrices (from the left)."""
    listed = list(tensors)
    if len(listed) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(listed)}")
    product = listed[0]
    for t in listed[1:]:
        product = matmul(product, t)
    return product


@op("torch")
def chain_matmul(*matrices: Any) -> Tensor:
    """The product of several matrices."""
    return matrices[0] if len(matrices) == 1 else multi_dot(matrices)


@op(out=True)
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product."""
    n = builtins.max(input._a.ndim, other._a.ndim)
    a = (1,) * (n - input._a.ndim) + input._a.shape
    b = (1,) * (n - other._a.ndim) + other._a.shape
    left = input.reshape([x for m in a for x in (m, 1)])
    right = other.reshape([x for m in b for x in (1, m)])
    return (left * right).reshape([x * y for x, y in zip(a, b, strict=True)])




def _euclidean_grad(g: Any, needs: Any, x1: Tensor, x2: Tensor, out: Tensor) -> Any:
    """Sums of (x1 - x2) * ratio, as matrix products."""
    ratio = (g / out).masked_fill(out == 0, 0)
    first = second = None
    if needs[0]:
        first = x1 * ratio.sum(-1, keepdim=True) - matmul(ratio, x2)
    if needs[1]:
        second = x2 * ratio.sum(-2).unsqueeze(-1) - matmul(ratio.mT, x1)
    return first, second


@leaf(_euclidean_grad, name="euclidean_dist",
      shape=lambda x1, x2: ((*x1.shape[:-1], x2.shape[-2]), x1.dtype))
def _euclidean(x1: Array, x2: Array) -> Array:
    """Distances of the rows of two matrices, which have one batch."""
    apart = np.expand_dims(x1, x1.ndim - 1) - np.expand_dims(x2, x2.ndim - 2)
    return np.sqrt((apart * apart).sum(-1))


_FEW_ROWS = 25  # up to as many, differences are kept: their gradients lose nothing
_PRODUCTS = {"use_mm_for_euclid_dist": 0, "use_mm_for_euclid_dist_if_necessary": _FEW_ROWS}


def _by_products(x1: Tensor, x2: Tensor, mode: str) -> bool:
    """Whether the gradients of Euclidean distances are matrix products, as PyTorch decides it."""
    few = _PRODUCTS.get(mode)
    return (few is not None and builtins.max(x1._a.shape[-2], x2._a.shape[-2]) > few
            and x1._dtype is x2._dtype and x1._dtype.name in ("float32", "float64"))


@op("torch")
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0,
          compute_mode: str = "use_mm_for_euclid_dist_if_necessary") -> Tensor:
    """Distances between all rows of x1 (..., P, M) and x2 (..., R, M), in the p-norm."""
    if x1._a.shape[-1] != x2._a.shape[-1]:
        raise RuntimeError("X1 and X2 must have the same number of columns. X1: "
                           f"{x1._a.shape[-1]} X2: {x2._a.shape[-1]}")
    if p < 0:
        raise RuntimeError(f"cdist only supports non-negative p values, received {p}")
    from .reduce import _vector_norm

    if p == 2 and _by_products(x1, x2, compute_mode):
        lead = np.broadcast_shapes(x1._a.shape[:-2], x2._a.shape[:-2])
        return _euclidean(*(t.expand(*lead, *t._a.shape[-2:]) for t in (x1, x2)))
    difference = x1.unsqueeze(-2) - x2.unsqueeze(-3)
    return _vector_norm(difference, float(p), (difference._a.ndim - 1,), False)


