"""The watcher: what an instrumented function reads, calls and is about to change.

Reads of objects from outside become guards (`guards.Guards`). A change of such an object, or a
call whose effect cannot be known, raises `Break` before it happens: the function then runs eagerly.
Objects that the function itself made are its own business.
"""

from __future__ import annotations

import collections
import functools
import importlib.util
import operator
import sys
import types
from typing import Any, NoReturn

import numpy as np

from ..amp.grad_scaler import GradScaler
from ..autograd.function import BackwardNode
from ..autograd.modes import state
from ..debug.frames import describe, user_code
from ..nn.modules.module import Module
from ..optim.lr_scheduler import LRScheduler
from ..optim.optimizer import Optimizer
from ..tensor.abstract import AbstractArray
from ..tensor.tensor import Tensor
from . import kinds, rules
from .effects import CellPlace, ClassPlace, Effects, EntryPlace, Place
from .guards import Guards
from .pending import COMPARED, NotYet, Pending, as_operand, combined, comparison
from .positions import positioned, taken
from .prefixes import TRANSPARENT, Prefixes
from .varying import BINARY, Varying, as_tensor, composed, exact, plain, varying

__all__ = ["FUNCTIONS", "NOTHING", "TABLES", "TOLD", "Break", "Watcher"]

NOTHING = object()
TOLD = "a number that it looks at"
_SCALARS = (int, float, str, bool, complex, bytes, type(None), Tensor, slice, range)
FUNCTIONS = (types.FunctionType, types.MethodType)
_LONG = 10_000  # elements of a container whose contents are worth a guard


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
        self.prefixes = Prefixes(self)
        self.own: dict[int, Any] = {}  # objects that the function made, kept alive
        self.effects = Effects()  # on objects from outside
        self.varying: set[Any] = set()  # entries of dicts that may be numbers of the program
        self.numbers: dict[Any, Varying] = {}  # those that are, and numbers among the arguments
        self.every: list[Varying] = []  # the same, and what is computed of them
        self.computed: dict[Any, Any] = {}  # by function and arguments
        self.facts: list[tuple[Any, Any, str]] = []  # what they told: how to ask again, the answer
        self.given: dict[int, Any] = {}  # containers of arguments, which calls are told apart by
        self.known: dict[Any, Any] = {}  # instrumented functions
        self.lent: set[tuple[int, str]] = set()  # entries that hold other tensors for a while
        self.broken: BaseException | None = None  # why there is no program, even if it was caught

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
            if id(value) in self.steps.stepped:
                self.refuse("looking at a step count after its optimizer's step")
            self.steps.lift(value, label)
            if value._rg:
                self._watch_hooks(value)
        return value

    def _watch_hooks(self, t: Tensor) -> None:
        """Guards on the hooks of a tensor from outside, which are followed where they run."""
        for table in ("_hooks", "_post_hooks"):
            hooks = t.__dict__.get(table)
            if hooks is None:
                self.guards.absent(t.__dict__, table, "hooks of a tensor")
            else:
                self.guards.entry(t.__dict__, table, hooks, "hooks of a tensor")
                self.guards.contents(hooks, "hooks of a tensor")

    @staticmethod
    def slice(*parts: Any) -> slice:
        """The slice of a subscript."""
        return slice(*parts)

    def refuse(self, what: str) -> None:
        """Raises Break with the user's line."""
        self.stop(Break(what, describe(*user_code(2))))

    def stop(self, error: BaseException) -> NoReturn:
        """Raises an error that holds even where the function catches it."""
        self.broken = error
        raise error

    # --- reads ----------------------------------------------------------------------------------

    def attribute(self, obj: Any, name: str) -> Any:
        """`obj.name`"""
        if kinds.hides(type(obj)):
            self.refuse(f"reading .{name} of a {type(obj).__name__}")
        obj = self.seen(obj) if isinstance(obj, (Varying, Pending)) else obj
        for kind, read in _READING:
            if isinstance(obj, kind):
                return read(self, obj, name)
        if type(obj) in kinds.PLAIN:
            return getattr(obj, name)
        return self._of_object(obj, name)

    def _of_object(self, obj: Any, name: str) -> Any:
        kind, own = type(obj), kinds.instance_dict(obj)
        found = kinds.static(kind, name)
        if not self.is_own(obj):
            self.guards.kind(obj)
        if name == "__dict__" and own is not None and self.is_own(obj):
            return self.fresh(own)
        if isinstance(found, property):
            self._of_classes(kind.__mro__, name)
            return self.call(found.fget, obj)
        if own is not None and name in own and not hasattr(found, "__set__"):
            return self._entry(own, name, obj, name)
        for table in ("_parameters", "_buffers", "_modules") if isinstance(obj, Module) else ():
            if name in own[table]:  # type: ignore[index]
                return self._entry(own[table], name, obj, name)  # type: ignore[index]
        self._of_classes(kind.__mro__, name)
        self._absent(obj, own, name)
        if found is not None or any(name in cls.__dict__ for cls in kind.__mro__):
            return self._by_class(obj, name, found)
        fallback = kinds.static(kind, "__getattr__")
        if isinstance(fallback, types.FunctionType) and not rules.is_lampion(fallback):
            self._of_classes(kind.__mro__, "__getattr__")
            return self.call(types.MethodType(fallback, obj), name)
        value = getattr(obj, name)
        if not self.is_own(obj) and not rules.is_lampion(kind):
            self.refuse(f"reading .{name} of a {kind.__name__}, which keeps it out of sight")
        return value

    def _absent(self, obj: Any, own: Any, name: str) -> None:
        """Guards on the object's not having an attribute itself."""
        if own is not None and not self.is_own(obj):
            self.guards.absent(own, name, f"{_label(obj)}.{name}")
        for table in ("_parameters", "_buffers", "_modules") if isinstance(obj, Module) else ():
            self.guards.absent(own[table], name, f"{_label(obj)}.{name}")

    def _of_optimizer(self, obj: Any, name: str) -> Any:
        """`step` and `zero_grad` are for programs what they are in lampion's own classes."""
        patch = obj.__dict__.get(name)
        if name not in ("step", "zero_grad") or (
                patch is not None and not hasattr(patch, "_wrapped_by_lr_sched")) or (
                name == "zero_grad" and not rules.is_lampion(kinds.static(type(obj), name))):
            return self._of_object(obj, name)
        self._of_classes(type(obj).__mro__, name)
        if patch is None:
            self.guards.absent(obj.__dict__, name, f"{_label(obj)}.{name}")
        else:
            self.guards.entry(obj.__dict__, name, patch, f"{_label(obj)}.{name}")
        return functools.partial(self.steps.optimizer, self, obj, name)

    def _of_scaler(self, obj: GradScaler, name: str) -> Any:
        """Methods of scalers are for programs what they are in lampion's own class."""
        if name.startswith("_") or name in obj.__dict__ or not rules.is_lampion(
                kinds.static(type(obj), name) or type(obj)):
            return self._of_object(obj, name)
        self._of_classes(type(obj).__mro__, name)
        return functools.partial(self.steps.scaler, self, obj, name)

    def _of_scheduler(self, obj: Any, name: str) -> Any:
        if name == "step" and name not in obj.__dict__:
            return functools.partial(self.steps.scheduler, self, obj)
        if self.steps.after:
            self.refuse(f"looking at a {type(obj).__name__} after its step")
        return self._of_object(obj, name)

    def _entry(self, table: dict[Any, Any], key: Any, owner: Any, name: Any) -> Any:
        value = dict.__getitem__(table, key)
        self.not_moved(table)
        place = id(table), key
        if self.is_own(owner) or id(owner) in self.given or place in self.lent:
            return value
        if place in self.effects.places:
            return self.sight(value)
        text = f"{_label(owner)}.{name}"
        if value.__class__ in (int, float) and place in self.varying:
            value = self._vary(place, value, lambda _: dict.get(table, key))
        else:
            self.guards.entry(table, key, value, text)
            value = self.sight(value, self.steps.label(owner, name))
        counted = self.steps.counts.get(place)
        return value if counted is None else self.binary("Add", value, counted[2])

    def _vary(self, place: Any, value: Any, read: Any) -> Any:
        """What was another number at every call."""
        if place not in self.numbers:
            self.numbers[place] = varying(value, read)
            self.every.append(self.numbers[place])
        return self.numbers[place]

    def composed(self, f: Any, *args: Any) -> Any:
        """`f(*args)` of numbers, some of which vary; None where that is no number."""
        if not any(isinstance(a, Varying) for a in args):
            return None
        key = f, *(id(a) if isinstance(a, Varying) else (str(a), a.__class__) for a in args)
        if key not in self.computed:
            self.computed[key] = composed(f, args)
            if self.computed[key] is not None:
                self.every.append(self.computed[key])
        return self.computed[key]

    def told(self, number: Varying) -> Any:
        """The value of a number that varies: a fact that the program holds for."""
        value = plain(number)
        self.facts.append((number.read, value, TOLD))
        return value

    def _by_class(self, obj: Any, name: str, found: Any) -> Any:
        kind, own = type(obj), self.is_own(obj)
        get = kinds.getter(found)
        if get is not None:
            return self.call(types.MethodType(get, found), obj, kind)
        if isinstance(found, functools.cached_property):
            self.refuse(f"{kind.__name__}.{name}, a cached property that is not there yet")
        value = getattr(obj, name)
        if isinstance(found, kinds.FIELD):
            return value
        if not kinds.is_bound(found) and not own:
            self.guards.other((id(obj), name), lambda: getattr(obj, name, NOTHING),
                              f"{kind.__name__}.{name}")
        return value if own else self.sight(value)

    def _of_classes(self, classes: Any, name: str) -> None:
        """Guards on what is the first of these classes that has a name, and what it has."""
        for cls in kinds.mutable(classes):
            text = f"{cls.__name__}.{name}"
            if name in cls.__dict__:
                return self.guards.entry(kinds.class_dict(cls), name, cls.__dict__[name], text)
            self.guards.absent(kinds.class_dict(cls), name, text)
        return None

    def _of_class(self, obj: Any, name: str) -> Any:
        found = kinds.static(obj, name)
        get = None if found is None else kinds.getter(found)
        if name in obj.__dict__ and found.__class__ in (int, float) and (
                not rules.is_lampion(obj)):
            return self._entry(kinds.class_dict(obj), name, obj, name)
        self._of_classes(obj.__mro__, name)
        if get is not None:
            return self.call(types.MethodType(get, found), None, obj)
        value = getattr(obj, name)
        if (id(kinds.class_dict(obj)), name) in self.guards.own:
            return value
        if not callable(value) and not rules.is_lampion(obj):
            self.guards.other((id(obj), name), lambda: getattr(obj, name, NOTHING),
                              f"{obj.__name__}.{name}")
        return value

    def _of_super(self, obj: Any, name: str) -> Any:
        """`super().name`"""
        classes = obj.__self_class__.__mro__
        classes = classes[classes.index(obj.__thisclass__) + 1:]
        self._of_classes(classes, name)
        found = next((c.__dict__[name] for c in classes if name in c.__dict__), None)
        return self.call(found.fget, obj.__self__) if isinstance(found, property) else getattr(
            obj, name)

    def _of_function(self, obj: Any, name: str) -> Any:
        """Attributes that were put on a function."""
        function = getattr(obj, "__func__", obj)
        own = getattr(function, "__dict__", {})
        if name in own:
            return self._entry(own, name, function, name)
        if not name.startswith("__"):
            self.guards.absent(own, name, f"{function.__name__}.{name}")
        return getattr(obj, name)

    def _of_module(self, obj: types.ModuleType, name: str) -> Any:
        made_up = name not in vars(obj) and not rules.is_lampion(obj)
        if made_up and not rules.is_standard(obj.__name__) and "__getattr__" in vars(obj):
            self.refuse(f"reading {obj.__name__}.{name}, which the module makes up")
        value = self.sight(getattr(obj, name), name)
        if not rules.is_standard(obj.__name__) and name in vars(obj):
            self.guards.entry(vars(obj), name, value, f"{obj.__name__}.{name}")
        return value

    def _of_tensor(self, t: Tensor, name: str) -> Any:
        if name not in TRANSPARENT:
            self.prefixes.tell(t)
        if name in ("grad", "_grad"):
            return self.steps.grad_of(t)
        if self._made_here(t):
            return getattr(t, name)
        if name == "item":
            if id(t) not in self.steps.arguments:
                self.sight(t)
            return t.item
        if name in rules.TENSOR_STATE or (name in rules.HISTORY and id(t) in self.steps.twins):
            self.refuse(f"Tensor.{name} of a tensor from outside")
        if name in t.__dict__ or kinds.static(type(t), name) is None:
            if id(t) in self.steps.arguments:
                self.refuse(f"reading .{name} of an argument")
            if name in t.__dict__:
                return self._entry(t.__dict__, name, t, name)
            self.guards.absent(t.__dict__, name, f"Tensor.{name}")
        return getattr(t, name)

    def _made_here(self, t: Tensor) -> bool:
        base = t if t._base is None else t._base
        return base.__dict__.get("_born_in") is state.recorder

    @staticmethod
    def _is_recorded(t: Tensor) -> bool:
        return type(t._a) is AbstractArray and t._a.recorder is state.recorder

    def item(self, obj: Any, index: Any) -> Any:
        """`obj[index]`"""
        if isinstance(obj, Tensor) and (place := positioned(self, index)) is not None:
            return self._copied(self.sight(obj), place)
        if isinstance(obj, Tensor) and (part := self.prefixes.cut(obj, index)) is not None:
            return part
        self.seen(index)
        method = kinds.static(type(obj), "__getitem__")
        if isinstance(method, types.FunctionType) and not isinstance(obj, Tensor):
            self._of_classes(type(obj).__mro__, "__getitem__")
            return self.call(types.MethodType(method, obj), index)
        if isinstance(obj, (Tensor, tuple, str, bytes, range, type)):
            return obj[index]  # type: ignore[index]
        if isinstance(obj, dict):
            return self._of_dict(obj, index)
        if isinstance(obj, list):
            self.seen(obj, deep=False)
            return self.fresh(obj[index]) if isinstance(index, slice) else obj[index]
        if self.is_own(obj):
            return obj[index]
        return self.refuse(f"reading an item of a {type(obj).__name__}")

    def _copied(self, t: Tensor, index: Any) -> Tensor:
        """What a view would show: nothing of both may be written to any more."""
        found = taken(t, index)
        for shown in (t, found):
            base = shown if shown._base is None else shown._base
            self.steps.recorder.frozen_memory[id(base)] = base
        self.steps.recorder.unreturned[id(base)] = base
        return found

    def _of_dict(self, obj: dict[Any, Any], key: Any) -> Any:
        own = self.is_own(obj) or id(obj) in self.given
        if not own:
            self.looked_up(key)
        if key in obj:
            return self._entry(obj, key, obj, repr(key))
        if not own:
            self.guards.absent(obj, key, f"the key {key!r} of a dict")
        missing = kinds.static(type(obj), "__missing__")
        if isinstance(missing, types.FunctionType):
            self._of_classes(type(obj).__mro__, "__missing__")
            return self.call(types.MethodType(missing, obj), key)
        if not own and missing is not None and any(obj is o.state for o in self.steps.followed):
            self.stop(NotYet("the optimizer has no state before its first step"))
        if not own and missing is not None:
            self.refuse(f"a new key {key!r} in a dict from outside")
        return self.fresh(obj[key])  # a default, or KeyError

    def looked_up(self, key: Any) -> Any:
        """What is looked for in a container: arguments are other objects at every call."""
        if isinstance(key, tuple):
            for k in key:
                self.looked_up(k)
        if isinstance(key, Tensor) and id(key) in self.steps.arguments:
            self.refuse("looking an argument up in a container")
        return key

    def iterate(self, obj: Any) -> Any:
        """What a loop, a `*` or a comprehension walks over."""
        if kinds.moves(type(obj)):
            self.refuse(f"walking over a {type(obj).__name__}")
        method = kinds.static(type(obj), "__iter__")
        if isinstance(method, types.FunctionType) and not isinstance(obj, Tensor):
            self._of_classes(type(obj).__mro__, "__iter__")
            found = self.call(types.MethodType(method, obj))
            if kinds.moves(type(found)):
                self.refuse(f"walking over a {type(obj).__name__}")
            return found
        if isinstance(obj, (*_SCALARS, tuple)) or self.is_own(obj) or id(obj) in self.given:
            return obj
        if isinstance(obj, rules.READERS):
            return self.seen(obj, deep=False)
        return self.refuse(f"walking over a {type(obj).__name__} from outside, which moves it on")

    unpacked = iterate

    def spread(self, table: Any) -> Any:
        """What `**` takes apart."""
        if not isinstance(table, dict):
            self.refuse(f"`**` of a {type(table).__name__}")
        return self.seen(table)

    def seen(self, value: Any, deep: bool = True) -> Any:
        """A value whose contents decide what happens; deep: and what these contain."""
        if isinstance(value, Varying):
            return self.told(value)
        if isinstance(value, Pending):
            self.stop(Break("using a number read from a tensor, which has no value until the "
                            "program runs (return it, or keep it as a tensor); it was read",
                            value.where))
        if isinstance(value, slice):
            for part in (value.start, value.stop, value.step):
                self.seen(part)
        if type(value) in kinds.PLAIN:
            return value
        if isinstance(value, Tensor):
            self.prefixes.tell(value)
            return value
        if kinds.has_operations(type(value)):
            self.refuse(f"using a {type(value).__name__}, which defines operators of its own")
        if isinstance(value, _SCALARS) or self.is_own(value) or id(value) in self.given:
            return value
        if isinstance(value, _CONTAINERS):
            if len(value) > _LONG:
                self.refuse(f"using a {type(value).__name__} of {len(value)} elements")
            self.not_moved(value)
            self.guards.contents(value, f"a {type(value).__name__}")
            for v in value.values() if isinstance(value, dict) else value:
                self.sight(v)
                if isinstance(v, np.ndarray) or (deep and isinstance(v, _CONTAINERS)):
                    self.seen(v)
        elif isinstance(value, tuple):
            for v in value:  # one from outside was looked through by `sight`
                self.seen(v if id(v) in self.steps.arguments else self.sight(v))
        elif isinstance(value, np.ndarray):
            self.refuse("using a NumPy array, whose elements may change: pass a tensor instead")
        elif kinds.holds(type(value)):
            self.refuse(f"using a {type(value).__name__}, whose contents may change")
        return value

    def not_moved(self, table: Any) -> None:
        """What a scheduler's step has changed is there after the run only."""
        if id(table) in self.steps.moved:
            self.refuse("looking at an optimizer's group after a scheduler's step")
        if id(table) in self.effects.logged:
            self.refuse(f"looking at a {type(table).__name__} from outside that it has changed")

    def compared(self, value: Any) -> Any:
        """What is compared: by value, unless it is of a class that says otherwise."""
        self.seen(value)
        for v in value if isinstance(value, (list, tuple, set, frozenset)) else (value,):
            if v is not value and isinstance(v, (list, tuple)):
                self.compared(v)
            elif kinds.compares(type(v)):
                self.refuse(f"comparing a {type(v).__name__}")
        return value

    def identical(self, left: Any, right: Any) -> bool:
        """`left is right`"""
        for a, b in ((left, right), (right, left)):
            if isinstance(a, Tensor) and id(a) in self.steps.arguments and (
                    id(b) not in self.steps.arguments):
                self.sight(b)  # then every run sees to it that no argument is this one
        return left is right

    # --- changes --------------------------------------------------------------------------------

    def storing(self, obj: Any, name: str) -> Any:
        """Before `obj.name = ...`"""
        if isinstance(obj, Tensor):
            if name == "grad":
                self.steps.set_grad(obj)
            elif name != "requires_grad" and not self._made_here(obj):
                self.refuse(f"setting .{name} of a tensor from outside")
            return obj
        if kinds.sets(type(obj), name):
            self.refuse(f"setting {name!r} of a {type(obj).__name__}, which runs code")
        if not self.is_own(obj):
            for place in self._places(obj, name):
                self.keep(place)
        return obj

    def _places(self, obj: Any, name: str) -> list[Place]:
        """Where an attribute of an object from outside may lie."""
        own: Any = kinds.instance_dict(obj)
        if isinstance(obj, type) and not rules.is_lampion(obj):
            return [ClassPlace(obj, name)]
        if own is None or isinstance(obj, _ITS_OWN_WAY) or id(obj) in self.given or hasattr(
                kinds.static(type(obj), name), "__set__") or (
                rules.is_lampion(obj if isinstance(obj, types.ModuleType) else type(obj))
                and not isinstance(obj, Module)):
            self.refuse(f"setting the attribute {name!r} of a {type(obj).__name__} from outside")
        parts = ("_parameters", "_buffers", "_modules") if isinstance(obj, Module) else ()
        label = f"{_label(obj)}.{name}"
        return [EntryPlace(t, name, label) for t in (own, *(own[p] for p in parts))]

    def keep(self, place: Place) -> None:
        """Before something from outside is assigned to: it will be after every run."""
        if isinstance(place, EntryPlace) and self.guards.looks_through(place.table):
            self.refuse(f"setting {place.label} of a {type(place.table).__name__} from outside, "
                        "all of which it looks at")
        self.effects.before(place)
        counted = self.steps.counts.get(place.key)
        if counted is not None:
            place.set(self._entry(counted[0], counted[1], None, counted[1]))
            del self.steps.counts[place.key]
        self.guards.own.add(place.key)

    def count(self, obj: Any, name: str, step: int) -> None:
        """`obj.name += 1`: a counter is moved on after each run."""
        own = kinds.instance_dict(obj)
        if self.is_own(obj) or isinstance(obj, Tensor) or own is None or type(
                own.get(name)) is not int or hasattr(kinds.static(type(obj), name), "__set__") or (
                (id(own), name) in self.effects.places):
            self.update(self.loaded(obj, name), "Add", step)
            return
        before = self.steps.counts.get((id(own), name), (own, name, 0))[2]
        self.steps.counts[id(own), name] = own, name, before + step

    def loaded(self, obj: Any, name: str) -> Any:
        """The left side of `obj.name += ...`, and what it is now."""
        return setattr, self.storing, obj, name, self.attribute(obj, name)

    def loaded_item(self, obj: Any, index: Any) -> Any:
        """The left side of `obj[index] += ...`, and what it is now."""
        return operator.setitem, self._item_target, obj, index, self.item(obj, index)

    def update(self, loaded: Any, kind: str, right: Any) -> None:
        """`left += right` and its like of an attribute or an item."""
        store, before, obj, name, was = loaded
        value = self.augmented(kind, was, right)
        if value is was and isinstance(value, Tensor) and not isinstance(obj, Tensor) and (
                not self.is_own(obj)):
            return  # changed in place
        store(before(obj, name), name, value)

    def _item_target(self, obj: Any, index: Any) -> Any:
        return self.storing_item(obj)

    def storing_item(self, obj: Any) -> Any:
        """Before `obj[...] = ...`: what takes the item."""
        if not isinstance(obj, Tensor) and kinds.sets(type(obj), "[]"):
            self.refuse(f"setting an item of a {type(obj).__name__}, which runs code")
        if not isinstance(obj, Tensor) and not self.is_own(obj) and (
                type(obj) not in TABLES or id(obj) in self.given):
            self.refuse(f"setting an item of a {type(obj).__name__} from outside")
        return _Items(self, obj)

    def rebinding(self, name: str, read: Any, value: Any) -> Any:
        """Before a global or a variable around the function gets a value."""
        self.keep(EntryPlace(read.__globals__, name, name) if not read.__closure__ else
                  CellPlace(read.__closure__[0], name))
        return value

    def variable(self, name: str, read: Any) -> Any:
        """Such a variable where it is read."""
        if not read.__closure__:
            table = read.__globals__
            return self._entry(table, name, None, name) if name in table else read()
        cell = read.__closure__[0]
        place, value = (id(cell), None), read()
        if place in self.effects.places:
            return value
        if value.__class__ in (int, float) and place in self.varying:
            return self._vary(place, value, lambda _: cell.cell_contents)
        self.guards.cell(cell, name)
        return self.sight(value, name)

    def augmenting(self, value: Any) -> None:
        """Before `name += ...`, which changes the object itself where it can be changed."""
        if kinds.has_operations(type(value)) and not isinstance(value, Tensor):
            self.seen(value)
        if isinstance(value, (*_SCALARS, tuple)) or self.is_own(value):
            return
        self.refuse(f"changing a {type(value).__name__} from outside in place")

    def binary(self, kind: str, left: Any, right: Any) -> Any:
        """`left + right` and its like."""
        found = combined(kind, left, right) if self._is_pending(left, right) else self.composed(
            BINARY[kind], left, right)
        if found is not None:
            return found
        return BINARY[kind](self.seen(self.operand(left, right, kind)),
                            self.seen(self.operand(right, left, kind)))

    def augmented(self, kind: str, left: Any, right: Any) -> Any:
        """What a name becomes by `name += right` and its like."""
        if isinstance(left, (Varying, Pending)) or (
                isinstance(right, (Varying, Pending)) and not isinstance(left, Tensor)):
            return self.binary(kind, left, right) if kind in BINARY else _IN_PLACE[kind](
                self.seen(left), self.seen(right))
        self.augmenting(left)
        return _IN_PLACE[kind](left, self.seen(self.operand(right, left, kind)))

    @staticmethod
    def _is_pending(left: Any, right: Any) -> bool:
        return isinstance(left, Pending) or isinstance(right, Pending)

    @staticmethod
    def operand(number: Any, other: Any, kind: str, stored: bool = False) -> Any:
        """A number of the program as what a tensor is combined with; stored: see `exact`."""
        if kind not in _EXACT or not isinstance(number, (Varying, Pending)) or not (
                isinstance(other, Tensor) and exact(number, other, stored)):
            return number
        if isinstance(number, Varying):
            return as_tensor(number, other, state.recorder)
        found = as_operand(number, other)
        return number if found is None else found

    def negative(self, value: Any) -> Any:
        """`-value`"""
        if isinstance(value, Pending):
            return self.binary("Mult", -1, value)
        found = self.composed(operator.neg, value)
        return -self.seen(value) if found is None else found

    def _is_container(self, value: Any) -> bool:
        """Whether something is a plain container from outside, not all of which was looked at."""
        if type(value) not in _PLAIN_CONTAINERS or self.is_own(value) or id(value) in self.given:
            return False
        self.not_moved(value)
        return not self.guards.looks_through(value)

    def tested(self, value: Any) -> Any:
        """What `if`, `and`, `not` and their like look at: of a container, whether it is empty."""
        if not self._is_container(value):
            return self.seen(value)
        self.guards.other((id(value), "any"), lambda: bool(value),
                          f"whether a {type(value).__name__} is empty")
        return value

    def length(self, value: Any) -> Any:
        """`len(value)` of a container from outside; None of other things."""
        if not self._is_container(value):
            return None
        self.guards.other((id(value), "len"), lambda: len(value),
                          f"the length of a {type(value).__name__}")
        return len(value)

    def contained(self, key: Any, container: Any) -> Any:
        """`key in container`"""
        self.looked_up(key)
        if type(container) not in TABLES or type(key) not in kinds.PLAIN or not (
                self._is_container(container)):
            return key in self.compared(container)
        if (id(container), key) not in self.guards.own:
            self.guards.other((id(container), "in", key), lambda: key in container,
                              f"whether a dict has {key!r}")
        return key in container

    def compare(self, kind: str, left: Any, right: Any) -> Any:
        """`left < right` and its like."""
        found = comparison(kind, left, right) if self._is_pending(left, right) else None
        if found is not None:
            return bool(found)
        numbers = [isinstance(x, Varying) or x.__class__ in (int, float) for x in (left, right)]
        if all(numbers) and (isinstance(left, Varying) or isinstance(right, Varying)):
            return self._compared_numbers(COMPARED[kind], left, right)
        return COMPARED[kind](self.compared(left), self.compared(right))

    def _compared_numbers(self, f: Any, left: Any, right: Any) -> bool:
        """How numbers that vary compare: a fact, which holds for many of them."""
        found = f(plain(left), plain(right))
        reads = [x.read if isinstance(x, Varying) else (lambda given, x=x: x)
                 for x in (left, right)]
        self.facts.append((lambda given: f(*[read(given) for read in reads]), found,
                           "a comparison of numbers"))
        return bool(found)

    def raising(self, error: Any) -> Any:
        """What is raised: of a class, an object is made."""
        return self.call(error) if isinstance(error, type) else error

    def imported(self, module: str, level: int, package: str | None, names: Any) -> None:
        """After `from module import names`"""
        found = sys.modules.get(importlib.util.resolve_name("." * level + module, package))
        for name in names:
            if found is None or name == "*":
                self.refuse(f"`from {module} import {name}`")
            else:
                self._of_module(found, name)

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
        if name not in rules.CONTEXTS or not (rules.is_lampion(type(manager)) or type(
                manager).__module__ == "contextlib"):
            self.refuse(f"`with` of a {name}")
        return manager

    def call(self, f: Any, *args: Any, **kwargs: Any) -> Any:
        """`f(*args, **kwargs)`, see `calls.py`."""
        raise NotImplementedError


_READING: Any = ((Tensor, Watcher._of_tensor), (types.ModuleType, Watcher._of_module),
            (super, Watcher._of_super), (type, Watcher._of_class),
            (FUNCTIONS, Watcher._of_function), (Optimizer, Watcher._of_optimizer),
            (LRScheduler, Watcher._of_scheduler), (GradScaler, Watcher._of_scaler))
_CONTAINERS = (list, dict, set, frozenset, collections.deque)
_NAMES = {"Add": "iadd", "Sub": "isub", "Mult": "imul", "Div": "itruediv", "Mod": "imod",
          "FloorDiv": "ifloordiv", "Pow": "ipow", "MatMult": "imatmul", "BitAnd": "iand",
          "BitOr": "ior", "BitXor": "ixor", "LShift": "ilshift", "RShift": "irshift"}
_IN_PLACE = {kind: getattr(operator, name) for kind, name in _NAMES.items()}
_EXACT = ("Add", "Sub", "Mult", "Div")  # do the same with a tensor of one element as with a number
_PLAIN_CONTAINERS = (dict, list, set, frozenset, collections.OrderedDict, collections.defaultdict,
                     collections.deque)
TABLES = (dict, collections.OrderedDict, collections.defaultdict)
_ITS_OWN_WAY = (Optimizer, LRScheduler, GradScaler, types.FunctionType, types.MethodType, type)


class _Items:
    """Something whose items are set."""

    def __init__(self, watcher: Watcher, owner: Any) -> None:
        self.watcher, self.owner = watcher, owner

    def __setitem__(self, key: Any, value: Any) -> None:
        watcher, owner = self.watcher, self.owner
        if isinstance(owner, Tensor):
            place = positioned(watcher, key)
            value = plain(watcher.seen(watcher.operand(value, owner, "Add", True)))
            owner[watcher.seen(key) if place is None else place] = value
            return
        key = plain(watcher.looked_up(watcher.seen(key)))
        if not watcher.is_own(owner):
            watcher.keep(EntryPlace(owner, key, repr(key)))
        owner[key] = value

    def __delitem__(self, key: Any) -> None:
        if not self.watcher.is_own(self.owner):
            self.watcher.refuse("deleting an item of something from outside")
        del self.owner[self.watcher.seen(key)]


def _label(obj: Any) -> str:
    return "the module" if obj is None else type(obj).__name__
