"""What a compiled function does, for people: `explain` (kernels, time, fusion) and `memory`.

Both are made from the program itself. `memory` needs no run: it captures a call with the given
arguments, lays its arena out, and adds up what lives at the fullest moment.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ..debug.frames import describe
from ..ops.generator import default_generator
from ..tensor.tensor import Tensor
from .inputs import Source
from .program import Program, steady_inputs
from .trace import Captured, Leaves, trace

__all__ = ["Memory", "explain", "memory", "memory_of"]

_KINDS = ("parameters", "buffers", "gradients", "optimizer state", "arguments", "prepared",
          "activations", "results", "other")
_WIDTH = 44


# --- memory ---------------------------------------------------------------------------------------


class Memory(NamedTuple):
    """Bytes at the fullest moment of a call, by kind and name; `str` shows a table.

    slope: how many of them each row of the first argument brings; None where it is not known.
    """

    name: str
    rows: tuple[tuple[str, str, int], ...]  # kind, name, bytes
    batch: int | None = None
    slope: float | None = None

    @property
    def total(self) -> int:
        """All of them."""
        return sum(size for _, _, size in self.rows)

    def of(self, kind: str) -> int:
        """Those of one kind, such as "parameters" or "activations"."""
        return sum(size for k, _, size in self.rows if k == kind)

    def largest_batch(self, budget: int) -> int:
        """The most rows of the first argument whose call takes at most `budget` bytes.

        ValueError where the arguments have no common first size to vary.
        """
        if self.slope is None or self.batch is None:
            raise ValueError(f"{self.name}: its arguments have no first size in common that could "
                             "be varied; call memory() with other arguments instead")
        fixed = self.total - self.slope * self.batch
        return max(int((budget - fixed) / self.slope), 0) if self.slope > 0 else 1 << 62

    def __str__(self) -> str:
        lines = [f"{self.name}: {_bytes(self.total)} at the fullest moment"]
        for kind in _KINDS:
            if self.of(kind):
                lines.append(f"  {kind:<{_WIDTH}}{_bytes(self.of(kind)):>10}")
                lines += [f"    {name:<{_WIDTH - 2}}{_bytes(size):>10}"
                          for name, size in _largest(self.rows, kind)]
        if self.slope is not None:
            lines.append(f"  {'each row of the batch':<{_WIDTH}}{_bytes(self.slope):>10}")
        return "\n".join(lines)


def _largest(rows: Iterable[tuple[str, str, int]], kind: str, most: int = 6) -> Any:
    """The largest of a kind by name, the others together."""
    found = sorted(((n, s) for k, n, s in rows if k == kind and s), key=lambda r: -r[1])
    if len(found) > most + 1:
        rest = found[most:]
        found = [*found[:most], (f"{len(rest)} others", sum(s for _, s in rest))]
    return found


def _bytes(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def memory(function: Callable[..., Any], args: Any, kwargs: Any) -> Memory:
    """What a call would take. Nothing is run; raises what keeps the function from being captured.

    Activations carry the names of the modules that make them.
    """
    rows = _rows(function, args, kwargs)
    name = getattr(function, "__name__", type(function).__name__)
    batch = _batch(args, kwargs)
    if batch is None:
        return Memory(name, rows)
    twice = _rows(function, *(_resized(a, 2 * batch) for a in (args, kwargs)))
    slope = (sum(r[2] for r in twice) - sum(r[2] for r in rows)) / batch
    return Memory(name, rows, batch, slope)


def memory_of(program: Program, arguments: list[Tensor]) -> Memory:
    """What a call of a program that has been made takes."""
    captured, executable = program.captured, program.native.executable
    arrays = [_example(s, arguments) for s in captured.sources]
    live = () if executable is None else _live(executable)
    return Memory(captured.graph.name, (*_held(captured, arrays), *live))


def _batch(args: Any, kwargs: Any) -> int | None:
    sizes = {t._a.shape[0] for t in Leaves(args, kwargs).tensors if t._a.ndim}
    return sizes.pop() if len(sizes) == 1 else None


def _resized(value: Any, size: int) -> Any:
    """Arguments with more rows, which take no memory: their elements are never read."""
    from ..tensor.tensor import wrap
    from .trace import rebuild

    found: list[Any] = []
    for t in Leaves((value,), {}).tensors:
        a = t._a
        new = np.empty((size, *a.shape[1:]), a.dtype) if a.ndim else a
        found.append(wrap(new, t._dtype).requires_grad_(t._rg))
    return rebuild(value, iter(found))


def _rows(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    from ..passes import compile_graph

    captured = trace(function, args, kwargs, leaves := Leaves(args, kwargs))
    arrays = [_example(s, leaves.tensors) for s in captured.sources]
    return *_held(captured, arrays), *_live(compile_graph(
        captured.graph, arrays, steady=steady_inputs(captured)))


def _held(captured: Captured, arrays: list[Any]) -> Iterable[tuple[str, str, int]]:
    """What is there before a call or after it."""
    rows = [(_kind(s, captured), name, a.nbytes) for s, name, a in zip(
        captured.sources, captured.graph.names, arrays, strict=True)]
    rows += [("gradients", captured.graph.names[w.target], _size(w.node))
             for w in captured.graph.writes if w.what == "grad"]
    shown = {o.place for o in captured.outputs if o.kind in ("value", "window")}
    for i, node in enumerate(captured.graph.outputs):
        if i in shown:
            rows.append(("results", f"result {i}", _size(node)))
        else:
            rows.append(("activations", f"{_module(node.where)} (kept for backward)", _size(node)))
    return rows


def _example(source: Source, arguments: list[Tensor]) -> Any:
    if source.kind == "argument":
        return arguments[source.value]._a
    if source.kind == "tensor":
        return source.value._a
    return source.value if source.kind == "constant" else _example(source.value, arguments)


def _size(node: Any) -> int:
    return int(np.prod(node.shape, dtype=np.int64)) * int(node.dtype.itemsize)


def _kind(source: Source, captured: Captured) -> str:
    if source.kind != "tensor":
        return {"argument": "arguments", "grad": "gradients"}.get(source.kind, "other")
    states = [s for u in captured.updates for s in u.states]
    if any(v is source.value for s in states for v in s.values()):
        return "optimizer state"
    return "parameters" if source.value._rg else "buffers"


def _live(executable: Any) -> Iterable[tuple[str, str, int]]:
    """What lives in the arena at the fullest moment, by module."""
    yield "prepared", "made of weights once, see explain()", executable.stream.kept_bytes
    buffers = executable.stream.buffers
    ends = range(len(executable.launches))
    sums = [sum(b.size for b in buffers if b.first <= i <= b.last) for i in ends]
    if not sums:
        return
    fullest = sums.index(max(sums))
    found: dict[str, int] = defaultdict(int)
    for b in buffers:
        if b.first <= fullest <= b.last:
            found[_module(executable.launches[b.first].where)] += b.size
    yield from (("activations", name, size) for name, size in found.items())
    yield "activations", "gaps between them", executable.arena_bytes - sums[fullest]


def _module(where: Any) -> str:
    return where[2] or "outside of modules" if where is not None else "outside of modules"


# --- explain --------------------------------------------------------------------------------------


def explain(compiled: Any) -> str:
    """The programs of a compiled function, launch by launch, measured on copies of its data."""
    name = getattr(compiled.function, "__name__", type(compiled.function).__name__)
    programs = [p for k in compiled.kinds.values() for p in k.programs]
    parts = [f"{name}: {len(programs)} program{'s' * (len(programs) != 1)}"]
    parts += [_program(i, p) for i, p in enumerate(programs, 1)]
    if compiled.changes:
        parts.append("captured again because\n" + "\n".join(f"  {c}" for c in compiled.changes))
    if compiled.reasons:
        parts.append("ran eagerly because\n" + "\n".join(f"  {r}" for r in compiled.reasons))
    return "\n\n".join(parts)


def _program(number: int, program: Program) -> str:
    captured = program.captured
    inputs = ", ".join(f"{n} {node.dtype}{list(node.shape)}" for n, node, s in zip(
        captured.graph.names, captured.graph.inputs, captured.sources, strict=True)
        if s.kind == "argument")
    parts = [f"program {number}, for {inputs or 'no tensor arguments'}", _native(program.native)]
    if captured.backward is not None:
        saved = captured.graph.outputs[captured.backward.saved_from:]
        parts.append(f"  keeps {len(saved)} values for backward: "
                     f"{_bytes(sum(map(_size, saved)))}")
        parts += ["  backward", _native(captured.backward.program)]
    return "\n".join(parts)


def _native(native: Any) -> str:
    if native.executable is None:
        return f"  not ready: {native.error or 'being made'}"
    executable = native.executable
    seconds = _measured(native)
    once = executable.stream.prepared
    steps = sorted(_grouped(executable, seconds).items(), key=lambda item: -item[1][0])
    total = sum(seconds[once:])
    first = (f"  once for weights that stay as they are: {once} launches, "
             f"{sum(seconds[:once]) * 1e3:.2f} ms, {_bytes(executable.stream.kept_bytes)} kept\n")
    head = (f"  {len(seconds) - once} launches, {total * 1e3:.2f} ms, arena "
            f"{_bytes(executable.arena_bytes)}\n{first if once else ''}"
            f"  {'ms':>8}{'share':>7}{'times':>6}{'GFLOP/s':>9}{'GB/s':>7}{'roof':>6}  kernel")
    return "\n".join([head, *(_line(key, values, total) for key, values in steps[:30]),
                      *_beside(executable), *_kept(executable)])


def _beside(executable: Any) -> Iterable[str]:
    """Launches that run side by side, by what runs together."""
    groups = executable.stream.groups
    if not groups:
        return
    yield (f"  side by side on the threads: {sum(g.size for g in groups)} launches in "
           f"{len(groups)} groups")
    found: Counter[str] = Counter()
    for g in groups:
        names = Counter(s.name for s in executable.launches[g.first:g.first + g.size])
        found[", ".join(f"{n} {name}" for name, n in names.most_common())] += 1
    for what, times in found.most_common(8):
        yield f"    {times} x ({what})"


def _kept(executable: Any) -> Iterable[str]:
    """What is made before a backward inside the program and read in it, by module."""
    found: dict[str, int] = defaultdict(int)
    makers = [_module(launch.where) for launch in executable.launches]
    turn = makers.index("backward") if "backward" in makers else 0
    for b in executable.stream.buffers:
        if b.first < turn <= b.last:
            found[makers[b.first]] += b.size
    if not found:
        return
    yield f"  keeps {_bytes(sum(found.values()))} for backward"
    for name, size in _largest([("", n, s) for n, s in found.items()], ""):
        yield f"    {name:<{_WIDTH - 2}}{_bytes(size):>10}"


def _grouped(executable: Any, seconds: list[float]) -> dict[Any, Any]:
    """Launches of one kernel for one line together: seconds, times, flops, bytes, least seconds."""
    found: dict[Any, Any] = {}
    subjects = _subjects()
    for step, launch, s in zip(executable.launches, executable.stream.launches, seconds,
                               strict=True):
        if step.is_prepared:
            continue
        where = "" if step.where is None else describe(*step.where[:2]).rpartition("/")[2]
        key = step.name, " ".join(step.operators), where, step.is_host
        cell = found.setdefault(key, [0.0, 0, 0.0, 0.0, 0.0])
        flops, moved, least = _work(subjects.get(launch.key), launch, step)
        for i, x in enumerate((s, 1, flops, moved, least)):
            cell[i] += x
    return found


def _subjects() -> dict[Any, Any]:
    from ..debug import kernels

    made: list[Any] = [s for every in kernels.MADE for s in every()]
    return {s.key: s for s in made}


def _work(subject: Any, launch: Any, step: Any) -> tuple[float, float, float]:
    if subject is None:
        return 0.0, float(step.bytes), 0.0
    try:
        roof = subject.roof(launch.arguments)
    except (TypeError, ValueError, KeyError, IndexError):  # sizes that only a launch knows
        return 0.0, float(step.bytes), 0.0
    return roof.flops, roof.read + roof.written, roof.seconds


def _line(key: Any, values: list[Any], total: float) -> str:
    name, operators, where, is_host = key
    seconds, times, flops, moved, least = values
    fused = f" = {operators}" if operators and operators.replace(" ", "_") != name else ""
    roof = f"{least / seconds:.0%}" if least else ""
    mark = " (Python)" if is_host else ""
    return (f"  {seconds * 1e3:>8.3f}{seconds / total:>7.1%}{times:>6}{flops / seconds / 1e9:>9.1f}"
            f"{moved / seconds / 1e9:>7.1f}{roof:>6}  {name}{mark}{fused}  {where}")


def _measured(native: Any) -> list[float]:
    """Seconds of every launch, the least of some runs on copies."""
    before = default_generator.get_state()
    try:
        runs = [native.executable.stream.profile(native.copies(), native.some_numbers())
                for _ in range(5)]
    finally:
        default_generator.set_state(before)
    return [min(times) for times in zip(*runs, strict=True)]

