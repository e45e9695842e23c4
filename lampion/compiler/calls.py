"""The watcher's calls: whose code is followed, whose is trusted, and what may not be called."""

from __future__ import annotations

import collections
import functools
import math
import operator
import types
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..debug.frames import describe, user_code
from ..nn.modules import _hooks as module_hooks
from ..nn.modules.module import HookedCall, Module
from ..ops import isfinite, isinf, isnan
from ..optim.lr_scheduler import LRScheduler
from ..optim.optimizer import Optimizer
from ..tensor.tensor import Tensor
from . import kinds, rules
from .effects import LOGGED
from .instrument import NoSource, instrumented, is_watched, rebound_names
from .pending import NotYet, Pending, applied, pending
from .varying import NUMERIC, Varying, exact, plain
from .watch import FUNCTIONS, NOTHING, TABLES, Watcher

__all__ = ["Follower"]


class Follower(Watcher):
    """A watcher that goes along into the functions that are called."""


    def call(self, f: Any, *args: Any, **kwargs: Any) -> Any:
        """`f(*args, **kwargs)`"""
        if kinds.hides(type(f)):
            self.refuse(f"calling a {type(f).__name__}")
        if type(f) is functools.partial:
            if isinstance(f.func, types.MethodType) and f.func.__self__ is self.steps:
                return f(*args, **kwargs)
            if f.keywords and not self.is_own(f):
                self.guards.contents(f.keywords, "the keywords of a partial")
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
        method = kinds.static(type(f), "__call__")
        if isinstance(method, types.FunctionType):
            self._of_classes(type(f).__mro__, "__call__")
            return self.call(types.MethodType(method, f), *args, **kwargs)
        if isinstance(f, functools._lru_cache_wrapper):
            return self._cached(f, args, kwargs)
        if isinstance(f, _GETTERS):
            return self._got(f, *args)
        return self.refuse(f"calling a {type(f).__name__}")

    def _cached(self, f: Any, args: Any, kwargs: Any) -> Any:
        """A function that remembers: what it remembers is guarded, and new things come eagerly."""
        def size() -> Any:
            info = f.cache_info()
            return info.misses, info.currsize
        for a in (*args, *kwargs.values()):
            if isinstance(a, (Tensor, Pending, Varying)):
                self.looked_up(a if isinstance(a, Tensor) else self.seen(a))
        before, current, state.recorder = size(), state.recorder, None
        try:
            found = f(*args, **kwargs)
        finally:
            state.recorder = current
        if size() != before:
            self.stop(NotYet(f"{f.__name__} had to be computed first"))
        after = size()
        self.guards.other((id(f), "cache", len(self.own)),
                          lambda: f(*args, **kwargs) if size() == after else NOTHING,
                          f"what {f.__name__} remembers")
        return self.sight(found)

    def _got(self, f: Any, obj: Any) -> Any:
        """What `operator.attrgetter(...)` and its like do with an object."""
        make, given = f.__reduce__()[:2]
        if isinstance(f, operator.methodcaller):
            kwargs = make.keywords if isinstance(make, functools.partial) else {}
            name, *args = (*make.args, *given) if isinstance(make, functools.partial) else given
            return self.call(self.attribute(obj, name), *args, **kwargs)
        found = [self.item(obj, i) if isinstance(f, operator.itemgetter) else
                 functools.reduce(self.attribute, i.split("."), obj) for i in given]
        return found[0] if len(found) == 1 else tuple(found)

    def module(self, m: Module, args: Any, kwargs: Any) -> Any:
        """A call of a module: its `forward`, between its hooks."""
        for table in _HOOKS:
            hooks = m.__dict__[table]
            self.guards.contents(hooks, f"{table} of a {type(m).__name__}")
            if hooks and table not in _FORWARD_HOOKS:
                self.refuse(f"a module with hooks of its backward ({type(m).__name__})")
        for hooks in _GLOBAL_HOOKS:
            self.guards.contents(hooks, "hooks of all modules")
            if hooks:
                self.refuse("hooks of all modules")
        kind = getattr(type(m), "_plain_class", type(m))
        self._of_classes(kind.__mro__, "__call__")
        call = kinds.static(kind, "__call__")
        if call is not _MODULE_CALL:
            return self._function(call, (m, *args), kwargs)
        self.steps.enter(m)
        try:
            if any(m.__dict__[table] for table in _FORWARD_HOOKS):
                return self._hooked(m, args, kwargs)
            return self.call(self.attribute(m, "forward"), *args, **kwargs)
        finally:
            self.steps.leave()

    def _hooked(self, m: Module, args: Any, kwargs: Any) -> Any:
        """A call between the hooks of the module's forward, which are followed."""
        around = self.fresh(HookedCall(m))
        args, kwargs = self.call(around._before, args, kwargs)
        result = self.call(self.attribute(m, "forward"), *args, **kwargs)
        return self.call(around._after, args, kwargs, result)

    def _method(self, f: types.MethodType, args: Any, kwargs: Any) -> Any:
        owner, function = f.__self__, f.__func__
        if isinstance(owner, Tensor) and rules.is_lampion(function):
            if function.__name__ == "item" and not args and self._is_recorded(
                    owner if id(owner) in self.steps.arguments else self.sight(owner)):
                found = pending(owner, describe(*user_code(2)))
                if found is not None:
                    return found
            if function.__name__ in rules.TENSOR_STATE and function.__name__ != "item" and (
                    not self._made_here(owner)):
                self.refuse(f"Tensor.{function.__name__}() of a tensor from outside")
            args, kwargs = self.with_numbers(owner, function.__name__, args, kwargs)
            return self._native(function, (owner, *args), kwargs)
        if function is _MODULE_CALL and isinstance(owner, Module):
            return self.module(owner, args, kwargs)
        if isinstance(owner, Optimizer) and rules.is_lampion(function) and (
                not function.__name__.startswith("_")):
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
        pure = room is None and rules.is_pure(f)
        if pure and f.__closure__ is None and all(map(_is_plain, (*args, *kwargs.values()))):
            return self._pure(f, args, kwargs)
        if room is None and not pure and rules.is_standard(f.__module__):
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
        self.guards.code(f)
        rebound = rebound_names(f.__code__)
        for name in _global_names(f.__code__):
            if name in rebound:
                continue
            if name in table:
                self.guards.entry(table, name, self.sight(table[name], name), f"{label}.{name}")
            else:
                self.guards.absent(table, name, f"{label}.{name}")
        for name, cell in zip(f.__code__.co_freevars, f.__closure__ or (), strict=True):
            if name in rebound:
                continue
            self.sight(_contents(cell), name)
            self.guards.cell(cell, f"{name} around {f.__qualname__}")
        if f.__defaults__ or f.__kwdefaults__:
            def defaults() -> tuple[Any, ...]:
                return *(f.__defaults__ or ()), *(f.__kwdefaults__ or {}).values()
            self.seen(defaults())
            self.guards.other((id(f), "defaults"), defaults, f"defaults of {f.__qualname__}")

    def with_numbers(self, t: Tensor, name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments of a method of `t`, numbers of the program as tensors where that fits."""
        numbers = [a for a in (*args, *kwargs.values()) if isinstance(a, (Pending, Varying))]
        if name.rstrip("_") not in _WITH_NUMBERS or not numbers:
            return args, kwargs
        if not all(exact(n, o, True) for n in numbers for o in (t, *args) if isinstance(o, Tensor)):
            return args, kwargs
        args = [self.operand(a, t, "Add") for a in args]
        for key in {"alpha", "value"}.intersection(kwargs) if isinstance(args[0], Tensor) else ():
            args[0] = self.binary("Mult", args[0], kwargs[key])
            kwargs = {k: v for k, v in kwargs.items() if k != key}
        return args, kwargs

    def _native(self, f: Any, args: Any, kwargs: Any) -> Any:
        """A function of lampion that needs no watching."""
        if f.__name__ in rules.IMPURE:
            self.refuse(f"{f.__name__}()")
        if f.__name__ in rules.SETTINGS:
            self.guards.other(f, f, f"{f.__name__}()")
        if self.prefixes.known:
            found = self.prefixes.called(f, args, kwargs)
            if found is not None:
                return found[0]
            self.prefixes.tell((args, kwargs))
        for a in (*args, *kwargs.values()):
            if isinstance(a, (np.ndarray, np.generic, list, dict, tuple, Pending, Varying)):
                self.seen(a)
            elif isinstance(a, types.GeneratorType) and not self.is_own(a):
                self.refuse("handing on a generator from outside, which moves it on")
        args = [plain(self.callback(a)) for a in args]
        result = f(*args, **{k: plain(self.callback(v)) for k, v in kwargs.items()})
        return self.fresh(result) if isinstance(result, (list, dict)) else result

    def callback(self, value: Any) -> Any:
        """A function of the user's that someone else will call."""
        if not isinstance(value, (*FUNCTIONS, functools.partial)) or (
                isinstance(value, FUNCTIONS) and rules.is_lampion(value)) or (
                getattr(value, "func", None) == self.call):
            return value
        return functools.partial(self.call, value)

    def followed(self, value: Any) -> Any:
        """The same of other things that functions like `map` call."""
        plain = isinstance(value, (Tensor, Module)) or not callable(value) or (
            isinstance(value, type) and (rules.is_pure(value) or rules.is_lampion(value))) or (
            isinstance(value, types.BuiltinFunctionType) and not rules.is_operator(value)
            and isinstance(value.__self__, types.ModuleType) and rules.is_pure(value))
        return self.callback(value) if plain or isinstance(value, (
            *FUNCTIONS, functools.partial)) else functools.partial(self.call, value)

    def _pure(self, f: Any, args: Any, kwargs: Any) -> Any:
        if f is len and (found := self.length(args[0])) is not None:
            return found
        if f in NUMERIC and not kwargs:
            found = applied(f, args) if any(isinstance(a, Pending) for a in args) else (
                self.composed(f, *args))
            if found is not None:
                return found
        if f in _BY_IDENTITY and any(isinstance(a, Tensor) or self.is_own(a) for a in args):
            self.refuse(f"{f.__name__}() of an object that is another at every call")
        for a in (*args, *kwargs.values()) if f not in _OF_KINDS else ():
            if hasattr(type(a), "__next__"):
                self.iterate(a)
            self.seen(a)
        wrapped = self.followed if rules.calls_back(f) else self.callback
        args = [plain(wrapped(a)) for a in args]
        result = f(*args, **{k: plain(wrapped(v)) for k, v in kwargs.items()})
        return self.fresh(result) if rules.makes_new(f) else result

    def _construct(self, cls: type, args: Any, kwargs: Any) -> Any:
        if cls is type and len(args) == 1:
            return next((k for k in (float, int) if isinstance(args[0], (Varying, Pending))
                         and isinstance(args[0], k)), type(args[0]))
        if cls in (float, int) and len(args) == 1 and isinstance(args[0], (Tensor, Pending)):
            return self._read(cls, args[0])
        if rules.is_pure(cls):
            return self._pure(cls, args, kwargs)
        if issubclass(cls, (Module, Optimizer, LRScheduler)):
            self.refuse(f"making a {cls.__name__}")
        if rules.is_lampion(cls):
            return self.fresh(cls(*args, **kwargs))
        init = kinds.static(cls, "__init__")
        new: Any = cls.__new__
        if type(cls) is not type or new is not object.__new__:
            if issubclass(cls, tuple) and hasattr(cls, "_fields") and kinds.is_made_up(new):
                return cls(*args, **kwargs)
            self.refuse(f"making a {cls.__name__}")
        if hasattr(cls, "__del__"):
            self.refuse(f"making a {cls.__name__}, which runs code when it goes")
        self._of_classes(cls.__mro__, "__init__")
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
            f = f.__get__(owner, type(owner))
        if isinstance(owner, types.ModuleType) or owner is None:
            return self._builtin_function(f, args, kwargs)
        if isinstance(owner, type):  # a class method, or __new__
            return self._pure(f, args, kwargs) if owner in rules.READERS else self.refuse(
                f"calling {owner.__name__}.{f.__name__}")
        if self.is_own(owner):
            for a in () if f.__name__ in _KEEPING else args:
                self.seen(a)
            return self._part(f, f(*args, **{k: self.followed(v) for k, v in kwargs.items()}))
        if isinstance(owner, rules.READERS) and f.__name__ not in rules.MUTATORS:
            return self._of_container(f, owner, args, kwargs)
        if type(owner) in _LISTS and f.__name__ in LOGGED and not kwargs:
            return self._logged(owner, f.__name__, args)
        if type(owner) in TABLES and f.__name__ == "update":
            for key, value in dict(*map(self.iterate, args), **kwargs).items():
                self.storing_item(owner)[key] = value
            return None
        return self.refuse(f"{type(owner).__name__}.{f.__name__}() of an object from outside")

    def _logged(self, owner: Any, name: str, args: Any) -> None:
        """A change of a list that is made after the run."""
        if id(owner) in self.given or self.guards.looks_through(owner) or (
                self.guards.looks_at_size(owner)):
            self.refuse(f"{type(owner).__name__}.{name}() of an object from outside that it looks "
                        "at, or that is an argument")
        if name == "extend":
            args = [list(self.iterate(args[0]))]
        elif name in ("insert", "add"):
            self.seen(args[0])
            if isinstance(args[0], Tensor):
                self.refuse("adding a tensor to a set from outside")
        self.effects.note(owner, name, tuple(args))

    def _of_container(self, f: Any, owner: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(owner, (dict, set, frozenset)):
            for a in args:
                self.looked_up(a)
        if f.__name__ == "get" and isinstance(owner, dict) and not kwargs:
            if args[0] in owner:
                return self._of_dict(owner, args[0])
            self.guards.absent(owner, args[0], f"the key {args[0]!r} of a dict")
            return f(*args)
        self.seen(owner)
        result = self._pure(f, args, kwargs)
        return self._part(f, result)

    def _part(self, f: Any, result: Any) -> Any:
        """What a method of a container gives: some make new objects."""
        return self.fresh(result) if f.__name__ in _MAKING else result

    def _builtin_function(self, f: Any, args: Any, kwargs: Any) -> Any:
        if f is getattr:
            try:
                return self.attribute(*args[:2])
            except AttributeError:
                return getattr(*args)
        if f is vars and len(args) == 1 and self.is_own(args[0]):
            return self.fresh(vars(args[0]))
        if f is hasattr:
            try:
                self.attribute(*args)
            except AttributeError:
                return False
            return True
        if f is setattr:
            return setattr(self.storing(args[0], args[1]), *args[1:])
        if f is next and self.is_own(args[0]) and not kinds.moves(type(args[0])):
            return next(*args)
        if f is iter and len(args) == 1:
            return self.fresh(iter(self.iterate(args[0])))
        if rules.is_operator(f):
            return self._operator(f, args)
        if f in _TOLD and isinstance(args[0], (Pending, Tensor)):
            t = args[0].tensor if isinstance(args[0], Pending) else args[0]
            return bool(_TOLD[f](t))
        if rules.is_pure(f):
            return self._pure(f, args, kwargs)
        return self.refuse(f"calling {f.__name__}()")

    def _operator(self, f: Any, args: Any) -> Any:
        """Functions of `operator` that are more than arithmetic."""
        name = f.__name__.strip("_")
        if name == "getitem":
            return self.item(*args)
        if name in ("is", "is_not"):
            return self.identical(*args) is (name == "is")
        if name in ("setitem", "delitem"):
            args = self.storing_item(args[0]), *args[1:]
        elif name in ("contains", "eq", "ne", "lt", "le", "gt", "ge"):
            for a in args:
                self.looked_up(self.compared(a))
        elif name == "call":
            return self.call(*args)
        else:
            self.augmenting(args[0])
            self.seen(args[1])
        return f(*args)


_MAKING = ("copy", "split", "rsplit", "splitlines", "partition", "keys", "values", "items",
           "__iter__", "__reversed__", "union", "intersection", "difference",
           "symmetric_difference")
_KEEPING = ("append", "appendleft", "insert", "add", "setdefault", "get", "pop", "send", "throw",
            "__setitem__")  # what they are given they do not look into
_GETTERS = (operator.attrgetter, operator.itemgetter, operator.methodcaller)
_BY_IDENTITY = (id, hash)
_OF_KINDS = (isinstance, issubclass, callable)  # which look at classes alone
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_GLOBAL_HOOKS = tuple(vars(module_hooks)[f"_global_{name}"] for name in (
    "forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks"))
_WITH_NUMBERS = frozenset(("add", "sub", "mul", "div", "subtract", "multiply", "divide",
                           "true_divide", "lerp", "fill", "addcmul", "addcdiv"))
_LISTS = (list, set, collections.deque)
_MODULE_CALL = Module.__dict__["__call__"]
_TOLD = {math.isnan: isnan, math.isinf: isinf, math.isfinite: isfinite}  # what numbers are


@functools.lru_cache(4096)
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """Names that a function and those inside look up among its globals."""
    import dis

    found = {i.argval: None for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found.update(dict.fromkeys(_global_names(const)))
    return tuple(found)


def _is_plain(value: Any) -> bool:
    """Whether nothing that a function can read of a value is out of sight."""
    return type(value) in kinds.PLAIN or isinstance(value, (
        Tensor, type, *FUNCTIONS, list, tuple, dict, set, frozenset))


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return NOTHING


def _wraps_another(f: types.FunctionType) -> bool:
    """Whether a function of lampion runs a function of the user's (a decorator made it)."""
    if hasattr(f, "__wrapped__") and not rules.is_lampion(f.__wrapped__):
        return True
    return any(isinstance(_contents(c), FUNCTIONS) and not rules.is_lampion(_contents(c))
               for c in f.__closure__ or ())
