"""What the names in a checkpoint may stand for."""

from __future__ import annotations

import sys
import warnings
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..debug.frames import user_stack_level
from ..tensor import Size, Tensor, device, formats
from ..tensor.dtype import DTYPES
from . import arrays, tensors
from .machine import Builder, Opaque, UnpicklingError, checked_keys
from .storages import STORAGE_TYPES

__all__ = ["SafePolicy", "add_safe_globals", "clear_safe_globals", "get_safe_globals",
           "safe_globals"]  # fmt: skip

_OWN = __name__.split(".", 1)[0]
_registered: dict[tuple[str, str], Any] = {}


def add_safe_globals(safe_globals: list[Any]) -> None:
    """Allow these classes (or functions) in files that ``torch.load`` reads.

    Members are the objects themselves, or pairs of an object and the name it has in
    the file.

    >>> import lampion as torch, pathlib
    >>> torch.serialization.add_safe_globals([pathlib.PurePosixPath])
    >>> torch.serialization.clear_safe_globals()
    """
    for entry in safe_globals:
        target, name = entry if isinstance(entry, tuple) else (entry, _full_name(entry))
        module, _, attribute = name.rpartition(".")
        _registered[module, attribute] = target


def _full_name(target: Any) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def get_safe_globals() -> list[Any]:
    """What was allowed by ``add_safe_globals``."""
    return list(_registered.values())


def clear_safe_globals() -> None:
    """Allow nothing beyond the built-in list any more."""
    _registered.clear()


@contextmanager
def safe_globals(safe_globals: list[Any]) -> Iterator[None]:
    """Allow these classes while the block runs."""
    before = dict(_registered)
    try:
        add_safe_globals(safe_globals)
        yield
    finally:
        _registered.clear()
        _registered.update(before)


class SafePolicy:
    """Values and builders from a fixed list, and classes that the program has allowed.

    With `modules` also module classes that the program has already imported; other
    unknown names become `Opaque` records instead of an error.
    """

    def __init__(self, storage: Callable[[Any], Any], *, modules: bool) -> None:
        self._storage = storage
        self._modules = modules
        self.unknown: list[str] = []

    def persistent(self, pid: Any) -> Any:
        """The storage that `pid` stands for."""
        return self._storage(pid)

    def find(self, module: str, name: str) -> Any:
        """The value, builder or class for a name."""
        known = _known().get((module, name))
        if known is None:
            known = _registered.get((module, name), _registered.get((_own_name(module), name)))
        if known is None and self._modules:
            known = _imported_module_class(module, name)
        if known is not None:
            return known
        full = f"{module}.{name}"
        if not self._modules:
            raise UnpicklingError(_refusal(full))
        if full not in self.unknown:
            self.unknown.append(full)
        return Opaque(full)

    def create(self, cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A new instance of `cls`, without its constructor where it is a module."""
        if isinstance(cls, Opaque):
            return Opaque(cls.name, args)
        if cls is OrderedDict and not args:
            return OrderedDict()
        if cls in _registered.values():
            return cls.__new__(cls, *args, **kwargs) if isinstance(cls, type) else cls(*args)
        if isinstance(cls, type) and issubclass(cls, _module_class()) and not args:
            return cls.__new__(cls)
        raise UnpicklingError(f"the pickle makes an instance of {cls!r}, which is not allowed")

    def set_state(self, instance: Any, state: Any) -> None:
        """Give `instance` the state that the file has for it."""
        if isinstance(instance, Opaque):
            instance.state = state
        elif arrays.is_buildable(instance):
            arrays.set_state(instance, state)
        elif type(instance) is OrderedDict:
            instance.__dict__.update(_attributes(state))
        elif type(instance) in _registered.values() or isinstance(instance, _module_class()):
            _restore(instance, state)
        else:
            raise UnpicklingError(
                f"the pickle sets the state of a {type(instance).__name__}, which is not allowed"
            )

    def warn(self) -> None:
        """Say which names became records."""
        if self.unknown:
            names = ", ".join(self.unknown)
            warnings.warn(
                f"torch.load: lampion runs no code from files; these names became inert records: "
                f"{names}. Allow classes with torch.serialization.add_safe_globals([...])",
                UserWarning,
                stacklevel=user_stack_level(),
            )


def _refusal(full: str) -> str:
    return (
        f"Weights only load failed. Unsupported global: GLOBAL {full} was not an allowed global "
        "by default. If you trust the class, allow it with "
        f"`torch.serialization.add_safe_globals([{full.rpartition('.')[2]}])` or the "
        "`torch.serialization.safe_globals` context manager. Nothing from the file was run."
    )


def _attributes(state: Any) -> dict[str, Any]:
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise UnpicklingError("the pickle has a state that is no dict of names")
    return state


def _restore(instance: Any, state: Any) -> None:
    """Let the instance's own class take the state; by default, as attributes."""
    own = getattr(type(instance), "__setstate__", None)
    if own is not None:
        own(instance, state)
        return
    if isinstance(state, tuple) and len(state) == 2:
        plain, slots = state
        for name, value in _attributes(slots or {}).items():
            object.__setattr__(instance, name, value)
        state = plain or {}
    instance.__dict__.update(_attributes(state))


def _own_name(module: str) -> str:
    """Where a module of PyTorch's lives here."""
    head, dot, rest = module.partition(".")
    return _OWN + dot + rest if head == "torch" else module


def _module_class() -> type:
    from ..nn import Module

    return Module


def _parameter_class() -> type:
    from ..nn import Parameter

    return Parameter


def _imported_module_class(module: str, name: str) -> Any:
    """A module class of lampion, or of a Python module that is already imported."""
    own = _own_name(module)
    if own.startswith(f"{_OWN}.nn.modules"):
        _module_class()
    found: Any = sys.modules.get(own)
    for part in name.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    if isinstance(found, type) and issubclass(found, _module_class()):
        return found
    return None


def _ordered_dict(*args: Any) -> Any:
    result: Any = OrderedDict()
    for key, value in args[0] if args else ():
        checked_keys([key])
        result[key] = value
    return result


def _counter(*args: Any) -> Any:
    return Counter(_plain_dict(args[0])) if args else Counter()


def _plain_dict(value: Any) -> dict[Any, Any]:
    if type(value) is not dict:
        raise UnpicklingError(f"expected a dict, but the pickle has a {type(value).__name__}")
    return value


_FACTORIES = (list, dict, set, int, float, str, OrderedDict, None)


def _defaultdict(factory: Any = None) -> Any:
    if factory not in _FACTORIES:
        raise UnpicklingError(f"a defaultdict with {factory!r} is not allowed")
    return defaultdict(factory)


def _set(*items: Any) -> set[Any]:
    return set(checked_keys(*items)) if items else set()


def _bytearray(data: Any = b"", encoding: Any = None) -> bytearray:
    if isinstance(data, str) and encoding == "latin-1":
        return bytearray(data, encoding)
    if not isinstance(data, bytes):
        raise UnpicklingError("a bytearray is made of bytes only")
    return bytearray(data)


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8"):
        raise UnpicklingError("_codecs.encode is allowed for text in latin1 only")
    return text.encode(encoding)


def _complex(*parts: Any) -> complex:
    if not all(isinstance(p, (int, float)) for p in parts):
        raise UnpicklingError("a complex number is made of numbers only")
    return complex(*parts)


def _slice(*parts: Any) -> slice:
    return slice(*parts)


def _size(items: Any = ()) -> Size:
    return Size(int(n) for n in items)


def _device(*parts: Any) -> Any:
    return device(*parts)


_table: dict[tuple[str, str], Any] = {}


def _known() -> dict[tuple[str, str], Any]:
    """The fixed list, made on first use."""
    if not _table:
        _fill_table()
    return _table


def _fill_table() -> None:
    for element in DTYPES.values():
        _table["torch", element.name] = element
    for name in formats.__all__:
        _table["torch", name] = getattr(formats, name)
    _table["torch", "Tensor"] = _table["torch._tensor", "Tensor"] = Tensor
    _table["torch.nn.parameter", "Parameter"] = _parameter_class()
    _table.update(STORAGE_TYPES)
    _table["collections", "OrderedDict"] = Builder("OrderedDict", _ordered_dict)
    calls: dict[tuple[str, str], Callable[..., Any]] = {
        ("collections", "Counter"): _counter,
        ("collections", "defaultdict"): _defaultdict,
        ("_codecs", "encode"): _encode,
        ("torch", "Size"): _size,
        ("torch", "device"): _device,
        ("torch.serialization", "_get_layout"): tensors.layout,
    }
    for module in ("builtins", "__builtin__"):
        calls |= {
            (module, "set"): _set,
            (module, "frozenset"): lambda *items: frozenset(_set(*items)),
            (module, "bytearray"): _bytearray,
            (module, "complex"): _complex,
            (module, "slice"): _slice,
        }
        for kind in (list, dict, int, float, str):
            _table[module, kind.__name__] = kind  # as what a defaultdict makes; never called
    calls |= {("torch._utils", name): call for name, call in tensors.BUILDERS.items()}
    calls |= arrays.BUILDERS
    for key, call in calls.items():
        _table[key] = Builder(".".join(key), call)
