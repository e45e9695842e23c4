"""Objects to pickles in PyTorch's dialect."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..tensor import Size, Tensor, device, dtype
from ..tensor.abstract import AbstractArray
from ..tensor.formats import _Constant
from .layout import Layout
from .storages import StorageType

__all__ = ["dump"]

_OWN = __name__.split(".", 1)[0]
_PICKLER: Any = pickle._Pickler  # type: ignore[attr-defined]  # the C one insists on importing names


class Name:
    """A global of PyTorch's, to be written by its name there."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self) -> None:
        """Never called; only callables may stand for functions in a pickle."""


_names: dict[tuple[str, str], Name] = {}


def _name(module: str, name: str) -> Name:
    """One object per global, so that the pickle refers back to the first."""
    return _names.setdefault((module, name), Name(module, name))


def _builder(name: str) -> Name:
    return _name("torch._utils", name)


def dump(obj: Any, protocol: int) -> tuple[bytes, Layout]:
    """The pickle of `obj`, and the storages that it refers to.

    The object is gone through twice: which bytes a storage needs is known only when
    all its tensors have been seen.
    """
    layout = Layout()
    _Pickler(io.BytesIO(), protocol, layout.add).dump(obj)
    layout.decide()
    out = io.BytesIO()
    _Pickler(out, protocol, None, layout).dump(obj)
    return out.getvalue(), layout


class _Pickler(_PICKLER):  # type: ignore[misc]
    def __init__(
        self, file: Any, protocol: int, see: Callable[[Tensor], None] | None,
        layout: Layout | None = None,
    ) -> None:
        super().__init__(file, protocol)
        self._see, self._layout = see, layout

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return self._tensor(obj)
        if isinstance(obj, Size):
            return _name("torch", "Size"), (tuple(obj),)
        if type(obj) is device:
            parts = (obj.type,) if obj.index is None else (obj.type, obj.index)
            return _name("torch", "device"), parts
        return NotImplemented

    def _tensor(self, t: Tensor) -> Any:
        from ..nn import Parameter

        if isinstance(t, Parameter):
            return _builder("_rebuild_parameter"), (t.detach(), t.requires_grad, OrderedDict())
        shape = tuple(t.shape)
        if type(t._a) is AbstractArray:
            facts = (t._dtype, shape, t.stride(), t.requires_grad)
            return _builder("_rebuild_meta_tensor_no_storage"), facts
        if self._see is not None:
            self._see(t)
            return _builder("_rebuild_tensor_v2"), ()
        assert self._layout is not None
        place = self._layout.find(t)
        reference = _Reference(place.kind, place.key, place.numel)
        view = (reference, place.offset, shape, place.stride)
        args: tuple[Any, ...] = (*view, t.requires_grad, OrderedDict())
        if place.kind.dtype is None:
            return _builder("_rebuild_tensor_v3"), (*args, t._dtype)
        return _builder("_rebuild_tensor_v2"), args

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, _Reference):
            kind = _name(obj.kind.module, obj.kind.name)
            return ("storage", kind, obj.key, "cpu", obj.numel)
        return None

    def save(self, obj: Any, save_persistent_id: bool = True) -> Any:
        if isinstance(obj, (Name, dtype, _Constant)):
            return self._save_name(obj)
        return super().save(obj, save_persistent_id)

    def _save_name(self, obj: Any) -> None:
        known = self.memo.get(id(obj))
        if known is not None:
            self.write(self.get(known[0]))
            return
        module = obj.module if isinstance(obj, Name) else "torch"
        self.write(pickle.GLOBAL + f"{module}\n{obj.name}\n".encode())
        self.memoize(obj)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = getattr(obj, "__module__", None) or ""
        if module.partition(".")[0] != _OWN:
            super().save_global(obj, name)
            return
        # Classes of ours go under PyTorch's names, so that either reads the other's files.
        qualified = name or obj.__qualname__
        self.write(pickle.GLOBAL + f"torch{module[len(_OWN):]}\n{qualified}\n".encode())
        self.memoize(obj)

    def save_type(self, obj: Any) -> None:
        if (getattr(obj, "__module__", None) or "").partition(".")[0] == _OWN:
            self.save_global(obj)
        else:
            super().save_type(obj)

    dispatch = dict(_PICKLER.dispatch)
    dispatch[type] = save_type


class _Reference:
    """A storage of the file, as the pickle's persistent id."""

    def __init__(self, kind: StorageType, key: str, numel: int) -> None:
        self.kind, self.key, self.numel = kind, key, numel


