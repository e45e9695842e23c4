"""Groups of operators that are chosen once serve the same graph at other sizes."""

from __future__ import annotations

import importlib

import lampion as torch
import lampion.nn.functional as F
from lampion.capture import capture
from lampion.graph import check
from lampion.passes.conditions import kernels_fit
from lampion.passes.fused import Fused
from lampion.passes.simplify import merge_equal, simplify

fuse_module = importlib.import_module("lampion.passes.fuse")
fuse = fuse_module.fuse


def groups_of(graph):
    return [tuple(c.op.name for c in n.op.body.calls) for n in graph.nodes()
            if isinstance(n.op, Fused)]


def simplified(rows, columns):
    a, b = torch.ones(rows, columns), torch.ones(columns)

    def fn(a, b):
        x = F.layer_norm((a * b).relu() + a, (a.shape[1],))
        return (x * b).sum(1), x.exp() + a.mean()
    graph = capture(fn, a, b).graph
    return merge_equal(simplify(graph))


def test_groups_are_found_once_for_a_structure(monkeypatch):
    grown = []
    grow = fuse_module._Groups.grow
    monkeypatch.setattr(fuse_module, "_chosen", {})
    monkeypatch.setattr(fuse_module._Groups, "grow", lambda g: (grown.append(g), grow(g)))
    first = fuse(simplified(6, 40))
    again = [fuse(simplified(rows, columns)) for rows, columns in ((5, 40), (33, 128), (6, 41))]
    assert len(grown) == 1
    for graph in again:
        check(graph)
        kernels_fit(graph)
        assert groups_of(graph) == groups_of(first)


def test_groups_that_are_no_kernels_at_other_sizes_are_found_anew(monkeypatch):
    monkeypatch.setattr(fuse_module, "_chosen", {})
    for rows, columns in ((6, 40), (1, 40), (40, 1), (1, 1), (0, 3), (40, 40)):
        graph = fuse(simplified(rows, columns))
        check(graph)
        kernels_fit(graph)
    kept = fuse_module._Groups(simplified(7, 40))
    kept.choose()
    kept.grow()
    assert fuse_module._Groups(simplified(7, 40)).repeat(*kept.found())
    monkeypatch.setattr(fuse_module, "_is_kernel", lambda survey: False)
    assert not fuse_module._Groups(simplified(7, 40)).repeat(*kept.found())
