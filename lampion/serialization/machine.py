"""A pickle machine that builds data and never runs anything that a file names.

Python's own unpickler calls whatever the stream asks for. This one knows four kinds of
globals, decided by the `Policy` it is given: values, builders of ours, classes whose instances
may be rebuilt, and nothing else. It also bounds what a stream can make it do: nesting of keys,
sizes, and memory in proportion to the stream.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any, Protocol

__all__ = ["Builder", "Machine", "Opaque", "Policy", "UnpicklingError"]

_MARK = object()
_MOST_KEY_NODES = 10_000
_MOST_KEY_DEPTH = 100
_PLAIN_KEYS = (str, int, float, complex, bool, bytes, type(None))


class Builder:
    """One of our functions that a stream may call; it must check its arguments."""

    __slots__ = ("call", "name")

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self.name, self.call = name, call


class Opaque:
    """What an unknown class or call left in a file: its name, arguments, state and items.

    Nothing of it was run. It prints what it was.
    """

    def __init__(self, name: str, args: tuple[Any, ...] | None = None) -> None:
        self.name = name
        self.args = args
        self.state: Any = None
        self.items: list[Any] = []
        self.mapping: dict[Any, Any] = {}

    def contents(self, kind: type) -> Any:
        """Where the items of an unknown list or dict subclass go."""
        if kind is dict:
            return self.mapping
        return self.items if kind is list else set()

    def __repr__(self) -> str:
        made = "" if self.args is None else f", {len(self.args)} arguments"
        return f"<unknown {self.name}{made}>"


class Policy(Protocol):
    """Decides what the names in a stream stand for."""

    def find(self, module: str, name: str) -> Any:
        """The value, `Builder` or class that the global stands for; or UnpicklingError."""

    def create(self, cls: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A new instance of an allowed class."""

    def set_state(self, instance: Any, state: Any) -> None:
        """Give `instance` its saved state; or UnpicklingError."""

    def persistent(self, pid: Any) -> Any:
        """The storage that `pid` stands for."""


class Machine:
    """Runs one pickle from `read(n)` and `readline()`."""

    def __init__(
        self, read: Callable[[int], bytes], readline: Callable[[], bytes], policy: Policy
    ) -> None:
        self._read_some, self._readline = read, readline
        self._policy = policy
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The object that the stream describes."""
        try:
            while True:
                code = self._read(1)
                if code == b".":
                    return self._finish()
                action = _ACTIONS.get(code)
                if action is None:
                    raise UnpicklingError(f"Unsupported operand {code[0]} in the pickle")
                action(self)
        except UnpicklingError:
            raise
        except RuntimeError:
            raise  # of a builder: it says what is wrong with a tensor
        except (IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError,
                MemoryError, struct.error, UnicodeError) as error:  # fmt: skip
            raise UnpicklingError(
                f"the pickle is damaged or hostile: {type(error).__name__}: {error}"
            ) from error

    def _finish(self) -> Any:
        if len(self._stack) != 1:
            raise UnpicklingError(f"the pickle leaves {len(self._stack)} values on its stack")
        return self._stack.pop()

    # --- reading --------------------------------------------------------------------------------

    def _read(self, count: int) -> bytes:
        data = self._read_some(count)
        if len(data) != count:
            raise UnpicklingError("pickle data was truncated")
        return data

    def _line(self) -> bytes:
        line = self._readline()
        if not line.endswith(b"\n"):
            raise UnpicklingError("pickle data was truncated")
        return line[:-1]

    def _sized(self, width: int) -> bytes:
        """Data after its length, an unsigned integer of `width` bytes."""
        return self._read(int.from_bytes(self._read(width), "little"))

    # --- the stack ------------------------------------------------------------------------------

    def _pop_to_mark(self) -> list[Any]:
        stack = self._stack
        for i in range(len(stack) - 1, -1, -1):
            if stack[i] is _MARK:
                items = stack[i + 1 :]
                del stack[i:]
                return items
        raise UnpicklingError("the pickle uses a mark that it did not set")

    def _top(self, kind: type) -> Any:
        value = self._stack[-1]
        if isinstance(value, Opaque):
            return value.contents(kind)
        if not isinstance(value, kind):
            raise UnpicklingError(f"the pickle puts items into a {type(value).__name__}")
        return value

    def _push_fixed(self, count: int) -> None:
        items = tuple(self._stack[-count:])
        if len(items) != count or any(item is _MARK for item in items):
            raise UnpicklingError("the pickle takes more values than it made")
        self._stack[-count:] = [items]

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise UnpicklingError("the pickle takes a mark for a value")
        return value

    # --- actions --------------------------------------------------------------------------------

    def _proto(self) -> None:
        version = self._read(1)[0]
        if version > 5:
            raise UnpicklingError(f"unsupported pickle protocol: {version}")

    def _frame(self) -> None:
        self._read(8)  # a hint about sizes that this machine does not need

    def _append(self) -> None:
        value = self._pop()
        self._top(list).append(value)

    def _appends(self) -> None:
        items = self._pop_to_mark()
        self._top(list).extend(items)

    def _set_item(self) -> None:
        value = self._pop()
        key = self._pop()
        self._fill([key, value])

    def _set_items(self) -> None:
        self._fill(self._pop_to_mark())

    def _fill(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2:
            raise UnpicklingError("the pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            check_key(key)
            target[key] = value

    def _add_items(self) -> None:
        items = self._pop_to_mark()
        self._top(set).update(checked_keys(items))

    def _frozenset(self) -> None:
        self._stack.append(frozenset(checked_keys(self._pop_to_mark())))

    def _dict(self) -> None:
        items = self._pop_to_mark()
        self._stack.append({})
        self._fill(items)

    def _long1(self, width: int = 1) -> None:
        self._stack.append(int.from_bytes(self._sized(width), "little", signed=True))

    def _int(self) -> None:
        text = self._line()
        self._stack.append({b"00": False, b"01": True}.get(text) if text in (b"00", b"01")
                           else int(text))  # fmt: skip

    def _get(self, key: int) -> None:
        if key not in self._memo:
            raise UnpicklingError(f"Memo value not found at index {key}")
        self._stack.append(self._memo[key])

    def _put(self, key: int) -> None:
        value = self._stack[-1]
        if value is _MARK or key < 0:
            raise UnpicklingError("the pickle remembers what is no value")
        self._memo[key] = value

    def _global(self) -> None:
        module, name = self._line().decode(), self._line().decode()
        self._stack.append(self._policy.find(module, name))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise UnpicklingError("STACK_GLOBAL requires str")
        self._stack.append(self._policy.find(module, name))

    def _reduce(self) -> None:
        args, function = self._pop(), self._pop()
        if not isinstance(args, tuple):
            raise UnpicklingError("the pickle calls with something other than a tuple")
        if isinstance(function, Builder):
            self._stack.append(function.call(*args))
        else:
            self._stack.append(self._policy.create(function, args, {}))

    def _new_object(self) -> None:
        args, cls = self._pop(), self._pop()
        self._stack.append(self._policy.create(cls, tuple(args), {}))

    def _new_object_with_keywords(self) -> None:
        kwargs, args, cls = self._pop(), self._pop(), self._pop()
        self._stack.append(self._policy.create(cls, tuple(args), dict(kwargs)))

    def _build(self) -> None:
        state = self._pop()
        instance = self._stack[-1]
        if instance is _MARK:
            raise UnpicklingError("the pickle gives state to no object")
        self._policy.set_state(instance, state)

    def _persistent(self) -> None:
        self._stack.append(self._policy.persistent(self._pop()))

    def _duplicate(self) -> None:
        self._stack.append(self._stack[-1])

    def _extension(self) -> None:
        raise UnpicklingError("the pickle uses the extension registry, which is not supported")


def check_key(key: Any) -> None:
    """Refuse keys that cannot be hashed in bounded time and stack: deep or wide tuples."""
    if isinstance(key, _PLAIN_KEYS):
        return
    pending: list[tuple[Any, int]] = [(key, 0)]
    seen = 0
    while pending:
        value, depth = pending.pop()
        seen += 1
        if seen > _MOST_KEY_NODES or depth > _MOST_KEY_DEPTH:
            raise UnpicklingError("the pickle has a key that is nested too deeply")
        if isinstance(value, (tuple, frozenset)):
            pending.extend((item, depth + 1) for item in value)


def checked_keys(items: Any) -> list[Any]:
    """`items` after `check_key` on each."""
    result = list(items)
    for item in result:
        check_key(item)
    return result


def _unpacked(form: str) -> Callable[[Machine], None]:
    size = struct.calcsize(form)

    def action(m: Machine) -> None:
        m._stack.append(struct.unpack(form, m._read(size))[0])

    return action


def _constant(make: Callable[[], Any]) -> Callable[[Machine], None]:
    return lambda m: m._stack.append(make())


def _text(width: int) -> Callable[[Machine], None]:
    return lambda m: m._stack.append(m._sized(width).decode("utf-8", "surrogatepass"))


def _old_text(width: int) -> Callable[[Machine], None]:
    return lambda m: m._stack.append(m._sized(width).decode("latin-1"))


def _data(width: int) -> Callable[[Machine], None]:
    return lambda m: m._stack.append(m._sized(width))


def _uint(m: Machine, width: int) -> int:
    return int.from_bytes(m._read(width), "little")


_ACTIONS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": Machine._proto,
    b"\x95": Machine._frame,
    b"(": _constant(lambda: _MARK),
    b"0": lambda m: m._stack.pop(),  # type: ignore[dict-item]
    b"1": lambda m: m._pop_to_mark(),  # type: ignore[dict-item]
    b"2": Machine._duplicate,
    b"N": _constant(lambda: None),
    b"\x88": _constant(lambda: True),
    b"\x89": _constant(lambda: False),
    b"I": Machine._int,
    b"J": _unpacked("<i"),
    b"K": _unpacked("<B"),
    b"M": _unpacked("<H"),
    b"L": lambda m: m._stack.append(int(m._line().rstrip(b"L"))),
    b"\x8a": Machine._long1,
    b"\x8b": lambda m: m._long1(4),
    b"F": lambda m: m._stack.append(float(m._line())),
    b"G": _unpacked(">d"),
    b"V": lambda m: m._stack.append(m._line().decode("raw-unicode-escape")),
    b"X": _text(4),
    b"\x8c": _text(1),
    b"\x8d": _text(8),
    b"U": _old_text(1),
    b"T": _old_text(4),
    b"C": _data(1),
    b"B": _data(4),
    b"\x8e": _data(8),
    b"\x96": lambda m: m._stack.append(bytearray(m._sized(8))),
    b"]": _constant(list),
    b"}": _constant(dict),
    b")": _constant(tuple),
    b"\x8f": _constant(set),
    b"a": Machine._append,
    b"e": Machine._appends,
    b"s": Machine._set_item,
    b"u": Machine._set_items,
    b"\x90": Machine._add_items,
    b"\x91": Machine._frozenset,
    b"d": Machine._dict,
    b"l": lambda m: m._stack.append(m._pop_to_mark()),
    b"t": lambda m: m._stack.append(tuple(m._pop_to_mark())),
    b"\x85": lambda m: m._push_fixed(1),
    b"\x86": lambda m: m._push_fixed(2),
    b"\x87": lambda m: m._push_fixed(3),
    b"g": lambda m: m._get(int(m._line())),
    b"h": lambda m: m._get(_uint(m, 1)),
    b"j": lambda m: m._get(_uint(m, 4)),
    b"p": lambda m: m._put(int(m._line())),
    b"q": lambda m: m._put(_uint(m, 1)),
    b"r": lambda m: m._put(_uint(m, 4)),
    b"\x94": lambda m: m._put(len(m._memo)),
    b"c": Machine._global,
    b"\x93": Machine._stack_global,
    b"R": Machine._reduce,
    b"\x81": Machine._new_object,
    b"\x92": Machine._new_object_with_keywords,
    b"b": Machine._build,
    b"Q": Machine._persistent,
    b"\x82": Machine._extension,
    b"\x83": Machine._extension,
    b"\x84": Machine._extension,
}
