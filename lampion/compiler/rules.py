"""What a watched function may call, and what calls do to Python's state."""

from __future__ import annotations

import builtins
import collections
import functools
import os
import sys
import types
from typing import Any

__all__ = ["CONTEXTS", "CORE", "HISTORY", "IMPURE", "MUTATORS", "READERS", "SETTINGS",
           "TENSOR_STATE", "calls_back", "is_compiled", "is_lampion", "is_lampion_file",
           "is_operator", "is_pure",
           "is_standard", "is_transform", "makes_new", "room_of"]

_ROOT = __name__.split(".")[0]
_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

# Rooms whose functions depend on their arguments and on the recorded tensors alone.
CORE = frozenset(("ops", "autograd", "tensor", "graph", "codegen", "runtime", "debug", "capture",
                  "passes", "functional", "linalg", "fft", "special", "_tensor", "types", "amp",
                  "compiler", "random", "export"))

# Functions of lampion that change or read what is neither argument nor tensor.
IMPURE = frozenset((
    "manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state", "fork_rng",
    "set_default_dtype", "set_default_device", "set_default_tensor_type", "set_num_threads",
    "set_num_interop_threads", "set_printoptions", "use_deterministic_algorithms",
    "set_deterministic_debug_mode", "set_float32_matmul_precision", "set_flush_denormal", "save",
    "load", "from_numpy", "from_dlpack", "from_file", "set_warn_always", "compile",
    "is_inference"))

# Methods of tensors that change or give away what recording cannot follow.
TENSOR_STATE = frozenset((
    "detach_", "register_hook", "register_post_accumulate_grad_hook",
    "share_memory_", "set_", "resize_", "resize_as_", "swap_", "rename_", "apply_", "map_",
    "data_ptr", "untyped_storage", "storage", "numpy", "tolist", "item", "__array__",
    "unsqueeze_", "squeeze_", "t_", "transpose_", "swapaxes_", "swapdims_", "as_strided_",
    "__dlpack__", "is_shared", "is_inference", "_version", "is_set_to", "storage_offset"))

# Functions of `torch.func` that change or read modules.
_OF_MODULES = frozenset(("stack_module_state", "replace_all_batch_norm_modules_"))

# Functions of lampion that tell a setting; a program holds for its value.
SETTINGS = frozenset((
    "get_num_threads", "get_num_interop_threads", "get_default_dtype", "get_default_device",
    "is_grad_enabled", "is_autocast_enabled", "is_inference_mode_enabled",
    "are_deterministic_algorithms_enabled", "get_float32_matmul_precision"))

# What tells the past of a tensor.
HISTORY = frozenset(("is_leaf", "grad_fn", "_base", "retains_grad", "retain_grad", "output_nr",
                     "_is_view"))

CONTEXTS = frozenset(("no_grad", "enable_grad", "set_grad_enabled", "autocast", "nullcontext",
                      "record_function", "suppress"))

_NAMES = """
    abs all any bool bytes callable chr complex dict divmod enumerate filter float format frozenset
    int isinstance issubclass len list map max min object ord pow range repr reversed round set
    slice sorted str sum tuple type zip property staticmethod classmethod hash id iter hex bin oct
    ascii"""
_PURE_BUILTINS = frozenset(getattr(builtins, name) for name in _NAMES.split())
_PURE_MODULES = frozenset(("math", "operator", "_operator", "itertools", "cmath"))
_PURE = _PURE_BUILTINS | {functools.reduce, functools.partial, collections.OrderedDict,
                          collections.defaultdict, collections.deque, collections.Counter}
_CALLING = (map, filter, sorted, min, max, iter, functools.reduce)
_ITEMS = """
    getitem setitem delitem contains is is_not call eq ne lt le gt ge iadd iand iconcat ifloordiv
    ilshift imod imul imatmul ior ipow irshift isub itruediv ixor"""
_OPERATORS = frozenset(_ITEMS.split())
_STDLIB = frozenset(("functools", "collections", "contextlib", "dataclasses", "enum", "typing",
                     "abc", "operator", "numbers", "types"))

# Methods of built-in containers.
MUTATORS = frozenset((
    "append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse", "update", "add",
    "discard", "setdefault", "popitem", "appendleft", "extendleft", "popleft", "rotate",
    "move_to_end", "__setitem__", "__delitem__", "__iadd__", "difference_update",
    "intersection_update", "symmetric_difference_update", "send", "throw", "close", "subtract"))
READERS: tuple[type, ...] = (
    list, dict, set, frozenset, tuple, str, bytes, int, float, bool, complex, range, slice,
    collections.deque, type({}.keys()), type({}.items()), type({}.values()))


def room_of(module: str | None) -> str | None:
    """The room of lampion that a module stands in; None outside of lampion."""
    parts = (module or "").split(".")
    if parts[0] != _ROOT:
        return None
    return parts[2] if parts[1:2] == ["nn"] and parts[2:3] == ["functional"] else (
        parts[1] if len(parts) > 1 else "")


def is_lampion(value: Any) -> bool:
    """Whether a class, function or module belongs to lampion."""
    module = value.__name__ if isinstance(value, types.ModuleType) else value.__module__
    return room_of(module) is not None


def is_lampion_file(name: str) -> bool:
    """Whether code comes from lampion's own files."""
    return name.startswith(_FOLDER)


def is_transform(f: types.FunctionType) -> bool:
    """Whether a function is one of `torch.func`, or what one of them returned."""
    place = f.__globals__.get("__name__", "")
    return place.startswith(f"{_ROOT}.func.") and f.__name__ not in _OF_MODULES


def is_pure(f: Any) -> bool:
    """Whether a built-in or a function of the standard library may be called as it is."""
    try:
        if f in _PURE:
            return True
    except TypeError:
        return False
    module = getattr(f, "__module__", None)
    if isinstance(f, type) and issubclass(f, BaseException):
        return not isinstance(f.__init__, types.FunctionType) and not isinstance(
            f.__new__, types.FunctionType)
    return module in _PURE_MODULES or (module in _STDLIB and not isinstance(
        f, types.BuiltinFunctionType))


def is_operator(f: Any) -> bool:
    """Whether a function of `operator` changes, compares or calls what it is given."""
    return f.__module__ == "_operator" and f.__name__.strip("_") in _OPERATORS


def calls_back(f: Any) -> bool:
    """Whether a pure function calls what it is given."""
    return f in _CALLING or getattr(f, "__module__", None) == "itertools"


def is_compiled(f: Any) -> bool:
    """Whether a callable is a compiled function."""
    return type(f).__name__ == "Compiled" and is_lampion(type(f))


def makes_new(f: Any) -> bool:
    """Whether the result of a pure function is an object of its own."""
    return isinstance(f, type) or f in (sorted, iter, functools.reduce) or getattr(
        f, "__module__", None) in _PURE_MODULES


def is_standard(module: str | None) -> bool:
    """Whether a module belongs to Python itself."""
    return (module or "").split(".")[0] in sys.stdlib_module_names


