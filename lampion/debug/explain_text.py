"""What an `Explainer` found, as text of at most 100 columns."""

from __future__ import annotations

import linecache
import os
import re
from collections.abc import Callable, Iterable

from .explain import NOWHERE, Cost, Explainer, Place

__all__ = ["text"]

_LEAST = 0.01  # of the whole: lines and modules below are not shown
_HEAD = (f"{'ms':>8}{'share':>6}{'back':>5} {'kern':>5}{'NumPy':>6}{'Py':>5}{'GB/s':>6}"
         f"{'GF/s':>6}{'ceil':>5}")
_LABEL = 100 - len(_HEAD)


def text(e: Explainer, title: str) -> str:
    """The whole report."""
    whole = Cost()
    for cost in e.by_line.values():
        whole.add(cost)
    parts = [_summary(e, whole, title), _lines(e, whole), _modules(e, whole), _others(e, whole),
             _on_numpy(e, whole), _kernels(whole), _advice(e, whole)]
    return "\n\n".join(part for part in parts if part) + "\n"


# --- numbers ----------------------------------------------------------------------------------


def _ms(ns: float) -> str:
    return f"{ns / 1e6:.1f}" if ns < 1e10 else f"{ns / 1e6:.0f}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else ""


def _row(label: str, cost: Cost, whole: Cost) -> str:
    total = cost.total
    cells = "".join(f"{_share(part, total):>{width}}" for part, width in (
        (cost.kernels, 5), (cost.numpy, 6), (cost.python, 5)))
    return (f"{_cut(label, _LABEL - 1):<{_LABEL}}{_ms(total):>8}"
            f"{_share(total, whole.total):>6}{_share(cost.backward, total):>5} {cells}"
            f"{_rates(cost)}")


def _cut(label: str, width: int) -> str:
    return label if len(label) <= width else label[:width - 3] + "..."


def _rates(cost: Cost) -> str:
    """GB/s, GFLOP/s and the share of the ceiling of the kernels in it."""
    ns = sum(spent for _, spent in cost.runs.values())
    if not ns:
        return ""
    moved = sum(n * (run.roof.read + run.roof.written) for run, (n, _) in cost.runs.items())
    flops = sum(n * run.roof.flops for run, (n, _) in cost.runs.items())
    operations = f"{flops / ns:.0f}" if flops else ""
    return f"{moved / ns:>6.1f}{operations:>6}{_ceiling(cost):>5}"


def _ceiling(cost: Cost) -> str:
    """How near the kernels are to what the machine can do, those of which that is known."""
    known = [(run.roof.seconds * n, ns) for run, (n, ns) in cost.runs.items() if run.roof.seconds]
    ns = sum(spent for _, spent in known)
    return f"{sum(least for least, _ in known) / ns * 1e9:.0%}" if ns else ""


def _by_cost(table: Iterable[tuple[str, Cost]], whole: Cost, most: int) -> list[str]:
    """A row each, the most expensive first."""
    chosen = sorted(table, key=lambda row: -row[1].total)
    return [_row(label, cost, whole) for label, cost in chosen[:most]
            if cost.total >= _LEAST * whole.total]


# --- sections ---------------------------------------------------------------------------------


def _summary(e: Explainer, whole: Cost, title: str) -> str:
    wall, making = e.wall_ns, whole.making
    lines = [f"{title}: {wall / 1e9:.2f} s, of which explaining took {e.overhead_ns / 1e9:.2f} s",
             "", "Where the time went"]
    notes = {"kernels": f"at {_ceiling(whole)} of this machine's ceiling" if whole.runs else "",
             "NumPy": "operators without a kernel", "Python": "everything around them",
             "making kernels": "only once: they are kept on disk; plans are made anew"}
    for name, ns in (("kernels", whole.kernels), ("NumPy", whole.numpy),
                     ("Python", whole.python), ("making kernels", making)):
        lines.append(f"  {name:<16}{_ms(ns):>9} ms {_share(ns, whole.total + making):>5}   "
                     f"{notes[name]}")
    return "\n".join(lines)


def _lines(e: Explainer, whole: Cost) -> str:
    rows = _by_cost(((_line(place), cost) for place, cost in e.by_line.items()), whole, 20)
    return "\n".join([f"{'By line':<{_LABEL}}" + _HEAD, *rows])


def _line(place: Place) -> str:
    """`train.py:12 loss.backward()`."""
    if place == NOWHERE:
        return "(before and after the program)"
    file, line, function = place
    source = linecache.getline(file, line).strip() or f"in {function}"
    return f"{os.path.basename(file)}:{line} {source}"


def _modules(e: Explainer, whole: Cost) -> str:
    """The tree of modules, each with what is inside; numbered siblings of one class as one."""
    table: dict[str, Cost] = {}
    counts: dict[str, set[str]] = {}
    for path, cost in e.by_module.items():
        parts = path.split(".")
        merged = ""
        for depth in range(1, len(parts) + 1):
            whole_path = ".".join(parts[:depth])
            merged = f"{merged}.{_merged(whole_path, e.kinds)}" if merged else parts[0]
            table.setdefault(merged, Cost()).add(cost)
            counts.setdefault(merged, set()).add(whole_path)
    outside = table.pop("", None)
    labels = {path: _module_label(path, counts[path], e.kinds) for path in table}
    rows = _tree(table, labels, "", 0, whole)
    if outside is not None and outside.total >= _LEAST * whole.total:
        rows.append(_row("(outside of modules)", outside, whole))
    return "\n".join([f"{'By module':<{_LABEL}}" + _HEAD, *rows]) if table else ""


def _merged(path: str, kinds: dict[str, str]) -> str:
    """The last part of a path, `*` where its siblings are of the same class."""
    parent, _, name = path.rpartition(".")
    inside = re.compile(re.escape(parent) + r"\.\d+")
    same = {kind for other, kind in kinds.items() if inside.fullmatch(other)}
    return "*" if name.isdigit() and len(same) == 1 else name


def _module_label(path: str, paths: set[str], kinds: dict[str, str]) -> str:
    name, kind = path.rpartition(".")[2], kinds.get(next(iter(paths)), "")
    if name == "*":
        return f"* ({len(paths)} {kind})"
    return f"{name} ({kind})" if kind and kind != name else name


def _tree(table: dict[str, Cost], labels: dict[str, str], parent: str, depth: int,
          whole: Cost) -> list[str]:
    rows = []
    inside = [path for path in table if path.rpartition(".")[0] == parent]
    for path in sorted(inside, key=lambda path: -table[path].total):
        if table[path].total >= _LEAST * whole.total:
            rows += [_row("  " * depth + labels[path], table[path], whole),
                     *_tree(table, labels, path, depth + 1, whole)]
    return rows


def _others(e: Explainer, whole: Cost) -> str:
    """Frames that are no operators: batches, optimizer steps, the engine."""
    named = ((f"{name} x {cost.calls}", cost) for name, cost in e.by_frame.items()
             if not name.startswith("autograd::"))
    rows = _by_cost(named, whole, 6)
    return "\n".join([f"{'Beside operators':<{_LABEL}}" + _HEAD, *rows]) if rows else ""


def _on_numpy(e: Explainer, whole: Cost) -> str:
    chosen = sorted(e.by_operator.items(), key=lambda row: -row[1].numpy)
    rows = [f"{_cut(name, 27):<28}{cost.calls:>7}{_ms(cost.numpy):>9} ms"
            f"{_share(cost.numpy, whole.total):>5}  {_cut(why, 46)}"
            for (name, why), cost in chosen[:12] if cost.numpy >= 0.002 * whole.total]
    head = f"{'Operators that ran on NumPy':<28}{'calls':>7}{'time':>12}{'':5}  why"
    return "\n".join([head, *rows]) if rows else ""


def _kernels(whole: Cost) -> str:
    """The kernels, most expensive first."""
    found: dict[str, Cost] = {}
    for run, (calls, ns) in whole.runs.items():
        cost = found.setdefault(run.label, Cost())
        cost.calls += calls
        cost.kernels += ns
        entry = cost.runs.setdefault(run, [0, 0])
        entry[0] += calls
        entry[1] += ns
    chosen = sorted(found.items(), key=lambda row: -row[1].kernels)[:12]
    rows = [f"{_cut(label, 45):<46}{cost.calls:>7}{_ms(cost.kernels):>9} ms"
            f"{_share(cost.kernels, whole.total):>6}{cost.kernels / cost.calls / 1e3:>9.1f}"
            f"{_rates(cost)}" for label, cost in chosen if cost.kernels >= 0.002 * whole.total]
    head = (f"{'Kernels':<46}{'calls':>7}{'time':>12}{'share':>6}{'us/call':>9}{'GB/s':>6}"
            f"{'GF/s':>6}{'ceil':>5}")
    return "\n".join([head, *rows]) if rows else ""


# --- what to do -------------------------------------------------------------------------------


def _advice(e: Explainer, whole: Cost) -> str:
    found = [advice for rule in _RULES for advice in [rule(e, whole)] if advice]
    return "\n".join(["What to look at first", *(f"  - {advice}" for advice in found)]) if (
        found) else ""


def _about_making(e: Explainer, whole: Cost) -> str:
    if whole.making <= 0.1 * (whole.total + whole.making):
        return ""
    return ("Much of this run made kernels: longer runs do not pay more, later ones find them on "
            "disk.")


def _about_numpy(e: Explainer, whole: Cost) -> str:
    if whole.numpy <= 0.15 * whole.total:
        return ""
    (name, why), cost = max(e.by_operator.items(), key=lambda row: row[1].numpy)
    return (f"{_share(whole.numpy, whole.total)} of the time is in NumPy, most of it in {name} "
            f"({_share(cost.numpy, whole.total)}):\n    {why}.")


def _about_python(e: Explainer, whole: Cost) -> str:
    if whole.python <= 0.3 * whole.total:
        return ""
    place, cost = max(e.by_line.items(), key=lambda row: row[1].python)
    launches = sum(calls for calls, _ in whole.runs.values())
    size = whole.kernels / launches / 1e3 if launches else 0.0
    return (f"{_share(whole.python, whole.total)} of the time is Python around the operators, most "
            f"at\n    {_cut(_line(place), 80)} ({_share(cost.python, whole.total)}).\n    A kernel "
            f"takes {size:.0f} us on average: larger batches make Python's share smaller.")


def _about_data(e: Explainer, whole: Cost) -> str:
    cost = next((c for name, c in e.by_frame.items() if name.startswith("DataLoader")), None)
    if cost is None or cost.total < 0.15 * whole.total:
        return ""
    return (f"{_share(cost.total, whole.total)} of the time waits for batches: more workers "
            "(num_workers=), or less work for\n    each sample.")


def _about_kernels(e: Explainer, whole: Cost) -> str:
    slow = [(ns - calls * run.roof.seconds * 1e9, run) for run, (calls, ns) in whole.runs.items()]
    lost, run = max(slow, key=lambda row: row[0], default=(0.0, None))
    if run is None or lost < 0.1 * whole.total:
        return ""
    return (f"The kernel {run.label} is the one furthest from the ceiling:\n"
            f"    {_share(lost, whole.total)} of the time could be gained there at most.")


_RULES: tuple[Callable[[Explainer, Cost], str], ...] = (
    _about_making, _about_data, _about_numpy, _about_python, _about_kernels)
