"""Beginnings of tensors whose length varies: `cache[:, :, :position + 1]`, which attention reads.

Such a part is cut as it is in the captured call, and a program would hold for its length alone.
Attention over it is the same as attention over the whole, masked behind the length; so as long as
nothing but attention looks at the part (or at it transposed), the program holds for all lengths.
Whatever else looks at it makes its length a fact.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from ..ops import arange
from ..ops.attention import scaled_dot_product_attention
from ..tensor.dtype import int64
from ..tensor.tensor import Tensor, wrap
from .pending import Pending
from .varying import Varying, as_tensor

__all__ = ["TRANSPARENT", "Prefix", "Prefixes"]

_SIGNATURE = inspect.signature(scaled_dot_product_attention)
_TURNS = frozenset(vars(Tensor)[name] for name in ("transpose", "permute"))
TRANSPARENT = frozenset(("transpose", "permute", "dtype", "device", "ndim", "requires_grad"))


class Prefix(NamedTuple):
    """The first `length` elements of `whole` along a dimension."""

    whole: Tensor
    dim: int
    length: Varying


class Prefixes:
    """Those of one capture."""

    def __init__(self, watcher: Any) -> None:
        self.watcher = watcher
        self.known: dict[int, tuple[Tensor, Prefix]] = {}  # by id of the part
        self.masks: dict[tuple[int, int], Tensor] = {}
        watcher.steps.recorder.looks = self

    def tell(self, value: Any) -> None:
        """Something looks at tensors: the length of those that are parts is a fact from now on."""
        if not self.known:
            return
        if isinstance(value, Tensor):
            if id(value) in self.known:
                self.watcher.told(self.known.pop(id(value))[1].length)
        elif isinstance(value, (tuple, list, dict)):
            for v in value.values() if isinstance(value, dict) else value:
                self.tell(v)

    def cut(self, t: Tensor, index: Any) -> Tensor | None:
        """`t[index]` where that is a beginning of varying length; None of other indices."""
        parts = index if isinstance(index, tuple) else (index,)
        found = [d for d, p in enumerate(parts) if _is_open(p)]
        if len(found) != 1 or not all(_is_whole(p) for d, p in enumerate(parts)
                                      if d != found[0]) or t.ndim < len(parts):
            return None
        stop = parts[found[0]].stop
        if not self.watcher.compare("GtE", stop, 1):
            return None
        plain = tuple(slice(None, stop.kind(stop)) if _is_open(p) else p for p in parts)
        made: Tensor = t[plain]
        self.known[id(made)] = made, Prefix(t, found[0], stop)
        return made

    def called(self, f: Any, args: Any, kwargs: Any) -> tuple[Any, ...] | None:
        """The result of a function of parts, as a tuple of one; None where it is not known here."""
        if any(isinstance(a, (Varying, Pending)) for a in (*args, *kwargs.values())):
            return None
        if isinstance(f, FunctionType) and f in _TURNS and not kwargs and id(args[0]) in self.known:
            return (self._turned(f, *args),)
        return self._attention(args, kwargs) if f is scaled_dot_product_attention else None

    def _turned(self, f: Any, t: Tensor, *dims: Any) -> Tensor:
        """A part with its dimensions in another order."""
        kept, prefix = self.known.pop(id(t))
        made, whole = f(t, *dims), f(prefix.whole, *dims)
        self.known[id(t)] = kept, prefix
        places = f(wrap(np.empty(range(1, t.ndim + 1), bool)), *dims)._a.shape
        self.known[id(made)] = made, Prefix(whole, places.index(prefix.dim + 1), prefix.length)
        return made  # type: ignore[no-any-return]

    def _attention(self, args: Any, kwargs: Any) -> tuple[Any, ...] | None:
        try:
            given = _SIGNATURE.bind(*args, **kwargs).arguments
        except TypeError:  # which the call itself will raise
            return None
        key, value = (self.known.get(id(given[n]), (None, None))[1] for n in ("key", "value"))
        if key is None or value is None or id(given["query"]) in self.known or (
                given.get("attn_mask") is not None or given.get("dropout_p", 0) != 0
                or given.get("is_causal", False)):
            return None
        size = _rows(key)
        if size is None or size != _rows(value) or not self.watcher.compare(
                "Eq", key.length, value.length):
            return None
        seen = self._seen(key.length, size)
        # What lies behind the length has no weight, but it may be no number.
        behind = ~seen[:, None]
        given.update(key=key.whole.masked_fill(behind, 0), value=value.whole.masked_fill(behind, 0),
                     attn_mask=seen[None])
        return (scaled_dot_product_attention(**given),)

    def _seen(self, length: Varying, size: int) -> Tensor:
        """Which of so many rows lie before the length."""
        if (id(length), size) not in self.masks:
            end = as_tensor(length, wrap(np.zeros((), np.int64), int64),
                            self.watcher.steps.recorder)
            self.masks[id(length), size] = arange(size) < end
        return self.masks[id(length), size]


def _rows(part: Prefix) -> int | None:
    """How many rows the whole has, if it is rows that are left out."""
    whole = part.whole
    return int(whole._a.shape[-2]) if part.dim == whole.ndim - 2 else None


def _is_open(part: Any) -> bool:
    """Whether a part of an index is `:stop` with a number that varies."""
    return isinstance(part, slice) and part.start in (None, 0) and part.step in (None, 1) and (
        isinstance(part.stop, Varying) and not isinstance(part.start, Varying))


def _is_whole(part: Any) -> bool:
    return isinstance(part, slice) and part == slice(None)
