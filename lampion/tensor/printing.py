"""Tensors as text, character for character as PyTorch prints them, and as HTML for notebooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from .dtype import bool_, complex64, complex128, float64, get_default_dtype, int64
from .tensor import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["format_array", "get_printoptions", "printoptions", "set_printoptions", "tensor_html",
           "tensor_text"]  # fmt: skip

Formatter = Callable[[Any], str]  # of one element


class _Options:
    """The current print options."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES: dict[str, dict[str, float]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how tensors print: digits, when and how to abridge, line width, scientific notation.

    ``profile`` is "default", "short" or "full"; the other arguments override it. ``sci_mode``
    returns to automatic when it is not given.

    >>> import lampion as torch
    >>> torch.set_printoptions(precision=2)
    >>> torch.tensor([1.12345])
    tensor([1.12])
    >>> torch.set_printoptions(profile="default")
    """
    chosen: dict[str, Any] = dict(_PROFILES.get(profile, {})) if profile is not None else {}
    given = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    chosen.update((name, value) for name, value in given.items() if value is not None)
    for name, value in chosen.items():
        setattr(_Options, name, value)
    _Options.sci_mode = sci_mode


def get_printoptions() -> dict[str, Any]:
    """The current options, as keyword arguments of :func:`set_printoptions`."""
    names = ("precision", "threshold", "edgeitems", "linewidth", "sci_mode")
    return {name: getattr(_Options, name) for name in names}


@contextmanager
def printoptions(**options: Any) -> Iterator[None]:
    """Set print options within a ``with`` block.

    >>> import lampion as torch
    >>> from lampion.tensor import printoptions
    >>> with printoptions(precision=1):
    ...     print(torch.tensor([0.25]))
    tensor([0.2])
    """
    before = get_printoptions()
    set_printoptions(**options)
    try:
        yield
    finally:
        set_printoptions(**before)


# --- elements -------------------------------------------------------------------------------------


def _formatter(values: Array) -> tuple[Formatter, int]:
    """How to write one element so that it lines up with ``values``, and the width of that."""
    if values.dtype.kind != "f":
        width = max(map(len, map(str, values.ravel().tolist())), default=1)
        return (lambda value: str(value).rjust(width)), width
    return _float_formatter(values.astype(np.float64).ravel())


def _float_formatter(values: Array) -> tuple[Formatter, int]:
    values = values[np.isfinite(values) & (values != 0)]
    if values.size == 0:
        return _whole(1), 1
    spec = f".{_Options.precision}{'e' if _is_scientific(values) else 'f'}"
    whole = spec[-1] == "f" and bool((values == np.ceil(values)).all())
    if whole:
        spec = ".0f"
    width = max(len(format(value, spec)) for value in values.tolist()) + whole
    if whole:
        return _whole(width), width
    return (lambda value: format(value, spec).rjust(width)), width


def _whole(width: int) -> Formatter:
    """Floats without a fraction: a point shows that they are floats."""

    def write(value: float) -> str:
        text = format(value, ".0f")
        return (text + "." if math.isfinite(value) else text).rjust(width)

    return write


def _is_scientific(values: Array) -> bool:
    if _Options.sci_mode is not None:
        return _Options.sci_mode
    sizes = np.abs(values)
    smallest, largest = sizes.min(), sizes.max()
    with np.errstate(over="ignore"):
        return bool(largest / smallest > 1000.0 or largest > 1.0e8 or smallest < 1.0e-4)


def _element_formatter(shown: Array) -> tuple[Formatter, int]:
    """As :func:`_formatter`, for complex elements too."""
    if shown.dtype.kind != "c":
        return _formatter(shown)
    real, real_width = _formatter(shown.real)
    imag, imag_width = _formatter(shown.imag)

    def write(value: complex) -> str:
        second = imag(value.imag).lstrip() + "j"
        return real(value.real) + ("" if second[0] in "+-" else "+") + second

    return write, real_width + imag_width + 1


# --- layout ---------------------------------------------------------------------------------------


def format_array(array: Array, indent: int = 0) -> str:
    """The elements in brackets, lines broken and abridged as the options say.

    ``indent`` is the number of characters before the text in its first line.
    """
    if array.size == 0:
        return "[]"
    array = _printable(array)
    summarize = array.size > _Options.threshold
    write, width = _element_formatter(_shown(array) if summarize else array)
    return _layout(array, indent, summarize, write, width)


def _printable(array: Array) -> Array:
    """Element types that NumPy cannot compare or list, as wider ones."""
    if array.dtype.isbuiltin == 1:
        return array
    return array.astype(np.float64)


def _shown(array: Array) -> Array:
    """The elements that an abridged print shows."""
    edge = _Options.edgeitems
    if edge == 0:
        return array if array.ndim < 2 else array[:0]
    for axis, size in enumerate(array.shape):
        if size > 2 * edge:
            places = [*range(edge), *range(size - edge, size)]
            array = array.take(places, axis)
    return array


def _layout(array: Array, indent: int, summarize: bool, write: Formatter, width: int) -> str:
    if array.ndim == 0:
        return write(array.item())
    if array.ndim == 1:
        return _line(array, indent, summarize, write, width)
    rows = [
        "..." if row is None else _layout(array[row], indent + 1, summarize, write, width)
        for row in _places(len(array), summarize)
    ]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(rows) + "]"


def _places(size: int, summarize: bool) -> Sequence[int | None]:
    """Indices to show; None stands for what is left out."""
    edge = _Options.edgeitems
    if not summarize or size <= 2 * edge:
        return range(size)
    return [*range(edge), None, *range(size - edge, size)]


def _line(array: Array, indent: int, summarize: bool, write: Formatter, width: int) -> str:
    places = _places(len(array), summarize)
    if not summarize or None not in places:
        words = [write(value) for value in array.tolist()]
    elif _Options.edgeitems == 0:
        words = ["..."]
    else:
        edge = _Options.edgeitems
        ends = (array[:edge].tolist(), [None], array[-edge:].tolist())
        words = [" ..." if value is None else write(value) for value in chain(*ends)]
    per_line = max(1, math.floor((_Options.linewidth - indent) / (width + 2)))
    lines = [", ".join(words[i : i + per_line]) for i in range(0, len(words), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


# --- tensors --------------------------------------------------------------------------------------


def tensor_text(tensor: Tensor, contents: str | None = None) -> str:
    """What ``repr`` of a tensor says: elements (or ``contents``), then what is not the default."""
    kind = type(tensor)
    plain = kind is Tensor or "_prints_as_tensor" in kind.__dict__
    prefix = "tensor(" if plain else f"{kind.__name__}("
    array = tensor._a
    has_data = isinstance(array, np.ndarray)
    body = contents or (format_array(array, len(prefix)) if has_data else "...")
    return _with_suffixes(prefix + body, _suffixes(tensor, has_data), len(prefix))


def _suffixes(tensor: Tensor, has_data: bool) -> Iterator[str]:
    size = tensor._a.size
    if not tensor.is_cpu:
        yield f"device='{tensor.device}'"
    abridged = size and has_data and not _Options.edgeitems
    if not has_data or (size == 0 and tensor.ndim != 1) or abridged:
        yield f"size={tuple(tensor.shape)}"
    if _shows_dtype(tensor, exact=not has_data or size == 0):
        yield f"dtype={tensor.dtype}"
    node = tensor.grad_fn
    if node is not None:
        yield f"grad_fn=<{type(node).__name__}>"
    elif tensor.requires_grad:
        yield "requires_grad=True"


def _shows_dtype(tensor: Tensor, exact: bool) -> bool:
    """Elements tell most dtypes apart; without elements only the default goes unsaid."""
    default = get_default_dtype()
    if exact:
        return tensor.dtype is not default
    complex_default = complex128 if default is float64 else complex64
    return tensor.dtype not in (default, complex_default, int64, bool_)


def _with_suffixes(text: str, suffixes: Iterator[str], indent: int) -> str:
    """Append each suffix, on a new line where it would pass the line width."""
    # PyTorch counts the last line two characters longer than it is; so must we.
    column = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if column + len(suffix) + 2 > _Options.linewidth:
            text += ",\n" + " " * indent + suffix
            column = indent + len(suffix)
        else:
            text += ", " + suffix
            column += len(suffix) + 2
    return text + ")"


def tensor_format(tensor: Tensor, spec: str) -> str:
    """``format(tensor, spec)``: a 0-dim tensor formats as its number."""
    if type(tensor) is Tensor and tensor.ndim == 0 and isinstance(tensor._a, np.ndarray):
        return format(_printable(tensor._a).item(), spec)
    return object.__format__(tensor, spec)


def tensor_html(tensor: Tensor) -> str:
    """A table for notebooks: shape and dtype above the elements, abridged as in text."""
    from html import escape

    array = tensor._a
    facts = ["Tensor", str(tuple(tensor.shape)), str(tensor.dtype)]
    facts += [s for s in _suffixes(tensor, True) if s.startswith(("device", "grad", "requires"))]
    head = f"<small>{escape(', '.join(facts))}</small>"
    if not isinstance(array, np.ndarray) or array.size == 0:
        return f"<div>{head}</div>"
    if array.ndim > 2:
        return f"<div>{head}<pre>{escape(format_array(array))}</pre></div>"
    rows = _html_rows(_printable(np.atleast_2d(array)))
    return f'<div>{head}<table style="text-align:right">{"".join(rows)}</table></div>'


def _html_rows(array: Array) -> Iterator[str]:
    summarize = array.size > _Options.threshold
    write, _ = _element_formatter(_shown(array) if summarize else array)
    columns = _places(array.shape[1], summarize)
    for row in _places(array.shape[0], summarize):
        cells = ("…" if row is None or c is None else write(array[row, c].item()) for c in columns)
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _as_text(self: Tensor, *, tensor_contents: str | None = None) -> str:
    """The text of the tensor, for `repr` and `str`."""
    return tensor_text(self, tensor_contents)


Tensor.__repr__ = _as_text  # type: ignore[method-assign,assignment]
Tensor.__format__ = tensor_format  # type: ignore[method-assign,assignment]
Tensor._repr_html_ = tensor_html  # type: ignore[attr-defined]
