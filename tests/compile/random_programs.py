"""Random programs in PyTorch style, as text: `program(seed)` writes one, the same for every run.

A program is a story as of `footguns.py`: state around a compiled function, calls with other
arguments, changes in between. Every value has a shape of symbols ("n", the batch, varies between
calls) and a kind, so nearly every program runs; the others must fail in the same way.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

Shape = tuple[str, ...]


class Value(NamedTuple):
    """A tensor in a program. own: made by the function and dense, so it may be written."""

    name: str
    shape: Shape
    kind: str  # float, int, bool
    own: bool = True


class Program(NamedTuple):
    """Parts that can be left out one by one when a failing program is made smaller."""

    head: list[str]
    body: list[str]
    results: list[str]
    calls: str
    seen: str
    changes: list[str]

    def text(self) -> str:
        body = [*self.body, f"return {', '.join(self.results) or None}"]
        return "\n".join([
            PREAMBLE, "def story(compiled):", *_indented(self.head, 4), "    @compiled",
            "    def fn(x, y, k, flag=False):", *_indented(body, 8),
            f"    for turn, (n, k, flag) in enumerate({self.calls}):",
            "        x, y = given(n, D), torch.randint(0, D, (n,))",
            f"        yield fn(x, y, k, flag=flag), {self.seen}",
            *_indented(self.changes, 8), ""])


PREAMBLE = '''\
import random
import torch
import torch.nn.functional as F
from torch import nn

SHAKE = 0.0


def given(*shape):
    x = torch.randn(*shape)
    return x + SHAKE * torch.sin(7.0 * torch.arange(x.numel())).reshape(shape)


class Net(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.linear, self.norm = nn.Linear(D, D), nn.BatchNorm1d(D, eps=0.1)
        self.dropout, self.calls = nn.Dropout(p), 0

    def forward(self, x):
        if COUNTED:
            self.calls += 1
        return self.dropout(self.norm(torch.tanh(self.linear(x))))

'''


def _indented(statements: list[str], width: int) -> list[str]:
    return [" " * width + line for s in statements for line in s.split("\n")]


class Writer:
    """Puts statements into the body of a function."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.lines: list[str] = []
        self.values = [Value("x", ("n", "D"), "float", False), Value("y", ("n",), "int", False),
                       Value("w", ("D", "D"), "float", False), Value("buffer", ("D",), "float",
                                                                     False)]

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def number(self) -> str:
        return self.rng.choice(("0.5", "2", "-1.0", "0.1", "3", "1.5", "k", "-0.0"))

    def pick(self, kind: str = "float", dims: int = 0, own: bool = False) -> Value | None:
        """A value of this kind with at least so many dimensions; later ones are likelier."""
        found = [v for v in self.values if v.kind == kind and len(v.shape) >= dims
                 and (v.own or not own)]
        return self.rng.choices(found, range(1, len(found) + 1))[0] if found else None

    def partner(self, v: Value) -> str:
        """Something that broadcasts against `v` without changing its shape."""
        found = [o.name for o in self.values if o.kind in ("float", v.kind) and
                 (o.shape == v.shape or (o.shape and o.shape == v.shape[-len(o.shape):]))]
        return self.rng.choice([*found, self.number()])

    def make(self, text: str, shape: Shape, kind: str = "float", own: bool = True) -> None:
        name = f"v{len(self.values)}"
        self.lines.append(f"{name} = {text}")
        self.values.append(Value(name, shape, kind, own))

    def change(self, v: Value, text: str) -> None:
        """The name stands for something else of the same shape from now on."""
        self.lines.append(f"{v.name} = {text}")
        self.values = [o._replace(own=True) if o is v else o for o in self.values]


Rule = Callable[[Writer], None]
STATE = "state['scale']"
UNARY = ("{0}.tanh()", "{0}.relu()", "{0}.sigmoid()", "{0}.sin()", "{0}.abs()", "-{0}",
         "{0}.clamp(-1, 2)", "F.gelu({0})", "{0}.clamp(max=3).exp()", "F.softplus({0})",
         "{0}.cumsum(-1)", "{0}.softmax(-1)", "{0}.flip(-1)", "{0}.roll(1, 0)", "{0}.clone()",
         "F.layer_norm({0}, {0}.shape[-1:])", "{0}.sort(-1).values", "{0}.square() / 4",
         "{0}.contiguous()", "{0}.float()", "{0} * torch.ones_like({0})", "{0}.detach() + 1")


def unary(w: Writer) -> None:
    v = w.pick(dims=1)
    if v:
        w.make(w.rng.choice(UNARY).format(v.name), v.shape)


def binary(w: Writer) -> None:
    v = w.pick()
    if v:
        form = w.rng.choice((
            "{} + {}", "{} - {}", "{} * {}", "torch.where({0} > 0, {0}, {1} * 1.0)",
            "{0} / ({1} * {1} + 1)", "torch.add({0}, {1}, alpha=2)"))
        w.make(form.format(v.name, w.partner(v)), v.shape)


def product(w: Writer) -> None:
    v = w.pick(dims=1)
    if v and v.shape[-1] == "D":
        form = w.rng.choice(("{} @ w", "F.linear({}, w)", "F.linear({}, w, buffer)"))
        w.make(form.format(v.name), v.shape)


def layer(w: Writer) -> None:
    found = [v for v in w.values if v.kind == "float" and v.shape == ("n", "D")]
    w.make(f"net({w.rng.choice(found).name})", ("n", "D"))


def reduction(w: Writer) -> None:
    v = w.pick(dims=1)
    if v:
        d, keep = w.rng.randrange(len(v.shape)), w.chance(0.4)
        name = w.rng.choice(("sum", "mean", "amax", "logsumexp"))
        shape = v.shape[:d] + (("1",) if keep else ()) + v.shape[d + 1:]
        w.make(f"{v.name}.{name}({d}, keepdim={keep})", shape)


def view(w: Writer) -> None:
    v = w.pick(dims=2)
    if not v:
        return
    first, *rest = v.shape
    text, shape = w.rng.choice((
        (f"{v.name}.transpose(0, 1)", (v.shape[1], first, *v.shape[2:])),
        (f"{v.name}[0]", tuple(rest)), (f"{v.name}[1:]", (f"{first}-1", *rest)),
        (f"{v.name}[:, :2]", (first, "2", *v.shape[2:])),
        (f"{v.name}.unsqueeze(0)", ("1", *v.shape)), (f"{v.name}[:, 1]", (first, *v.shape[2:])),
        (f"{v.name}.unbind(1)[-1]", (first, *v.shape[2:])),
        (f"{v.name}.narrow(0, 0, 2)", ("2", *rest)),
        (f"{v.name}.view_as({v.name})", v.shape), (f"{v.name}[::2]", (f"{first}/2", *rest))))
    if "-1" not in first and "/2" not in first and "1" not in v.shape[:2]:
        w.make(text, shape, own=v.own and "unbind" not in text)


def expanded(w: Writer) -> None:
    v = w.pick(dims=1)
    if v:
        w.make(f"{v.name}.expand(2, *{v.name}.shape)", ("2", *v.shape), own=False)


def joined(w: Writer) -> None:
    v = w.pick(dims=1)
    if v:
        other = next(o for o in reversed(w.values) if o.shape == v.shape and o.kind == v.kind)
        if w.chance(0.5):
            w.make(f"torch.stack([{v.name}, {other.name}])", ("2", *v.shape))
        else:
            w.make(f"torch.cat([{other.name}, {v.name}], -1)", (*v.shape[:-1], f"2*{v.shape[-1]}"))


def indexed(w: Writer) -> None:
    v = w.pick(dims=2)
    if v and v.shape == ("n", "D"):
        text, shape = w.rng.choice((
            ("{}.gather(1, y[:, None])", ("n", "1")), ("{}[:, y]", ("n", "n")),
            ("w[y] + {}", ("n", "D")), ("F.embedding(y, w) * {}", ("n", "D")),
            ("F.cross_entropy({}, y)", ()), ("{}.index_add(1, y, {}[:, y])", ("n", "D")),
            ("{}.topk(2).values", ("n", "2")), ("{}.masked_fill({} > 1, 0.5)", ("n", "D")),
            ("F.mse_loss({}, w[y])", ()), ("{}[torch.arange(len(y)), y]", ("n",))))
        w.make(text.replace("{}", v.name), shape)


def whole_numbers(w: Writer) -> None:
    v = w.pick(dims=1)
    if w.chance(0.5) and v:
        w.make(f"({v.name} > {w.number()})", v.shape, "bool")
    elif v and w.chance(0.5):
        w.make(f"{v.name}.argmax(-1)", v.shape[:-1], "int")
    i = w.pick(w.rng.choice(("int", "bool")))
    if i:
        form = w.rng.choice(("{} + 1", "{} * 2", "{}.float()", "{}.long() // 2", "{}.double() / 3"))
        kind = "int" if form[-1] in "12" and "/ " not in form else "float"
        w.make(form.format(i.name), i.shape, kind)


def other_type(w: Writer) -> None:
    v = w.pick()
    if v:
        w.make(f"{v.name}.double() * 1.5", v.shape)


def narrow_type(w: Writer) -> None:
    v = w.pick()
    if v:
        w.make(f"({v.name}.bfloat16() * 1.5).float()", v.shape)


def written(w: Writer) -> None:
    """In place, into a value or a part of it."""
    v = w.pick(dims=1, own=True)
    if not v:
        return
    if w.chance(0.5):  # a fresh copy: nothing saved for backward is overwritten
        w.make(f"{v.name}.clone()", v.shape)
        v = w.values[-1]
    w.lines.append(w.rng.choice((
        "{0}.mul_({1})", "{0}.add_(1)", "{0}[0] = 0.5", "{0}[0].add_({1})", "{0}[..., 1:] *= 2",
        "{0}[{0} > 1] = 0.0", "{0}.clamp_(-2, 2)", "{0}[..., 0].copy_({0}[..., 1])", "{0} += {1}",
        "{0}.view(-1)[0] = 7.0", "{0}[..., :1] = {0}[..., -1:]")).format(v.name, w.number()))


def state_written(w: Writer) -> None:
    w.lines.append(w.rng.choice((
        "buffer.mul_(0.9)", "buffer.add_(x.detach().mean(0))", "buffer[0] += 1", "x.mul_(0.5)",
        "x[0] += buffer", "buffer.copy_(w.detach()[y[0]])", "buffer[y] = 0.25",
        "buffer.index_add_(0, y, x.detach()[:, 0])")))


def branch(w: Writer) -> None:
    """Control flow over Python values; names keep their shapes."""
    v = w.pick(own=True)
    if not v:
        return
    test = w.rng.choice(("flag", "k > 1", "len(x) > 3", "state['calls'] % 2", "net.training",
                         "x.requires_grad", "mode == 'a'", "isinstance(k, int)", "turns[0] < 2"))
    other = w.rng.choice(("", f"\nelse:\n    {v.name} = {v.name} + 1"))
    w.change(v, f"{v.name}")
    w.lines[-1] = f"if {test}:\n    {v.name} = {v.name} * {w.number()}{other}"


def loop(w: Writer) -> None:
    v = w.pick(own=True)
    if v:
        bound = w.rng.choice(("k", "2", "len(state)", "int(flag) + 1"))
        w.lines.append(f"for i in range({bound}):\n    {v.name} = {v.name} * 0.5 + i")


def python_state(w: Writer) -> None:
    v = w.pick()
    if v:
        w.lines.append(w.rng.choice((
            "state['calls'] += 1", "history.append({}.detach())", "history.append(tuple({}.shape))",
            "turns[0] += 1", "state['last'] = {}.detach()", "history[-1:] = [len(history)]",
            "state.setdefault('k', k)")).format(v.name))
        w.make(f"{v.name} * {w.rng.choice(('random.random()', STATE, STATE))}", v.shape)


def drawn(w: Writer) -> None:
    v = w.pick(dims=1)
    if v:
        form = w.rng.choice(("F.dropout({}, 0.4)", "{} + torch.randn_like({})",
                             "{} * torch.rand(D).mean()", "F.dropout({}, 0.2, net.training)",
                             "torch.bernoulli({}.sigmoid()) * {}"))
        w.make(form.replace("{}", v.name), v.shape)


def read(w: Writer) -> None:
    """Looks at a value: such a function cannot be one program."""
    v = w.pick()
    if v:
        w.lines.append(w.rng.choice((
            "state['seen'] = {0}.sum().item()", "if {0}.sum() > 0:\n    state['calls'] += 2",
            "print({0}.shape, {0}.mean().item() > 0)", "assert {0}.isfinite().all()",
            "history.append(float({0}.max()))")).format(v.name))


def without_history(w: Writer) -> None:
    v = w.pick(dims=1)
    if v:
        name = f"v{len(w.values)}"
        w.lines.append(f"with torch.no_grad():\n    {name} = {v.name}.tanh() + w.sum()")
        w.values.append(Value(name, v.shape, "float"))


RULES: dict[Rule, int] = {
    unary: 10, binary: 10, product: 4, layer: 3, reduction: 5, view: 8, expanded: 1, joined: 2,
    indexed: 5, whole_numbers: 2, other_type: 1, written: 7, state_written: 3, branch: 4, loop: 2,
    drawn: 3, without_history: 1,
}
# A large eps: otherwise gradients that are rounding errors become whole steps.
OPTIMIZERS = ("SGD(params, lr=0.1)", "SGD(params, lr=0.1, momentum=0.9)",
              *(f"{name}(params, lr=0.01, eps=1e-2)" for name in (
                  "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam")))
CHANGES = (
    "state['scale'] += 0.5", "mode = 'b'", "net.train(turn % 2 == 0)", "buffer.add_(1)",
    "buffer = torch.ones(D)", "net.dropout.p = 0.3", "opt.param_groups[0]['lr'] *= 0.5",
    "net.linear.weight.requires_grad_(turn != 0)", "net.linear.bias.data.add_(1)",
    "w = w.detach() * 0.5", "state.clear() or state.update(calls=0, scale=1.0)", "history.clear()",
    "turns[0] = 0", "net.norm.eps = 1e-2", "torch.manual_seed(turn)", "opt.zero_grad()",
    "net.linear = nn.Linear(D, D)", "for p in net.parameters():\n    p.grad = None")


def _training(w: Writer, body: list[str]) -> None:
    """A loss, and what most training steps do with it."""
    parts = [v for v in w.values if v.kind == "float" and v.own][-3:]
    body.append("loss = F.cross_entropy(net(x), y)")
    body += [f"loss = loss + {v.name}.float().square().mean()" for v in parts]
    body.append("opt.zero_grad()")
    body.append(w.rng.choice(("loss.backward()", "(loss * k).backward()", "(loss / 2).backward()")))
    if w.chance(0.3):
        body.append("nn.utils.clip_grad_norm_(net.parameters(), 0.5)")
    body.append("opt.step()")
    if w.chance(0.3):
        body.append("sched.step()")
    w.values.append(Value("loss", (), "float"))


def program(seed: int) -> Program:
    """The program of a seed."""
    w = Writer(seed)
    weights = dict(RULES)
    weights |= {read: w.rng.choice((0, 0, 0, 0, 2)), python_state: w.rng.choice((0, 0, 3)),
                narrow_type: w.rng.choice((0,) * 7 + (2,))}
    for rule in w.rng.choices(list(weights), list(weights.values()), k=w.rng.randint(3, 14)):
        rule(w)
    body = list(w.lines)
    if w.chance(0.5):
        _training(w, body)
    made = [v.name for v in w.values[4:]] or ["x"]
    results = w.rng.sample(made, min(len(made), w.rng.randint(1, 3)))
    grad = w.rng.choice(("", ".requires_grad_()"))
    head = [
        f"torch.manual_seed({seed})", f"net = Net({w.rng.choice((0.0, 0.0, 0.5))})",
        f"w, buffer = given(D, D){grad}, torch.zeros(D)",
        "params = [*net.parameters(), *([w] if w.requires_grad else [])]",
        f"opt = torch.optim.{w.rng.choice(OPTIMIZERS)}",
        "sched = torch.optim.lr_scheduler.ExponentialLR(opt, 0.8)",
        "state, history, turns, mode = {'calls': 0, 'scale': 1.0}, [], [0], 'a'"]
    changes = w.rng.sample(CHANGES, w.rng.choice((0, 1, 1, 2, 4)))
    calls = w.rng.choice((
        "[(3, 1, False)] * 3", "[(4, 1, False), (4, 2, False), (4, 2, True), (4, 1, False)]",
        "[(3, 1, False), (3, 1, False), (5, 1, False), (3, 1, False)]",
        "[(5, 2, True), (4, 1.5, False), (5, 2, True)]".replace("1.5", "3"),
        "[(40, 1, False), (40, 2, False), (17, 2, True)]"))
    seen = "x, net, opt, w, buffer, state, history, turns"
    return Program(head, body, results, calls, seen, changes)


def source(made: Program, seed: int) -> str:
    """The program as a file; the width and whether modules count their calls go by the seed."""
    constants = f"D, COUNTED = {random.Random(seed).choice((4, 4, 5, 33))}, {seed % 8 == 0}"
    return made.text().replace("SHAKE = 0.0", f"SHAKE = 0.0\n{constants}", 1)
