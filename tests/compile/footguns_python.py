"""Python around the tensors: counters, containers, closures, exceptions, ways to call."""

import dataclasses
import enum
import functools
import random
import tempfile
import time
from collections import OrderedDict, defaultdict, deque, namedtuple
from pathlib import Path

import numpy as np
import torch
from footguns import footgun
from torch import nn

GAIN = 1.0
CALLS = 0


def ramp(i=0):
    return torch.arange(4.0) + i


# --- state that the function changes ----------------------------------------------------------


@footgun("correct")
def counter_of_an_object(compiled):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    model = Model()
    fn = compiled(model)
    for i in range(5):
        yield fn(ramp(i)), model.calls


@footgun("correct")
def counter_in_a_closure(compiled):
    calls = 0

    @compiled
    def fn(x):
        nonlocal calls
        calls += 1
        return x + 1

    for i in range(4):
        yield fn(ramp(i)), calls


@footgun("correct")
def counter_of_the_module(compiled):
    global CALLS
    CALLS = 0

    @compiled
    def fn(x):
        global CALLS
        CALLS += 1
        return x / CALLS

    for i in range(4):
        yield fn(ramp(i)), CALLS


@footgun("correct")
def nonlocal_shared_by_two_functions(compiled):  # pytorch#138112
    z, k = 1, 2

    @compiled
    def fn(x):
        nonlocal z

        def copy():
            nonlocal k
            k = z

        z += 3
        copy()
        return x.cos() * k

    for i in range(3):
        yield fn(ramp(i)), z, k


@footgun("correct")
def losses_appended_to_a_list(compiled):
    losses = []

    @compiled
    def fn(x):
        loss = x.pow(2).mean()
        losses.append(loss.detach())
        return loss

    for i in range(4):
        yield fn(ramp(i)), losses


@footgun("correct")
def list_of_a_class(compiled):  # pytorch#169253
    class Model(nn.Module):
        items = []

        def forward(self, x):
            Model.items.append(x.sum())
            return len(Model.items) * x

    fn = compiled(Model())
    for i in range(3):
        yield fn(ramp(i)), Model.items


@footgun("correct")
def state_of_a_class_made_inside(compiled):  # pytorch#197896
    state, log = {"n": 0}, []

    @compiled
    def fn(x):
        class Helper:
            def touch(self, y):
                state["n"] += 1
                log.append(tuple(y.shape))
                return y * state["n"]

        return Helper().touch(x)

    for i in range(3):
        yield fn(ramp(i)), state, log


@footgun("correct")
def statistics_in_a_dict(compiled):
    stats = defaultdict(list)

    @compiled
    def fn(x, name):
        stats[name].append(x.mean())
        stats["count"] = [*stats["count"], len(stats)]
        return x - stats[name][0]

    for i, name in enumerate(["a", "b", "a", "a"]):
        yield fn(ramp(i), name), dict(stats)


@footgun("correct")
def window_of_earlier_inputs(compiled):
    window = deque(maxlen=3)

    @compiled
    def fn(x):
        window.append(x)
        return torch.stack(list(window)).mean(0)

    for i in range(5):
        yield fn(ramp(i)), len(window)


@footgun("correct")
def ring_of_tensors(compiled):
    history = [torch.zeros(4), torch.ones(4)]

    @compiled
    def fn(x):
        history[0], history[1] = history[1], x + history[0]
        return history[1]

    for i in range(4):
        yield fn(ramp(i)), history


@footgun("correct")
def default_that_is_changed(compiled):
    @compiled
    def fn(x, seen=[]):  # noqa: B006
        seen.append(x.sum())
        return sum(seen), len(seen)

    for i in range(4):
        yield fn(ramp(i))


@footgun("correct")
def attribute_made_and_deleted(compiled):
    class Box:
        pass

    box = Box()

    @compiled
    def fn(x):
        if hasattr(box, "last"):
            y = x + box.last
            del box.last
            return y
        box.last = x * 10
        return x

    for i in range(4):
        yield fn(ramp(i)), hasattr(box, "last")


@footgun("correct")
def set_of_sizes(compiled):
    seen = set()

    @compiled
    def fn(x):
        new = x.shape[0] not in seen
        seen.add(x.shape[0])
        return x * 2 if new else x

    for n in (2, 3, 2, 3):
        yield fn(torch.ones(n)), seen


@footgun("correct")
def cached_function(compiled):
    calls = []

    @functools.cache
    def power(n):
        calls.append(n)
        return torch.arange(4.0) ** n

    @compiled
    def fn(x, n):
        return x * power(n)

    for n in (1, 2, 1, 3):
        yield fn(ramp(), n), calls


@footgun("correct")
def iterator_that_moves_on(compiled):
    scales = iter([1.0, 10.0, 100.0, 1000.0])

    @compiled
    def fn(x):
        return x * next(scales)

    for i in range(4):
        yield fn(ramp(i))


# --- state that is changed between the calls --------------------------------------------------


@footgun("compiled")
def number_in_a_closure(compiled):
    scale = 1.0

    @compiled
    def fn(x):
        return x * scale

    for i in range(4):
        scale = i + 0.5
        yield fn(ramp())


@footgun("compiled")
def global_rebound(compiled):
    global GAIN

    @compiled
    def fn(x):
        return x * GAIN

    for gain in (1.0, 2.0, 2.0, -1.0, 1):
        GAIN = gain
        yield fn(ramp())


@footgun("compiled")
def tensor_in_a_closure_rebound(compiled):
    offset = torch.zeros(4)

    @compiled
    def fn(x):
        return x + offset

    for i in range(4):
        yield fn(ramp())
        offset = torch.full((4,), float(i))


@footgun("correct")
def list_of_tensors_in_a_closure(compiled):  # tinygrad#10850
    parts = [torch.ones(4)]

    @compiled
    def fn(x):
        return x + torch.stack(parts).sum(0)

    for i in range(3):
        yield fn(ramp())
        parts.append(torch.full((4,), float(i)))
    parts[0] = torch.zeros(4)
    yield fn(ramp())
    parts.pop()
    yield fn(ramp())


@footgun("compiled")
def settings_in_a_dict(compiled):
    config = {"scale": 1.0, "act": "relu"}

    @compiled
    def fn(x):
        y = x * config["scale"]
        return y.relu() if config["act"] == "relu" else y.tanh()

    yield fn(ramp(-2))
    config["scale"] = 3.0
    yield fn(ramp(-2))
    config["act"] = "tanh"
    yield fn(ramp(-2))
    config.pop("scale")
    try:
        fn(ramp())
    except KeyError as error:
        yield error


@footgun("correct")
def function_replaced(compiled):
    class Tools:
        pass

    tools = Tools()
    tools.act = torch.relu

    @compiled
    def fn(x):
        return tools.act(x) + helper(x)

    def helper(x):
        return x * 2

    yield fn(ramp(-2))
    tools.act = torch.tanh
    yield fn(ramp(-2))

    def helper(x):  # noqa: F811
        return x * 3

    yield fn(ramp(-2))


@footgun("correct")
def method_of_a_class_replaced(compiled):
    class Net(nn.Module):
        def forward(self, x):
            return self.act(x)

        def act(self, x):
            return x.sin()

    net = Net()
    fn = compiled(net)
    yield fn(ramp())
    Net.act = lambda self, x: x.cos()
    yield fn(ramp())
    net.act = torch.exp
    yield fn(ramp())


@footgun("correct")
def function_of_the_library_replaced(compiled):
    @compiled
    def fn(x):
        return torch.nn.functional.softsign(x)

    plain = torch.nn.functional.softsign
    yield fn(ramp())
    try:
        torch.nn.functional.softsign = lambda x: x * 100
        yield fn(ramp())
    finally:
        torch.nn.functional.softsign = plain
    yield fn(ramp())


@footgun("correct")
def which_of_two_objects(compiled):  # pytorch#196173
    class Mode:
        def __init__(self, name):
            self.name = name

    fast, slow = Mode("fast"), Mode("slow")
    current = fast

    @compiled
    def fn(x):
        if current is fast:
            return x * 2
        return x * 3 + len(current.name)

    for mode in (fast, slow, fast, Mode("fast")):
        current = mode
        yield fn(ramp())


@footgun("compiled")
def two_instances_of_a_class(compiled):  # as tinygrad's shared replay
    class Model:
        def __init__(self, scale):
            self.scale = torch.full((1,), scale)

        @compiled
        def forward(self, x):
            return x * self.scale

    one, other = Model(2.0), Model(3.0)
    for i in range(3):
        yield one.forward(ramp(i)), other.forward(ramp(i))


# --- outside worlds ---------------------------------------------------------------------------


@footgun("correct")
def random_numbers_of_python(compiled):
    @compiled
    def fn(x):
        return x * random.random() if random.random() < 0.5 else x + random.randint(0, 9)

    for i in range(5):
        yield fn(ramp(i))


@footgun("correct")
def random_numbers_of_numpy(compiled):
    @compiled
    def fn(x):
        return x * np.random.rand() + torch.from_numpy(np.random.randn(4)).float()

    for i in range(4):
        yield fn(ramp(i))


@footgun("correct")
def own_generator_of_numpy(compiled):
    rng = np.random.default_rng(3)

    @compiled
    def fn(x):
        return x[int(rng.integers(4)):].sum() + float(rng.normal())

    for i in range(4):
        yield fn(ramp(i))


@footgun("correct")
def the_time(compiled):
    stamps = []

    @compiled
    def fn(x):
        stamps.append(time.perf_counter())
        return x + 1

    for i in range(3):
        y = fn(ramp(i))
        yield y, len(stamps), stamps == sorted(set(stamps))


# --- control flow -----------------------------------------------------------------------------


@footgun("correct")
def exception_in_the_middle(compiled):
    total = torch.zeros(4)
    net = nn.Linear(4, 1)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def step(x, fail):
        total.add_(x)
        net(x).sum().backward()
        if fail:
            raise ValueError("stopped by the user")
        opt.step()
        opt.zero_grad()
        return total.sum()

    for fail in (False, True, False, True, True):
        try:
            yield step(ramp(), fail), net, total
        except ValueError as error:
            yield error, net, total


@footgun("correct")
def error_of_an_operator_caught(compiled):
    @compiled
    def fn(x, y):
        try:
            return x @ y
        except RuntimeError:
            return x.sum() * y.sum()

    for n in (4, 3, 4):
        yield fn(torch.ones(2, 4), torch.ones(n, 2))


@footgun("correct")
def finally_writes(compiled):
    count = torch.zeros(())

    @compiled
    def fn(x, key):
        try:
            return {"double": x * 2}[key]
        finally:
            count.add_(1)

    for key in ("double", "triple", "double"):
        try:
            yield fn(ramp(), key), count
        except KeyError as error:
            yield error, count


@footgun("correct")
def generator_inside(compiled):
    @compiled
    def fn(x):
        def parts():
            total = x
            for i in range(3):
                total = total * (i + 1)
                yield total
        return torch.stack(list(parts())).sum(0)

    for i in range(3):
        yield fn(ramp(i))


@footgun("correct")
def generator_returned(compiled):  # pytorch#198190
    @compiled
    def fn(x):
        def parts():
            got = yield x * 1
            yield x * got
            return "done"
        return parts()

    for i in range(3):
        made = fn(ramp(i))
        first, second = next(made), made.send(3)
        try:
            next(made)
        except StopIteration as stop:
            yield first, second, stop.value


@footgun("correct")
def function_returned(compiled):
    @compiled
    def fn(x):
        scale = x.mean()
        return lambda y: y * scale

    for i in range(3):
        yield fn(ramp(i))(ramp())


@footgun("compiled")
def recursion(compiled):
    @compiled
    def power(x, n):
        if n == 0:
            return torch.ones_like(x)
        return x * power(x, n - 1)

    for n in (0, 1, 3, 2):
        yield power(ramp(), n)


@footgun("compiled")
def compiled_inside_compiled(compiled):
    @compiled
    def inner(x, k):
        return x.sin() * k

    @compiled
    def outer(x, k):
        return inner(x, k) + inner(x * 2, k + 1)

    for k in (1, 2, 1):
        yield outer(ramp(), k), inner(ramp(), k)


@footgun("correct")
def context_of_the_user(compiled):  # pytorch#134030
    depth = []

    class Scope:
        def __enter__(self):
            depth.append(len(depth))
            self.before = torch.is_grad_enabled()
            torch.set_grad_enabled(False)
            return self

        def __exit__(self, *exc):
            torch.set_grad_enabled(self.before)

    w = torch.ones(4, requires_grad=True)

    @compiled
    def fn(x):
        with Scope():
            y = x * w
        return y, x * w

    for i in range(3):
        yield fn(ramp(i)), depth, torch.is_grad_enabled()


@footgun("compiled")
def loops_and_comprehensions(compiled):
    layers = [nn.Linear(4, 4) for _ in range(3)]

    @compiled
    def fn(x):
        outs = {i: layer(x) for i, layer in enumerate(layers)}
        pairs = [a * b for a, b in zip(outs.values(), reversed(outs.values())) if a is not b]
        if (n := len(pairs)) > 1:
            pairs.append(pairs[0] * n)
        return sum(o.mean() for o in outs.values()), *pairs

    for _ in range(3):
        yield fn(torch.randn(2, 4))


# --- ways to make and call --------------------------------------------------------------------


@footgun("compiled")
def a_lambda(compiled):
    fn = compiled(lambda x, y=2.0: x * y + 1)
    for i in range(3):
        yield fn(ramp(i)), fn(ramp(i), y=2.0)


@footgun("compiled")
def a_partial(compiled):
    def scaled(x, w, *, bias):
        return x * w + bias

    fn = compiled(functools.partial(scaled, w=torch.full((4,), 2.0), bias=1.0))
    for i in range(3):
        yield fn(ramp(i)), fn(ramp(i), bias=1.0)


@footgun("compiled")
def static_and_class_methods(compiled):
    class Tools:
        shift = 2.0

        @staticmethod
        def double(x):
            return x * 2

        @classmethod
        def shifted(cls, x):
            return x + cls.shift

        @property
        def both(self):
            return lambda x: self.shifted(self.double(x))

    tools = Tools()

    @compiled
    def fn(x):
        return tools.both(x) + Tools.double(x)

    for i in range(3):
        yield fn(ramp(i))


@footgun("compiled")
def by_position_and_by_name(compiled):
    @compiled
    def fn(first, second, /, third=1.0, *rest, scale=1.0, **more):
        total = first / (second + 1) * third * scale
        for r in rest:
            total = total + r
        return total + sum(more.values())

    a, b = ramp(1), ramp(2)
    for _ in range(2):
        yield fn(a, b), fn(b, a), fn(a, b, third=2.0), fn(a, b, 2.0), fn(a, b, 2.0, a, b)
        yield fn(a, b, scale=3.0), fn(a, b, extra=a), fn(a, b, other=a, extra=b)


@footgun("correct")
def default_replaced(compiled):
    def plain(x, k=1.0):
        return x * k

    fn = compiled(plain)
    yield fn(ramp())
    plain.__defaults__ = (5.0,)
    yield fn(ramp())


class Kind(enum.Enum):
    SUM = 1
    MEAN = 2


@footgun("correct")
def values_of_python_as_arguments(compiled):
    @compiled
    def fn(x, kind=None):
        if kind is None:
            return x
        if isinstance(kind, str):
            return getattr(x, kind)()
        if kind is Kind.SUM:
            return x.sum()
        if kind is Kind.MEAN:
            return x.mean()
        return x * kind

    for kind in (None, "sin", "exp", Kind.SUM, Kind.MEAN, 2, 2.0, True, False, 0, 1, -0.0, 0.0):
        yield fn(ramp(1), kind)


@footgun("compiled", most=4)
def numbers_that_vary(compiled):
    @compiled
    def fn(x, beta):
        return x.pow(2).sum() + beta * x.sum()

    for i in range(12):
        yield fn(ramp(i), i / 10)


@footgun("correct")
def special_numbers(compiled):
    @compiled
    def fn(x, k):
        return x * k, x / k if k else x, (x + k).sign()

    for k in (1.0, float("inf"), float("nan"), -0.0, 0.0, 1e-40, 2**40):
        yield fn(ramp(), k)


@footgun("correct")
def exact_integers(compiled):
    @compiled
    def fn(x, n):
        return x + n, x // (abs(n) + 1), x % 7

    for n in (1, 2**40, -3, 2**62, 0):
        yield fn(torch.arange(4), n)


Point = namedtuple("Point", "x y")


@dataclasses.dataclass
class Batch:
    x: object
    weight: float = 1.0
    extra: dict = dataclasses.field(default_factory=dict)


@footgun("compiled")
def structures_in_and_out(compiled):
    @compiled
    def fn(points, table, nested):
        total = sum(p.x * p.y for p in points)
        return (Point(total, table["a"] - 1), {"b": [table["a"] * 2, None], "n": 3},
                OrderedDict(z=nested[0][1]["deep"] + 1, y=total))

    for i in range(3):
        yield fn([Point(ramp(i), ramp()), Point(ramp(), ramp(1))], {"a": ramp(i)},
                 ((0, {"deep": ramp(i)}),))


@footgun("correct")
def dataclass_changed(compiled):
    @compiled
    def fn(batch):
        batch.extra["seen"] = batch.extra.get("seen", 0) + 1
        return Batch(batch.x * batch.weight, batch.weight / 2)

    batch = Batch(ramp(1))
    for i in range(4):
        if i == 2:
            batch.weight = 4.0
        if i == 3:
            batch.x = ramp(9)
        yield fn(batch), batch


@footgun("correct")
def keys_in_another_order(compiled):
    @compiled
    def fn(table):
        return torch.stack([v * (i + 1) for i, v in enumerate(table.values())])

    yield fn({"a": ramp(), "b": ramp(1)})
    yield fn({"b": ramp(1), "a": ramp()})
    yield fn({"a": ramp(1), "b": ramp()})
    yield fn({"a": ramp(1), "b": ramp(), "c": ramp(2)})


@footgun("compiled")
def longer_and_shorter_lists(compiled):
    @compiled
    def fn(parts):
        return torch.cat(parts).sum() * len(parts)

    for n in (2, 3, 1, 2):
        yield fn([ramp(i) for i in range(n)])
    yield fn((ramp(), ramp(5)))


@footgun("correct")
def arrays_of_numpy_as_arguments(compiled):
    @compiled
    def fn(x, array):
        return x + torch.as_tensor(array), array.shape

    array = np.arange(4, dtype=np.float32)
    for i in range(3):
        yield fn(ramp(), array)
        array[i] += 10
    yield fn(ramp(), array.astype(np.float64))


@footgun("correct")
def functions_and_modules_as_arguments(compiled):
    @compiled
    def fn(layer, act, x):
        return act(layer(x)).sum()

    one, other = nn.Linear(4, 3), nn.Linear(4, 5)
    for layer, act in ((one, torch.sin), (other, torch.sin), (one, torch.cos), (one, torch.sin)):
        yield fn(layer, act, ramp())


@footgun("correct")
def nothing_but_python(compiled):
    @compiled
    def fn(a, b=2):
        return a * b, None

    for a in (1, 2, "x"):
        yield fn(a)


@footgun("correct")
def nothing_returned(compiled):
    x = ramp()

    @compiled
    def fn():
        x.mul_(2)

    for _ in range(3):
        yield fn(), x


@footgun("compiled")
def callable_object(compiled):
    class Scale:
        def __init__(self):
            self.k = 2.0

        def __call__(self, x):
            return x * self.k

    scale = Scale()
    fn = compiled(scale)
    for k in (2.0, 3.0, 2.0):
        scale.k = k
        yield fn(ramp())


@footgun("correct")
def function_without_source(compiled):
    space = {"torch": torch}
    exec("def fn(x, n):\n"
         "    for i in range(n):\n"
         "        x = x * torch.tanh(x)\n"
         "    return x", space)
    fn = compiled(space["fn"])
    for n in (1, 2, 1):
        yield fn(ramp(), n)


@footgun("correct")
def source_changed_since_the_import(compiled):
    text = "def fn(x, k):\n    y = x * {}\n    return y + k\n"
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(3):
            path = Path(folder, "edited.py")
            path.write_text(text.format(turn + 2))
            space = {}
            exec(compile(path.read_text(), str(path), "exec"), space)
            path.write_text(text.format(9))
            fn = compiled(space["fn"])
            yield fn(ramp(), turn), fn(ramp(), turn)


@footgun("correct")
def builtin_of_the_library(compiled):
    fn = compiled(torch.sin)
    for i in range(3):
        yield fn(ramp(i))
