"""Where a program's inputs come from at each run, and whether what it writes lies apart."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, is_
from typing import Any, NamedTuple

import numpy as np

from ..passes.arrays import Extents, overlap
from ..tensor.storage import root_of
from ..tensor.tensor import Tensor, wrap
from .quick import Facts

__all__ = ["Inputs", "Memory", "Source", "tensor_of"]

_ARRAY = attrgetter("_a")


class Source(NamedTuple):
    """Where an input comes from at each run.

    kind: "argument" (value: which tensor argument), "tensor" (value: the tensor), "grad" (value:
    the Source whose gradient it is), "constant" (value: the array), "cotangent" (which output).
    """

    kind: str
    value: Any


def tensor_of(source: Source, arguments: Sequence[Tensor]) -> Tensor:
    """The tensor of a source at this call."""
    if source.kind == "tensor":
        return source.value  # type: ignore[no-any-return]
    if source.kind == "argument":
        return arguments[source.value]
    if source.kind == "constant":
        return wrap(source.value)
    assert source.kind == "grad"
    held = tensor_of(source.value, arguments)._grad
    assert held is not None
    return held


class Inputs:
    """The tensors behind some sources, found anew at each call.

    >>> import lampion as torch
    >>> w, x = torch.ones(2), torch.ones(3)
    >>> found = Inputs([Source("tensor", w), Source("argument", 0)]).now([x])
    >>> found[0] is w, found[1] is x
    (True, True)
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        fixed = ("tensor", "constant")
        self.known: list[Any] = [tensor_of(s, ()) if s.kind in fixed else None for s in sources]
        self.others = [(i, s) for i, s in enumerate(sources) if s.kind not in fixed]

    def now(self, arguments: Sequence[Tensor]) -> list[Tensor]:
        """Those of this call, in order."""
        found = self.known.copy()
        for i, source in self.others:
            found[i] = arguments[source.value] if source.kind == "argument" else tensor_of(
                source, arguments)
        return found


def _owns(array: Any) -> bool:
    return type(array) is np.ndarray and bool(array.flags.owndata)


class Memory:
    """Whether the arguments of calls lie apart from what a program writes.

    State is looked at once: while tensors keep their arrays, only arguments are new.
    """

    def __init__(self, sources: Sequence[Source], targets: Sequence[int]) -> None:
        """targets: which of the sources are written to."""
        kinds = {s.kind for s in sources}
        self.sources, self.targets = sources, targets
        self.inputs = Inputs([sources[i] for i in targets])
        self.given = {s.value for s in (sources[i] for i in targets) if s.kind == "argument"}
        # Whether all is state or an argument that may only be read, so that what was found out
        # of one call's state holds for the next.
        self.is_plain = "grad" not in kinds and not self.inputs.others
        self.state: list[Tensor] = [s.value for s in sources if s.kind == "tensor"]
        self.quick: Any = None  # gives None while the state's tensors have the same arrays
        self.arrays: list[Any] = []  # of the state, when it was looked at
        self.own: set[int] = set()  # their ids
        self.written: list[Any] = []
        self.extents = Extents([])
        self.roots: set[int] = set()  # ids of the arrays that own what is written
        self.is_owned = False  # whether such arrays own all of it
        self.checked: Any = None  # the machine code that has run with them

    def apart(self, arguments: Sequence[Tensor]) -> bool:
        """Whether no argument shares memory with what is written, nor the reverse."""
        if not self.targets:
            return True
        if self.quick is None or self.quick() is not None:
            self._look()
        suspects = [i for i, t in enumerate(arguments) if t._st is not None
                    or t._a.base is not None or id(t._a) in self.own]
        return not suspects or self._apart(arguments, suspects)

    def _look(self) -> None:
        """Notes the arrays of the state, where they are others."""
        facts = Facts()
        facts.fields(self.state, "_a")
        self.quick = facts.close()
        arrays = list(map(_ARRAY, self.state))
        if len(arrays) != len(self.arrays) or not all(map(is_, arrays, self.arrays)):
            self.arrays, self.own, self.checked = arrays, set(map(id, arrays)), None
            self.written = []

    def _apart(self, arguments: Sequence[Tensor], suspects: list[int]) -> bool:
        if not self.written or not self.is_plain:
            written = list(map(_ARRAY, self.inputs.now(arguments)))
            if len(written) != len(self.written) or not all(map(is_, written, self.written)):
                self.written, self.extents = written, Extents(written)
                roots = list(map(root_of, written))
                self.roots, self.is_owned = set(map(id, roots)), all(map(_owns, roots))
        if not self.given.isdisjoint(suspects):
            return self._all_apart(arguments)
        return not any(self._may_share(arguments[i]._a) for i in suspects)

    def _may_share(self, a: Any) -> bool:
        """Whether an array may lie over one that is written to; what others own never does."""
        root = root_of(a)
        if self.is_owned and id(root) not in self.roots and _owns(root):
            return False
        return bool(self.extents.shared(a))

    def _all_apart(self, arguments: Sequence[Tensor]) -> bool:
        """The same where an argument itself is written to."""
        arrays = [tensor_of(s, arguments)._a for s in self.sources]
        return not any(overlap(arrays[i], arrays[j]) for i in self.targets
                       for j in range(len(arrays)) if i != j)

    def is_checked(self, executable: Any) -> bool:
        """Whether this machine code has checked the state as it is: `apart` saw the rest."""
        return self.checked is executable and (self.is_plain or not self.targets)

    def note(self, executable: Any) -> None:
        """It ran, and checked the memory."""
        self.checked = executable
