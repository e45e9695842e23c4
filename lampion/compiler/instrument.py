"""Functions whose every look at Python state can be seen: a source-to-source rewrite.

`instrumented(fn)` compiles the function's source anew with calls of a `Watcher` wherever it reads
an attribute or an item, iterates, calls, tests a value, or is about to store. Control flow,
exceptions, generators and comprehensions stay CPython's own, and so do file name and line numbers.
"""

from __future__ import annotations

import ast
import copy
import dis
import inspect
import linecache
import types
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

__all__ = ["NoSource", "instrumented", "is_watched", "rebound_names"]

_WATCHER = "_lampion_watcher"
_FACTORY = "_lampion_factory"
_FUNCTION = "_lampion_function"
_WITH_NUMBERS = ("Add", "Sub", "Mult", "Div", "Mod", "FloorDiv", "Pow")
_COMPARED = ("Lt", "LtE", "Gt", "GtE", "Eq", "NotEq")
_FUTURE = 0x1000000  # CO_FUTURE_ANNOTATIONS


class NoSource(Exception):
    """The source of a function cannot be found."""


def instrumented(fn: types.FunctionType, watcher: Any) -> Callable[..., Any]:
    """`fn` with `watcher` looking on; raises NoSource where its source is not to be had."""
    code = _rewritten(fn.__code__)
    cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))
    cells[_WATCHER] = types.CellType(watcher)
    made = types.FunctionType(code, fn.__globals__, fn.__name__, fn.__defaults__,
                              tuple(cells[name] for name in code.co_freevars))
    made.__kwdefaults__ = fn.__kwdefaults__
    made.__qualname__ = fn.__qualname__
    return made


def is_watched(fn: types.FunctionType) -> bool:
    """Whether a function was defined by one that is instrumented, and so is itself."""
    return _WATCHER in fn.__code__.co_freevars


@lru_cache(4096)
def rebound_names(code: types.CodeType) -> frozenset[str]:
    """Globals and variables around that a function or one inside of it assigns to.

    Without names that one of them uses for a variable of its own.
    """
    every = list(_codes(code))
    stored = {i.argval for c in every for i in dis.get_instructions(c)
              if i.opname in ("STORE_GLOBAL", "DELETE_GLOBAL")
              or (i.opname in ("STORE_DEREF", "DELETE_DEREF") and i.argval in c.co_freevars)}
    return frozenset(stored.difference(*(c.co_varnames + c.co_cellvars for c in every)))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code, and that of all inside of it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _codes(const)


@lru_cache(4096)
def _rewritten(code: types.CodeType) -> types.CodeType:
    """The code of the rewritten function."""
    if code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
        raise NoSource(f"{code.co_name} is a coroutine")
    tree, owner = _definition(code)
    plain = _compiled(_as_def(copy.deepcopy(tree)), owner, code)
    if not _same(plain, code):
        raise NoSource(f"the source of {code.co_name} in {code.co_filename} has changed")
    definition = _as_def(copy.deepcopy(tree))
    rewriter = _Rewriter(frozenset(code.co_freevars), owner, rebound_names(code))
    return _compiled(rewriter.function(definition), owner, code)


def _same(a: types.CodeType, b: types.CodeType) -> bool:
    """Whether two functions do the same; what test runners write into assertions does not count."""
    if any(name.startswith("@py") for name in b.co_names):
        return set(a.co_names) <= set(b.co_names) and set(a.co_varnames) <= set(b.co_varnames)
    return a.co_varnames == b.co_varnames and list(_told(a)) == list(_told(b))


def _told(code: types.CodeType) -> Iterator[Any]:
    """The instructions of a function, but for how methods of imported modules are called."""
    for i in dis.get_instructions(code):
        if i.opname in ("PUSH_NULL", "PRECALL", "CACHE"):
            continue
        value = i.argval
        if isinstance(value, types.CodeType):
            yield from _told(value)
        else:
            if isinstance(value, str):  # classes inside are named after where they stand
                value = value.rpartition("<locals>.")[2]
            jump = i.opcode in dis.hasjrel or i.opcode in dis.hasjabs
            yield i.opname.replace("METHOD", "ATTR"), None if jump else repr(value)


def _compiled(definition: Any, owner: str | None, code: types.CodeType) -> types.CodeType:
    """The code of a definition inside a factory whose parameters are its free variables."""
    definition.name = _FUNCTION  # its own name is that of a global, or among the free variables
    factory: Any = ast.FunctionDef(
        name=_FACTORY, args=_parameters([_WATCHER, *code.co_freevars]), decorator_list=[],
        body=[definition, ast.Return(ast.Name(definition.name, ast.Load()))], returns=None)
    if owner is not None:  # so that names like __x are mangled as in the class
        factory = ast.ClassDef(name=owner, bases=[], keywords=[], body=[factory],
                               decorator_list=[])
    for node in ast.walk(factory):  # Python 3.12 and later want to know
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            node.__dict__.setdefault("type_params", [])
    imports = _imports(_parse(*_text(code.co_filename)))
    module = ast.fix_missing_locations(ast.Module([*imports, factory], []))
    made = compile(module, code.co_filename, "exec", dont_inherit=True,
                   flags=code.co_flags & _FUTURE)
    for name in (*([owner] if owner else []), _FACTORY, definition.name):
        made = next(c for c in made.co_consts
                    if isinstance(c, types.CodeType) and c.co_name == name)
    return made.replace(co_name=code.co_name)


def _imports(tree: ast.AST) -> list[Any]:
    """The imports of a module: methods of what is imported are called in another way."""
    found: list[Any] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append(node)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef,
                                   ast.Lambda, ast.expr)):
            found += _imports(node)
    return found


def _parameters(names: list[str]) -> ast.arguments:
    return ast.arguments(posonlyargs=[], args=[ast.arg(n) for n in names], vararg=None,
                         kwonlyargs=[], kw_defaults=[], kwarg=None, defaults=[])


# --- finding the definition ---------------------------------------------------------------------


def _definition(code: types.CodeType) -> tuple[Any, str | None]:
    """The syntax tree of the function with this code, and the class whose body it stands in."""
    found = _functions(*_text(code.co_filename)).get((code.co_firstlineno, code.co_name), [])
    if len(found) > 1:  # several lambdas in one line
        found = [(n, o) for n, o in found if _same_arguments(n, code)]
    if len(found) != 1:
        raise NoSource(f"the source of {code.co_name} in {code.co_filename}, line "
                       f"{code.co_firstlineno}, is not to be found")
    return found[0]


def _text(filename: str) -> tuple[str, str]:
    lines = linecache.getlines(filename)
    if not lines:
        raise NoSource(f"no source of {filename}")
    return "".join(lines), filename


@lru_cache(64)
def _parse(text: str, filename: str) -> ast.Module:
    try:
        return ast.parse(text, filename)
    except SyntaxError as error:
        raise NoSource(f"the source of {filename} has changed: {error}") from None


@lru_cache(64)
def _functions(text: str, filename: str) -> dict[tuple[int, str], list[tuple[Any, str | None]]]:
    """All functions of a file by first line and name, with the class that they stand in."""
    found: dict[tuple[int, str], list[tuple[Any, str | None]]] = {}
    left: list[tuple[Any, str | None]] = [(_parse(text, filename), None)]
    while left:
        node, owner = left.pop()
        if isinstance(node, (ast.FunctionDef, ast.Lambda, ast.AsyncFunctionDef)):
            name = getattr(node, "name", "<lambda>")
            found.setdefault((_first_line(node), name), []).append((node, owner))
        elif isinstance(node, ast.ClassDef):
            owner = node.name
        for name in node._fields:
            part = getattr(node, name, None)
            if part.__class__ is list:
                left += [(x, owner) for x in reversed(part) if isinstance(x, ast.AST)]
            elif isinstance(part, ast.AST):
                left.append((part, owner))
    return found


def _first_line(node: Any) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])


def _same_arguments(node: Any, code: types.CodeType) -> bool:
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    if list(code.co_varnames[:len(names)]) != names:
        return False
    compiled = compile(ast.Expression(node), code.co_filename, "eval") if isinstance(
        node, ast.Lambda) else None
    inner = compiled and next(c for c in compiled.co_consts if isinstance(c, types.CodeType))
    return inner is None or (inner.co_names == code.co_names and _plain(inner) == _plain(code))


def _plain(code: types.CodeType) -> list[Any]:
    """The constants of a function; functions inside of it are named after where they stand."""
    return [c for c in code.co_consts if not isinstance(c, types.CodeType)]


def _as_def(node: Any) -> Any:
    """A definition without decorators and annotations; a lambda becomes one with a `return`."""
    if isinstance(node, ast.Lambda):
        made = ast.FunctionDef(name=_FUNCTION, args=node.args, body=[ast.Return(node.body)],
                               decorator_list=[], returns=None)
        node = ast.copy_location(made, node)
    node.decorator_list, node.returns = [], None
    args = node.args
    for a in (*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg):
        if a is not None:
            a.annotation = None
    nothing = ast.Constant(None)  # the defaults are taken from the function itself
    args.defaults = [nothing] * len(args.defaults)
    args.kw_defaults = [d and nothing for d in args.kw_defaults]
    return node


# --- the rewrite --------------------------------------------------------------------------------


class _Rewriter(ast.NodeTransformer):
    """Puts a watcher's method around every expression that meets Python state."""

    def __init__(self, outside: frozenset[str], owner: str | None,
                 shared: frozenset[str]) -> None:
        self.outside = outside  # variables of the functions around
        self.shared = shared  # names from outside that are assigned to
        self.owner = owner  # the class whose private names are meant
        self.rebound: set[str] = set()  # those that are declared to be assigned to, and globals

    def _call(self, method: str, node: ast.AST, *args: Any, keywords: Any = ()) -> Any:
        watcher = ast.Attribute(ast.Name(_WATCHER, ast.Load()), method, ast.Load())
        return ast.copy_location(ast.Call(watcher, list(args), list(keywords)), node)

    def visit_Attribute(self, node: ast.Attribute) -> Any:
        value = self.visit(node.value)
        name = ast.Constant(self._mangled(node.attr))
        if isinstance(node.ctx, ast.Load):
            return self._call("attribute", node, value, name)
        node.value = self._call("storing", node, value, name)
        return node

    def _mangled(self, name: str) -> str:
        """The name of an attribute as it is in objects."""
        private = self.owner and name.startswith("__") and not name.endswith("__")
        return f"_{str(self.owner).lstrip('_')}{name}" if private else name

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        value, index = self.visit(node.value), self.visit(node.slice)
        if isinstance(node.ctx, ast.Load) and not _has_star(index):
            return self._call("item", node, value, _as_value(index))
        what = "seen" if isinstance(node.ctx, ast.Load) else "storing_item"
        node.value, node.slice = self._call(what, node, value), index
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Name) and node.func.id == "super":
            return node
        func = self.visit(node.func)
        args = [self.visit(a) for a in node.args]
        for k in node.keywords:
            k.value = self.visit(k.value)
            if k.arg is None:
                k.value = self._call("spread", k.value, k.value)
        return self._call("call", node, func, *args, keywords=node.keywords)

    def visit_For(self, node: ast.For) -> Any:
        self.generic_visit(node)
        node.iter = self._call("iterate", node.iter, node.iter)
        return self._guarded(node, [node.target])

    def visit_comprehension(self, node: ast.comprehension) -> Any:
        self.generic_visit(node)
        node.iter = self._call("iterate", node.iter, node.iter)
        node.ifs = [self._tested(test) for test in node.ifs]
        return node

    def visit_Starred(self, node: ast.Starred) -> Any:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load):
            node.value = self._call("iterate", node.value, node.value)
        return node

    def visit_YieldFrom(self, node: ast.YieldFrom) -> Any:
        self.generic_visit(node)
        node.value = self._call("iterate", node.value, node.value)
        return node

    def visit_With(self, node: ast.With) -> Any:
        self.generic_visit(node)
        for item in node.items:
            item.context_expr = self._call("context", item.context_expr, item.context_expr)
        return node

    def visit_Assign(self, node: ast.Assign) -> Any:
        self.generic_visit(node)
        if any(isinstance(t, (ast.Tuple, ast.List)) for t in node.targets):
            node.value = self._call("unpacked", node.value, node.value)
        return self._bound(node)

    def _guarded(self, node: Any, targets: Any, shared: bool = False) -> Any:
        """The statement, after a refusal where it assigns to a variable from outside.

        shared: whether those that may be assigned to are taken care of.
        """
        refused = [self._refusal(node, f"assigning to {name}, a variable from outside")
                   for name in self._rebound(targets) if not (shared and name in self.shared)]
        return [*refused, node] if refused else node

    def _rebound(self, targets: Any) -> list[str]:
        """Variables from outside among what is assigned to."""
        return [n.id for t in targets for n in ast.walk(t)
                if isinstance(n, ast.Name) and isinstance(n.ctx, (ast.Store, ast.Del))
                and n.id in self.rebound]

    def _bound(self, node: ast.Assign) -> Any:
        """An assignment, whose value is known when it is told which variables get it."""
        for name in self._rebound(node.targets):
            if name in self.shared:
                node.value = self._variable("rebinding", node, name, node.value)
        return self._guarded(node, node.targets, shared=True)

    def _variable(self, method: str, node: ast.AST, name: str, *value: Any) -> Any:
        """A call that gets a variable as a function, whose closure or globals hold it."""
        read = ast.Lambda(_parameters([]), ast.Name(name, ast.Load()))
        return self._call(method, node, ast.Constant(name), read, *value)

    def visit_Name(self, node: ast.Name) -> Any:
        if isinstance(node.ctx, ast.Load) and node.id in self.shared:
            return self._variable("variable", node, node.id)
        return node

    def visit_Delete(self, node: ast.Delete) -> Any:
        self.generic_visit(node)
        return self._guarded(node, node.targets)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> Any:
        self.generic_visit(node)
        if node.target.id in self.rebound:
            return self._call("refuse", node, ast.Constant("assigning to a variable from outside"))
        return node

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        target, value, kind = node.target, node.value, ast.Constant(type(node.op).__name__)
        if isinstance(target, ast.Name):
            name = self.visit_Name(ast.copy_location(ast.Name(target.id, ast.Load()), node))
            made = self._call("augmented", node, kind, name, self.visit(value))
            return self._bound(ast.copy_location(ast.Assign([target], made), node))
        counts = isinstance(target, ast.Attribute) and kind.value == "Add" and isinstance(
            value, ast.Constant) and isinstance(value.value, int)
        part = self.visit(target.value)
        if isinstance(target, ast.Attribute):
            name = ast.Constant(self._mangled(target.attr))
            if counts:
                return ast.copy_location(
                    ast.Expr(self._call("count", node, part, name, value)), node)
            loaded = self._call("loaded", node, part, name)
        else:
            index = self.visit(target.slice)
            if _has_star(index):
                return self._refusal(node, "`*` in the subscript of an assignment")
            loaded = self._call("loaded_item", node, part, _as_value(index))
        update = self._call("update", node, loaded, kind, self.visit(value))
        return ast.copy_location(ast.Expr(update), node)

    def _seen(self, node: Any) -> Any:
        """Where the value itself matters: its contents must be the same at every run."""
        simple = (ast.Constant, ast.Compare, ast.BoolOp, ast.JoinedStr, ast.Lambda)
        return node if isinstance(node, simple) else self._call("seen", node, node)

    def _tested(self, node: Any) -> Any:
        """Where it matters whether a value is true."""
        simple = (ast.Constant, ast.Compare, ast.BoolOp)
        return node if isinstance(node, simple) else self._call("tested", node, node)

    def _test(self, node: Any) -> Any:
        self.generic_visit(node)
        node.test = self._tested(node.test)
        return node

    visit_If = visit_While = visit_IfExp = visit_Assert = _test

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        self.generic_visit(node)
        node.values = [self._tested(v) for v in node.values]
        return node

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        self.generic_visit(node)
        kind = type(node.op).__name__
        if kind in _WITH_NUMBERS:
            return self._call("binary", node, ast.Constant(kind), node.left, node.right)
        node.left, node.right = self._seen(node.left), self._seen(node.right)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        self.generic_visit(node)
        if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
            return self._call("negative", node, node.operand)
        made = self._tested if isinstance(node.op, ast.Not) else self._seen
        node.operand = made(node.operand)
        return node

    def visit_Compare(self, node: ast.Compare) -> Any:
        self.generic_visit(node)
        operands = [node.left, *node.comparators]
        if isinstance(node.ops[0], (ast.Is, ast.IsNot)) and len(node.ops) == 1:
            if any(isinstance(e, ast.Constant) for e in operands):
                return node
            same = self._call("identical", node, *operands)
            return same if isinstance(node.ops[0], ast.Is) else ast.copy_location(
                ast.UnaryOp(ast.Not(), same), node)
        kind = type(node.ops[0]).__name__
        if len(node.ops) == 1 and kind in _COMPARED:
            return self._call("compare", node, ast.Constant(kind), *operands)
        if len(node.ops) == 1 and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            found = self._call("contained", node, *operands)
            return found if isinstance(node.ops[0], ast.In) else ast.copy_location(
                ast.UnaryOp(ast.Not(), found), node)
        operands = [e if isinstance(e, ast.Constant) else self._call("compared", e, e)
                    for e in operands]
        for i, op in enumerate(node.ops):
            if isinstance(op, (ast.In, ast.NotIn)) and not isinstance(operands[i], ast.Constant):
                operands[i] = self._call("looked_up", operands[i], operands[i])
        node.left, node.comparators = operands[0], operands[1:]
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> Any:
        self.generic_visit(node)
        node.value = self._call("text", node.value, node.value)
        return node

    def _fresh(self, node: Any) -> Any:
        self.generic_visit(node)
        if isinstance(getattr(node, "ctx", None), ast.Store):
            return node
        return self._call("fresh", node, node)

    def visit_Dict(self, node: ast.Dict) -> Any:
        self.generic_visit(node)
        node.values = [v if k is not None else self._call("spread", v, v)
                       for k, v in zip(node.keys, node.values, strict=True)]
        return self._call("fresh", node, node)

    visit_List = visit_Set = _fresh
    visit_ListComp = visit_DictComp = visit_SetComp = visit_GeneratorExp = _fresh

    def visit_Global(self, node: Any) -> Any:
        """Assignments to these names change the world outside."""
        self.rebound.update(n for n in node.names
                            if isinstance(node, ast.Global) or n in self.outside)
        return node

    visit_Nonlocal = visit_Global

    def _refusal(self, node: Any, what: str) -> Any:
        return ast.copy_location(ast.Expr(self._call("refuse", node, ast.Constant(what))), node)

    def visit_Raise(self, node: ast.Raise) -> Any:
        self.generic_visit(node)
        if node.exc is not None:
            node.exc = self._call("raising", node.exc, node.exc)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        names = ast.Tuple([ast.Constant(a.name) for a in node.names], ast.Load())
        package = ast.Name("__package__", ast.Load())
        told = self._call("imported", node, ast.Constant(node.module or ""),
                          ast.Constant(node.level), package, names)
        return [node, ast.copy_location(ast.Expr(told), node)]

    def _refuse(self, node: Any) -> Any:
        return self._refusal(node, f"a statement of kind {type(node).__name__}")

    visit_ClassDef = visit_Match = visit_AsyncFor = visit_AsyncWith = _refuse
    visit_AsyncFunctionDef = _refuse

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        if node.decorator_list:
            return self._refusal(node, "a decorated function inside")
        node.returns = None
        return self.function(node)

    def function(self, node: Any) -> Any:
        """The body of a definition; its `**` parameter is a dict of its own."""
        self.generic_visit(node)
        if node.args.kwarg is not None:
            name = ast.Name(node.args.kwarg.arg, ast.Load())
            node.body.insert(0, ast.Expr(self._call("fresh", node.body[0], name)))
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _has_star(node: Any) -> bool:
    return isinstance(node, ast.Tuple) and any(isinstance(e, ast.Starred) for e in node.elts)


def _as_value(node: Any) -> Any:
    """An index as an expression: slices become calls of `slice`."""
    if isinstance(node, ast.Slice):
        parts = [p or ast.Constant(None) for p in (node.lower, node.upper, node.step)]
        make = ast.Attribute(ast.Name(_WATCHER, ast.Load()), "slice", ast.Load())
        return ast.Call(make, parts, [])
    if isinstance(node, ast.Tuple):
        node.elts = [_as_value(e) for e in node.elts]
    return node

