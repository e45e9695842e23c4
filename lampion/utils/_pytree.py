"""Nested lists, tuples and dicts seen as trees of leaves."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any

__all__ = ["tree_flatten", "tree_unflatten", "tree_map", "tree_map_only", "tree_leaves",
           "TreeSpec", "SUPPORTED_NODES", "register_pytree_node"]

# Classes that programs have registered: how to take them apart and put them together.
SUPPORTED_NODES: dict[type, tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]] = {}


def register_pytree_node(cls: type, flatten_fn: Callable[[Any], Any],
                         unflatten_fn: Callable[[Any, Any], Any], **_: Any) -> None:
    """Makes `cls` an inner node: `flatten_fn(x)` gives (children, context)."""
    SUPPORTED_NODES[cls] = flatten_fn, unflatten_fn


class TreeSpec:
    """The structure of a tree: how to rebuild it around new leaves."""

    __slots__ = ("kind", "context", "children")

    def __init__(self, kind: Any, context: Any, children: tuple[TreeSpec, ...]) -> None:
        self.kind, self.context, self.children = kind, context, children

    @property
    def num_leaves(self) -> int:
        """How many leaves the tree has."""
        return 1 if self.kind is None else sum(c.num_leaves for c in self.children)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TreeSpec) and (self.kind, self.context, self.children) == (
            other.kind, other.context, other.children)

    def __hash__(self) -> int:
        return hash((self.kind, self.children))


_LEAF = TreeSpec(None, None, ())


def _children(tree: Any) -> tuple[Any, Any, list[Any]] | None:
    """Kind, context and children of an inner node; None for a leaf."""
    kind = type(tree)
    if kind in (list, tuple):
        return kind, None, list(tree)
    if kind in (dict, OrderedDict):
        return kind, tuple(tree), list(tree.values())
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return namedtuple, kind, list(tree)
    if kind in SUPPORTED_NODES:
        children, context = SUPPORTED_NODES[kind][0](tree)
        return kind, context, list(children)
    return None


def tree_flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], Any]:
    """The leaves, and the structure."""
    found = None if is_leaf is not None and is_leaf(tree) else _children(tree)
    if found is None:
        return [tree], _LEAF
    kind, context, children = found
    leaves: list[Any] = []
    specs = []
    for child in children:
        inner, spec = tree_flatten(child, is_leaf)
        leaves += inner
        specs.append(spec)
    return leaves, TreeSpec(kind, context, tuple(specs))


def tree_leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> list[Any]:
    """The leaves."""
    return tree_flatten(tree, is_leaf)[0]


def tree_unflatten(leaves: Any, treespec: TreeSpec) -> Any:
    """The tree with this structure around the leaves."""
    it = iter(leaves)
    return _build(treespec, it)


def _build(spec: TreeSpec, it: Any) -> Any:
    if spec.kind is None:
        return next(it)
    children = [_build(c, it) for c in spec.children]
    if spec.kind in (dict, OrderedDict):
        return spec.kind(zip(spec.context, children, strict=True))
    if spec.kind in SUPPORTED_NODES:
        return SUPPORTED_NODES[spec.kind][1](children, spec.context)
    return spec.context(*children) if spec.kind is namedtuple else spec.kind(children)


def tree_map(func: Callable[..., Any], tree: Any, *rests: Any,
             is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The tree with `func` applied to every leaf (and to those of further trees beside it)."""
    leaves, spec = tree_flatten(tree, is_leaf)
    others = [tree_flatten(r, is_leaf)[0] for r in rests]
    return tree_unflatten([func(*xs) for xs in zip(leaves, *others, strict=True)], spec)


def tree_map_only(kind: Any, func: Callable[[Any], Any], tree: Any,
                  is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """The tree with `func` applied to the leaves of one type."""
    return tree_map(lambda x: func(x) if isinstance(x, kind) else x, tree, is_leaf=is_leaf)
