"""The watcher: what an instrumented function reads, calls and is about to change.

Reads of objects from outside become guards (`guards.Guards`). A change of such an object, or a
call whose effect cannot be known, raises `Break` before it happens: the function then runs eagerly.
Objects that the function itself made are its own business.
"""

from __future__ import annotations

import functools
import gc
import types
from typing import Any

import numpy as np

from ..autograd.function import BackwardNode
from ..autograd.modes import state
from ..debug.frames import describe, user_code
from ..nn.modules import _hooks as module_hooks
from ..nn.modules.module import Module
from ..optim.lr_scheduler import LRScheduler
from ..optim.optimizer import Optimizer
from ..tensor.abstract import AbstractArray
from ..tensor.tensor import Tensor
from . import rules
from .guards import Guards
from .instrument import NoSource, instrumented, is_watched
from .pending import Pending, pending
from .varying import BINARY, Varying, as_tensor

__all__ = ["Break", "Watcher"]

_NOTHING = object()
_SCALARS = (int, float, str, bool, complex, bytes, type(None), Tensor, slice, range)
_FUNCTIONS = (types.FunctionType, types.MethodType)
_LONG = 10_000  # elements of a container whose contents are worth a guard
_OPERATIONS = ("__bool__", "__len__", "__eq__", "__lt__", "__add__", "__radd__", "__mul__",
               "__rmul__", "__sub__", "__contains__", "__iadd__", "__getitem__", "__matmul__",
               "__truediv__", "__str__", "__repr__", "__format__")


class Break(BaseException):
    """The function does something that a program cannot repeat; no `except Exception` hides it."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(what, where)
        self.what, self.where = what, where

    def __str__(self) -> str:
        return f"{self.what}, at {self.where}"


class Watcher:
    """Follows one run of a function; `steps` is what optimizers and schedulers are asked for."""

    def __init__(self, steps: Any) -> None:
        self.guards = Guards()
        self.steps = steps
        self.own: dict[int, Any] = {}  # objects that the function made, kept alive
        self.varying: set[Any] = set()  # entries of dicts that may be floats of the program
        self.numbers: dict[Any, Varying] = {}  # those that are, and floats among the arguments
        self.given: dict[int, Any] = {}  # containers of arguments, which calls are told apart by
        self.known: dict[Any, Any] = {}  # instrumented functions
        self.lent: set[tuple[int, str]] = set()  # entries that hold other tensors for a while

    def take(self, arguments: Any) -> None:
        """The containers among the arguments: calls with other contents are of another kind."""
        if isinstance(arguments, (tuple, list, dict)):
            self.given[id(arguments)] = arguments
            for value in arguments.values() if isinstance(arguments, dict) else arguments:
                self.take(value)

    def lend(self, places: Any) -> list[tuple[int, str]]:
        """Entries (table, key, ...) of modules that hold other tensors for a while: guards are
        taken on those that they hold otherwise."""
        fresh = [p for p in places if (id(p[0]), p[1]) not in self.lent]
        for table, key, *_ in fresh:
            self.guards.entry(table, key, table[key], key)
        found = [(id(table), key) for table, key, *_ in fresh]
        self.lent.update(found)
        return found

    # --- what the function makes ----------------------------------------------------------------

    def fresh(self, value: Any) -> Any:
        """Something that the function has just made."""
        self.own[id(value)] = value
        return value

    def made(self, value: Any) -> Any:
        """The same for all containers in a structure."""
        if isinstance(value, (list, dict)):
            self.fresh(value)
        if isinstance(value, (list, tuple, dict)):
            for v in value.values() if isinstance(value, dict) else value:
                self.made(v)
        return value

    def is_own(self, value: Any) -> bool:
        """Whether the function made it."""
        return id(value) in self.own or isinstance(value, BackwardNode)

    def sight(self, value: Any, label: str = "") -> Any:
        """A tensor from outside becomes an input as soon as it is seen."""
        if isinstance(value, tuple):
            for v in value:
                self.sight(v, label)
        if isinstance(value, Tensor) and not self._made_here(value):
            if id(value) in self.steps.arguments:
                self.refuse("an argument that is also reached from outside")
            self.steps.lift(value, label)
            for table in ("_hooks", "_post_hooks") if value._rg else ():
                hooks = value.__dict__.get(table)
                self.guards.absent(value.__dict__, table, "hooks of a tensor")
                if hooks:
                    self.refuse("a tensor from outside with hooks")
        return value

    @staticmethod
    def slice(*parts: Any) -> slice:
        """The slice of a subscript."""
        return slice(*parts)

    def refuse(self, what: str) -> None:
        """Raises Break with the user's line."""
        raise Break(what, describe(*user_code(2)))

    # --- reads ----------------------------------------------------------------------------------

    def attribute(self, obj: Any, name: str) -> Any:
        """`obj.name`"""
        kind = type(obj)
        obj = self.seen(obj) if isinstance(obj, (Varying, Pending)) else obj
        if isinstance(obj, Tensor):
            return self._of_tensor(obj, name)
        if isinstance(obj, types.ModuleType):
            return self._of_module(obj, name)
        if isinstance(obj, type) or kind is super or isinstance(obj, (*_SCALARS, *_FUNCTIONS)):
            return self._of_class(obj, name)
        if isinstance(obj, Optimizer) and name in ("step", "zero_grad"):
            return functools.partial(self.steps.optimizer, self, obj, name)
        if isinstance(obj, LRScheduler) and name == "step":
            return functools.partial(self.steps.scheduler, self, obj)
        found = _static(kind, name)
        if isinstance(found, property):
            return self.call(found.fget, obj)
        own = _instance_dict(obj)
        if own is not None and name in own and not hasattr(found, "__set__"):
            return self._entry(own, name, obj, name)
        if isinstance(obj, Module):
            for table in ("_parameters", "_buffers", "_modules"):
                if name in own[table]:  # type: ignore[index]
                    return self._entry(own[table], name, obj, name)  # type: ignore[index]
        if found is not None:
            return self._by_class(obj, name, found)
        fallback = _static(kind, "__getattr__")
        if isinstance(fallback, types.FunctionType) and not rules.is_lampion(fallback):
            return self.call(types.MethodType(fallback, obj), name)
        if own is not None and not self.is_own(obj):
            self.guards.absent(own, name, f"{_label(obj)}.{name}")
        return getattr(obj, name)

    def _entry(self, table: dict[Any, Any], key: Any, owner: Any, name: Any) -> Any:
        value = dict.__getitem__(table, key)
        if self.is_own(owner) or id(owner) in self.given or (id(table), key) in self.lent:
            return value
        if value.__class__ is float and (id(table), key) in self.varying:
            return self._vary(table, key, value)
        self.guards.entry(table, key, value, f"{_label(owner)}.{name}")
        return self.sight(value, self.steps.label(owner, name))

    def _vary(self, table: dict[Any, Any], key: Any, value: float) -> Any:
        """An entry that was a float of another value at every call."""
        place = id(table), key
        if place not in self.numbers:
            self.numbers[place] = self.steps.varying(value, lambda _: table[key])
        return self.numbers[place]

    def _by_class(self, obj: Any, name: str, found: Any) -> Any:
        kind = type(obj)
        value = getattr(obj, name)
        own = _instance_dict(obj)
        if own is not None and not self.is_own(obj):
            self.guards.absent(own, name, f"{_label(obj)}.{name}")
        if not rules.is_lampion(kind):
            self._of_classes(kind, name)
        if not callable(value) and not self.is_own(obj):
            self.guards.other((id(obj), name), lambda: getattr(obj, name, _NOTHING),
                              f"{kind.__name__}.{name}")
        return value

    def _of_classes(self, kind: type, name: str) -> None:
        """A guard on what a class of the user's has under a name."""
        for cls in kind.__mro__:
            if name in cls.__dict__:
                self.guards.entry(_class_dict(cls), name, cls.__dict__[name],
                                  f"{cls.__name__}.{name}")
                return

    def _of_class(self, obj: Any, name: str) -> Any:
        value = getattr(obj, name)
        if isinstance(obj, type) and not callable(value) and not rules.is_lampion(obj):
            self.guards.other((id(obj), name), lambda: getattr(obj, name, _NOTHING),
                              f"{obj.__name__}.{name}")
        return value

    def _of_module(self, obj: types.ModuleType, name: str) -> Any:
        value = self.sight(getattr(obj, name), name)
        if not rules.is_standard(obj.__name__) and name in vars(obj):
            self.guards.entry(vars(obj), name, value, f"{obj.__name__}.{name}")
        return value

    def _of_tensor(self, t: Tensor, name: str) -> Any:
        if name in ("grad", "_grad"):
            return self.steps.grad_of(t)
        if name in rules.TENSOR_STATE and not self._made_here(t):
            self.refuse(f"Tensor.{name} of a tensor from outside")
        if name in t.__dict__:
            return self._entry(t.__dict__, name, t, name)
        return getattr(t, name)

    def _made_here(self, t: Tensor) -> bool:
        base = t if t._base is None else t._base
        return base.__dict__.get("_born_in") is state.recorder

    @staticmethod
    def _is_recorded(t: Tensor) -> bool:
        return type(t._a) is AbstractArray and t._a.recorder is state.recorder

    def item(self, obj: Any, index: Any) -> Any:
        """`obj[index]`"""
        self.seen(index)
        if isinstance(obj, (Tensor, tuple, str, bytes, range, type)):
            return obj[index]  # type: ignore[index]
        if isinstance(obj, dict) and type(obj).__getitem__ in _ITEM_OF_DICT:
            return self._of_dict(obj, index)
        if isinstance(obj, list) and type(obj).__getitem__ is list.__getitem__:
            self.seen(obj)
            return obj[index]
        method = _static(type(obj), "__getitem__")
        if isinstance(method, types.FunctionType):
            return self.call(types.MethodType(method, obj), index)
        if self.is_own(obj):
            return obj[index]
        return self.refuse(f"reading an item of a {type(obj).__name__}")

    def _of_dict(self, obj: dict[Any, Any], key: Any) -> Any:
        if key in obj:
            return self._entry(obj, key, obj, repr(key))
        if not self.is_own(obj) and id(obj) not in self.given:
            self.guards.absent(obj, key, f"the key {key!r} of a dict")
            if type(obj).__getitem__ is not dict.__getitem__ or hasattr(obj, "default_factory"):
                self.refuse(f"a new key {key!r} in a dict from outside")
        return obj[key]

    def iterate(self, obj: Any) -> Any:
        """What a loop, a `*` or a comprehension walks over."""
        if isinstance(obj, (*_SCALARS, tuple)) or self.is_own(obj):
            return obj
        if isinstance(obj, rules.READERS):
            return self.seen(obj)
        method = _static(type(obj), "__iter__")
        if isinstance(method, types.FunctionType):
            return self.call(types.MethodType(method, obj))
        return self.refuse(f"walking over a {type(obj).__name__} from outside, which moves it on")

    unpacked = iterate

    def seen(self, value: Any) -> Any:
        """A value whose contents decide what happens."""
        if isinstance(value, Varying):
            value.baked = True
            return float(value)
        if isinstance(value, Pending):
            raise Break("using a number read from a tensor, which has no value until the program "
                        "runs (return it, or keep it as a tensor); it was read", value.where)
        if isinstance(value, slice):
            for part in (value.start, value.stop, value.step):
                self.seen(part)
        if isinstance(value, _SCALARS) or self.is_own(value) or id(value) in self.given:
            return value
        if isinstance(value, (list, dict, set, frozenset)):
            if len(value) > _LONG:
                self.refuse(f"using a {type(value).__name__} of {len(value)} elements")
            self.guards.contents(value, f"a {type(value).__name__}")
            for v in value.values() if isinstance(value, dict) else value:
                self.sight(v)
        elif isinstance(value, tuple):
            for v in value:  # one from outside was looked through by `sight`
                self.seen(v if id(v) in self.steps.arguments else self.sight(v))
        elif isinstance(value, np.ndarray):
            self.refuse("using a NumPy array, whose elements may change: pass a tensor instead")
        elif _has_operations(type(value)):  # type: ignore[arg-type]
            self.refuse(f"using a {type(value).__name__}, which defines operators of its own")
        return value

    # --- changes --------------------------------------------------------------------------------

    def storing(self, obj: Any, name: str) -> Any:
        """Before `obj.name = ...`"""
        if isinstance(obj, Tensor):
            if name == "grad":
                self.steps.set_grad(obj)
            elif name != "requires_grad" and not self._made_here(obj):
                self.refuse(f"setting .{name} of a tensor from outside")
            return obj
        if not self.is_own(obj):
            self.refuse(f"setting the attribute {name!r} of a {type(obj).__name__} from outside")
        return obj

    def storing_item(self, obj: Any) -> Any:
        """Before `obj[...] = ...`"""
        if not isinstance(obj, Tensor) and not self.is_own(obj):
            self.refuse(f"setting an item of a {type(obj).__name__} from outside")
        return obj

    def augmenting(self, value: Any) -> None:
        """Before `name += ...`, which changes the object itself where it can be changed."""
        if isinstance(value, (*_SCALARS, tuple)) or self.is_own(value):
            return
        self.refuse(f"changing a {type(value).__name__} from outside in place")

    def binary(self, kind: str, left: Any, right: Any) -> Any:
        """`left + right` and its like."""
        if isinstance(right, Varying) and isinstance(left, Tensor):
            right = as_tensor(right, left, state.recorder)
        elif isinstance(left, Varying) and isinstance(right, Tensor):
            left = as_tensor(left, right, state.recorder)
        return BINARY[kind](self.seen(left), self.seen(right))

    def text(self, value: Any) -> Any:
        """What stands in an f-string."""
        if isinstance(value, Tensor):
            self.refuse("the text of a tensor, which has no value until the program runs")
        return self.seen(value)

    def context(self, manager: Any) -> Any:
        """Before `with manager:`"""
        name = type(manager).__name__
        generator = getattr(manager, "gen", None)
        if generator is not None and rules.is_lampion_file(generator.gi_code.co_filename):
            return manager
        if name not in rules.CONTEXTS:
            self.refuse(f"`with` of a {name}")
        return manager

    # --- calls ----------------------------------------------------------------------------------

    def call(self, f: Any, *args: Any, **kwargs: Any) -> Any:
        """`f(*args, **kwargs)`"""
        if isinstance(f, functools.partial):
            if isinstance(f.func, types.MethodType) and f.func.__self__ is self.steps:
                return f(*args, **kwargs)
            return self.call(f.func, *f.args, *args, **{**f.keywords, **kwargs})
        if isinstance(f, types.MethodType):
            return self._method(f, args, kwargs)
        if rules.is_compiled(f):
            return self.call(f.function, *args, **kwargs)
        if isinstance(f, types.FunctionType):
            return self._function(f, args, kwargs)
        if isinstance(f, Module):
            return self.module(f, args, kwargs)
        if isinstance(f, type):
            return self._construct(f, args, kwargs)
        if isinstance(f, (types.BuiltinFunctionType, types.MethodWrapperType,
                          types.MethodDescriptorType, types.WrapperDescriptorType)):
            return self._builtin(f, args, kwargs)
        method = _static(type(f), "__call__")
        if isinstance(method, types.FunctionType):
            return self.call(types.MethodType(method, f), *args, **kwargs)
        if isinstance(f, functools._lru_cache_wrapper):
            return f(*args, **kwargs)
        return self.refuse(f"calling a {type(f).__name__}")

    def module(self, m: Module, args: Any, kwargs: Any) -> Any:
        """A call of a module: its `forward`, between its hooks."""
        for table in _HOOKS:
            hooks = m.__dict__[table]
            self.guards.contents(hooks, f"{table} of a {type(m).__name__}")
            if hooks:
                self.refuse(f"a module with hooks ({type(m).__name__})")
        for hooks in _GLOBAL_HOOKS:
            self.guards.contents(hooks, "hooks of all modules")
            if hooks:
                self.refuse("hooks of all modules")
        call = _static(getattr(type(m), "_plain_class", type(m)), "__call__")
        if call is not _MODULE_CALL:
            return self._function(call, (m, *args), kwargs)
        self.steps.enter(m)
        try:
            return self.call(self.attribute(m, "forward"), *args, **kwargs)
        finally:
            self.steps.leave()

    def _method(self, f: types.MethodType, args: Any, kwargs: Any) -> Any:
        owner, function = f.__self__, f.__func__
        if isinstance(owner, Tensor) and rules.is_lampion(function):
            if function.__name__ == "item" and not args and self._is_recorded(owner):
                found = pending(owner, describe(*user_code(2)))
                if found is not None:
                    return found
            if function.__name__ in rules.TENSOR_STATE and not self._made_here(owner):
                self.refuse(f"Tensor.{function.__name__}() of a tensor from outside")
            return self._native(function, (owner, *args), kwargs)
        if function is _MODULE_CALL and isinstance(owner, Module):
            return self.module(owner, args, kwargs)
        if isinstance(owner, Optimizer) and rules.is_lampion(function):
            self.refuse(f"{type(owner).__name__}.{function.__name__}()")
        if not isinstance(function, types.FunctionType):
            return self.call(function, owner, *args, **kwargs)
        return self._function(function, (owner, *args), kwargs)

    def _function(self, f: types.FunctionType, args: Any, kwargs: Any) -> Any:
        if "_kept_out" in f.__dict__:
            self.refuse(f"calling {f.__qualname__}, kept out by {f.__dict__['_kept_out']}")
        if is_watched(f):
            return self._result(f, f(*args, **kwargs))
        room = rules.room_of(f.__module__)
        if room in rules.CORE and not _wraps_another(f):
            return self._native(f, args, kwargs)
        if rules.is_transform(f):  # which calls the user's functions by `followed`
            return self.made(self._native(f, args, kwargs))
        if room == "func" or (room is not None and f.__name__ in rules.IMPURE):
            self.refuse(f"{f.__name__}()")
        if room is None and rules.is_pure(f):
            return self._pure(f, args, kwargs)
        if room is None and rules.is_standard(f.__module__):
            self.refuse(f"{f.__module__}.{f.__qualname__}()")
        return self._result(f, self.watched(f)(*args, **kwargs))

    def _result(self, f: Any, result: Any) -> Any:
        return self.fresh(result) if isinstance(result, types.GeneratorType) else result

    def watched(self, f: types.FunctionType) -> Any:
        """The function with this watcher looking on."""
        key = (id(f.__code__), id(f.__globals__), id(f.__defaults__),
               *map(id, f.__closure__ or ()))
        found, _ = self.known.get(key, (None, None))
        if found is None:
            try:
                found = instrumented(f, self)
                self.known[key] = found, f  # which keeps what the key names alive
            except NoSource as error:
                if getattr(f, "__qualname__", "").startswith("__create_fn__"):
                    return f  # what dataclasses make only sets fields
                self.refuse(f"calling {f.__qualname__}: {error}")
            if not rules.is_lampion(f):
                self._names(f)
        return found

    def _names(self, f: types.FunctionType) -> None:
        """Guards on what the function finds outside of itself."""
        table, label = f.__globals__, f.__globals__.get("__name__", "")
        for name in _global_names(f.__code__):
            if name in table:
                self.guards.entry(table, name, self.sight(table[name], name), f"{label}.{name}")
            else:
                self.guards.absent(table, name, f"{label}.{name}")
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            self.sight(_contents(cell), name)
            self.guards.cell(cell, f"{name} around {f.__qualname__}")
        if f.__defaults__ or f.__kwdefaults__:
            def defaults() -> tuple[Any, ...]:
                return *(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values()
            self.seen(defaults())
            self.guards.other((id(f), "defaults"), defaults, f"defaults of {f.__qualname__}")

    def _native(self, f: Any, args: Any, kwargs: Any) -> Any:
        """A function of lampion that needs no watching."""
        if f.__name__ in rules.IMPURE:
            self.refuse(f"{f.__name__}()")
        if f.__name__ in rules.SETTINGS:
            self.guards.other(f, f, f"{f.__name__}()")
        for a in (*args, *kwargs.values()):
            if isinstance(a, (np.ndarray, np.generic, list, dict, tuple, Pending, Varying)):
                self.seen(a)
            elif isinstance(a, types.GeneratorType) and not self.is_own(a):
                self.refuse("handing on a generator from outside, which moves it on")
        args = [_plain(self.callback(a)) for a in args]
        result = f(*args, **{k: _plain(self.callback(v)) for k, v in kwargs.items()})
        return self.fresh(result) if isinstance(result, (list, dict)) else result

    def callback(self, value: Any) -> Any:
        """A function of the user's that someone else will call."""
        if not isinstance(value, (*_FUNCTIONS, functools.partial)) or (
                isinstance(value, _FUNCTIONS) and rules.is_lampion(value)) or (
                getattr(value, "func", None) == self.call):
            return value
        return functools.partial(self.call, value)

    def _pure(self, f: Any, args: Any, kwargs: Any) -> Any:
        for a in (*args, *kwargs.values()):
            if isinstance(a, types.GeneratorType) or type(a).__name__.endswith("iterator"):
                self.iterate(a)
            self.seen(a)
        args = [_plain(self.callback(a)) for a in args]
        result = f(*args, **{k: _plain(self.callback(v)) for k, v in kwargs.items()})
        return self.fresh(result) if rules.makes_new(f) else result

    def _construct(self, cls: type, args: Any, kwargs: Any) -> Any:
        if cls is type and len(args) == 1:
            return type(args[0])
        if cls in (float, int) and len(args) == 1 and isinstance(args[0], (Tensor, Pending)):
            return self._read(cls, args[0])
        if rules.is_pure(cls):
            return self._pure(cls, args, kwargs)
        if issubclass(cls, (Module, Optimizer, LRScheduler)):
            self.refuse(f"making a {cls.__name__}")
        if rules.is_lampion(cls):
            return self.fresh(cls(*args, **kwargs))
        init = _static(cls, "__init__")
        new: Any = cls.__new__
        if type(cls) is not type or new is not object.__new__:
            if issubclass(cls, tuple) and hasattr(cls, "_fields"):
                return cls(*args, **kwargs)
            self.refuse(f"making a {cls.__name__}")
        made = self.fresh(new(cls))
        if isinstance(init, types.FunctionType):
            self._function(init, (made, *args), kwargs)
        return made

    def _read(self, kind: type, value: Any) -> Any:
        """`float(tensor)` or `int(tensor)`, or of a number read before."""
        t = value.tensor if isinstance(value, Pending) else value
        where = describe(*user_code(2))
        found = pending(t, where, kind) if self._is_recorded(t) else None
        return kind(self.seen(value)) if found is None else found

    def _builtin(self, f: Any, args: Any, kwargs: Any) -> Any:
        owner = getattr(f, "__self__", None)
        if owner is None and isinstance(f, (types.MethodDescriptorType,
                                            types.WrapperDescriptorType)):
            owner, args = args[0], args[1:]
            f = getattr(owner, f.__name__)
        if isinstance(owner, types.ModuleType) or owner is None:
            return self._builtin_function(f, args, kwargs)
        if isinstance(owner, type):  # a class method, or __new__
            return self._pure(f, args, kwargs) if owner in rules.READERS else self.refuse(
                f"calling {owner.__name__}.{f.__name__}")
        if self.is_own(owner):
            return f(*args, **kwargs)
        if isinstance(owner, rules.READERS) and f.__name__ not in rules.MUTATORS:
            return self._of_container(f, owner, args, kwargs)
        return self.refuse(f"{type(owner).__name__}.{f.__name__}() of an object from outside")

    def _of_container(self, f: Any, owner: Any, args: Any, kwargs: Any) -> Any:
        if f.__name__ == "get" and isinstance(owner, dict) and not kwargs:
            if args[0] in owner:
                return self._of_dict(owner, args[0])
            self.guards.absent(owner, args[0], f"the key {args[0]!r} of a dict")
            return f(*args)
        self.seen(owner)
        result = self._pure(f, args, kwargs)
        return self.fresh(result) if f.__name__ in ("copy", "split", "__iter__") else result

    def _builtin_function(self, f: Any, args: Any, kwargs: Any) -> Any:
        if f is getattr:
            try:
                return self.attribute(*args[:2])
            except AttributeError:
                return getattr(*args)
        if f is hasattr:
            try:
                self.attribute(*args)
            except AttributeError:
                return False
            return True
        if f is setattr:
            return setattr(self.storing(args[0], args[1]), *args[1:])
        if f is next and self.is_own(args[0]):
            return next(*args)
        if f is iter and len(args) == 1:
            return self.fresh(iter(self.iterate(args[0])))
        if rules.is_pure(f):
            return self._pure(f, args, kwargs)
        return self.refuse(f"calling {f.__name__}()")


_ITEM_OF_DICT = (dict.__getitem__,)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_GLOBAL_HOOKS = tuple(vars(module_hooks)[f"_global_{name}"] for name in (
    "forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks"))
_MODULE_CALL = Module.__dict__["__call__"]


def _static(kind: type, name: str) -> Any:
    """What the classes of an object have under a name."""
    for cls in kind.__mro__:
        if name in cls.__dict__:
            return cls.__dict__[name]
    return None


def _instance_dict(obj: Any) -> dict[str, Any] | None:
    try:
        found = object.__getattribute__(obj, "__dict__")
    except AttributeError:
        return None
    return found if isinstance(found, dict) else None


@functools.lru_cache(1024)
def _has_operations(kind: type) -> bool:
    """Whether a class of the user's says in Python what operators and tests mean."""
    return any(isinstance(cls.__dict__.get(name), types.FunctionType)
               for cls in kind.__mro__ for name in _OPERATIONS
               if cls is not object and not rules.is_lampion(cls)
               and not rules.is_standard(cls.__module__)) and not hasattr(
                   kind, "__dataclass_fields__")


@functools.lru_cache(4096)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """Names that a function and those inside look up among its globals."""
    import dis

    found = {i.argval: None for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found.update(dict.fromkeys(_global_names(const)))
    return tuple(found)


def _class_dict(cls: type) -> dict[str, Any]:
    """The dict behind a class, whose entries are quick to look at."""
    return gc.get_referents(cls.__dict__)[0]  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Varying) else value


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _NOTHING


def _wraps_another(f: types.FunctionType) -> bool:
    """Whether a function of lampion runs a function of the user's (a decorator made it)."""
    if hasattr(f, "__wrapped__") and not rules.is_lampion(f.__wrapped__):
        return True
    return any(isinstance(_contents(c), _FUNCTIONS) and not rules.is_lampion(_contents(c))
               for c in f.__closure__ or ())


def _label(obj: Any) -> str:
    return type(obj).__name__
