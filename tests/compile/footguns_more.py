"""Where Python keeps what a function reads: classes, descriptors, functions, containers; and what
runs unseen: operators, properties, things that go. Schedulers, patched modules, caught refusals."""

import collections
import contextlib
import contextvars
import dataclasses
import enum
import functools
import itertools
import sys
import threading
import types
import weakref

import numpy as np
import torch
from footguns import footgun
from torch import nn


def ramp(n=4):
    return torch.arange(float(n)) + 1


def spaced(**values):
    return types.SimpleNamespace(**values)


# --- classes and descriptors ------------------------------------------------------------------


@footgun("compiled")
def descriptor_that_gives_another_value(compiled):
    class Gain:
        value = 2.0

        def __get__(self, owner, kind=None):
            return self.value

    class Model:
        gain = Gain()

    model = Model()
    fn = compiled(lambda x: x * model.gain)
    for _ in range(3):
        yield fn(ramp())
        Model.__dict__["gain"].value += 1


@footgun("correct")
def descriptor_that_counts(compiled):
    class Gain:
        calls = 0

        def __get__(self, owner, kind=None):
            Gain.calls += 1
            return 2.0

    class Model:
        gain = Gain()

    model = Model()
    fn = compiled(lambda x: x * model.gain)
    for _ in range(3):
        yield fn(ramp()), Gain.calls


@footgun("compiled")
def object_with_slots(compiled):
    class Model:
        __slots__ = ("act", "gain", "layer")

    model = Model()
    model.gain, model.act, model.layer = torch.ones(4), torch.sin, nn.Linear(4, 4)
    fn = compiled(lambda x: model.layer(model.act(x * model.gain)))
    yield fn(ramp())
    model.gain.add_(1)
    yield fn(ramp())
    model.gain = torch.zeros(4)
    yield fn(ramp())
    model.act = torch.cos
    yield fn(ramp())
    model.layer = nn.Linear(4, 4)
    yield fn(ramp())


@footgun("compiled")
def attribute_found_in_another_class(compiled):
    class Base:
        gain = 2.0

        def scaled(self, x):
            return x * self.gain

    class Model(Base):
        pass

    model = Model()
    fn = compiled(lambda x: model.scaled(x))
    yield fn(ramp())
    Base.gain = 3.0
    yield fn(ramp())
    Model.gain = 5.0
    yield fn(ramp())
    model.gain = 7.0
    yield fn(ramp())
    Model.scaled = lambda self, x: x - self.gain
    yield fn(ramp())
    model.scaled = lambda x: x
    yield fn(ramp())
    del model.scaled, model.gain
    yield fn(ramp())


@footgun("compiled")
def methods_replaced_in_other_ways(compiled):
    class Base:
        def scaled(self, x):
            return x * 2

    class Model(Base):
        @property
        def gain(self):
            return 2.0

        @staticmethod
        def moved(x):
            return x + 1

        def scaled(self, x):
            return super().scaled(x) + self.gain

    model = Model()
    fn = compiled(lambda x: Model.moved(model.scaled(x)))
    yield fn(ramp())
    Base.scaled = lambda self, x: x * 3
    yield fn(ramp())
    Model.gain = property(lambda self: 5.0)
    yield fn(ramp())
    Model.moved = staticmethod(lambda x: x - 1)
    yield fn(ramp())


@footgun("compiled")
def class_of_an_object_changed(compiled):
    class One:
        def scaled(self, x):
            return x

    class Two:
        def scaled(self, x):
            return x * 2

    model = One()
    fn = compiled(lambda x: model.scaled(x))
    yield fn(ramp())
    model.__class__ = Two
    yield fn(ramp())


@footgun("compiled")
def attribute_of_the_class_of_a_class(compiled):
    class Meta(type):
        gains = [2.0]

        @property
        def gain(cls):
            return cls.gains[0]

    class Model(metaclass=Meta):
        pass

    fn = compiled(lambda x: x * Model.gain)
    for _ in range(3):
        yield fn(ramp())
        Meta.gains[0] += 1


@footgun("correct")
def objects_whose_attributes_are_elsewhere(compiled):
    class Model:
        gain = 2.0

    model, own, chosen = Model(), threading.local(), contextvars.ContextVar("gain", default=2.0)
    own.gain, seen, to = 2.0, weakref.proxy(model), weakref.ref(model)
    fns = [compiled(fn) for fn in (
        lambda x: x * own.gain, lambda x: x * seen.gain, lambda x: x * to().gain,
        lambda x: x * chosen.get())]
    for i in range(3):
        yield [fn(ramp()) for fn in fns]
        own.gain = model.gain = i + 5.0
        chosen.set(i + 6.0)


@footgun("correct")
def attribute_that_a_function_makes_up(compiled):
    class Model:
        calls = 0

        def __getattr__(self, name):
            Model.calls += 1
            return float(Model.calls)

    made = types.ModuleType("made")
    made.calls = 0

    def from_module(name):
        made.calls += 1
        return float(made.calls)

    made.__getattr__ = from_module
    model = Model()
    first, second = compiled(lambda x: x * model.gain), compiled(lambda x: x * made.gain)
    for _ in range(3):
        yield first(ramp()), second(ramp()), Model.calls, made.calls


@footgun("correct")
def property_that_is_remembered(compiled):
    class Model:
        def __init__(self):
            self.calls = 0

        @functools.cached_property
        def mask(self):
            self.calls += 1
            return torch.ones(4) * self.calls

    model = Model()
    fn = compiled(lambda x: x * model.mask)
    for _ in range(4):
        yield fn(ramp()), model.calls, model.mask
    del model.mask
    yield fn(ramp()), model.calls


@footgun("compiled")
def attribute_that_appears(compiled):
    class Model:
        pass

    model, layer = Model(), nn.Linear(4, 4)
    fn = compiled(lambda x: x * (2 if hasattr(model, "gain") else 3) + (
        layer.extra if hasattr(layer, "extra") else 0))
    yield fn(ramp())
    Model.gain = 1
    yield fn(ramp())
    layer.register_buffer("extra", torch.ones(1))
    yield fn(ramp())
    del Model.gain
    yield fn(ramp())
    del layer.extra
    yield fn(ramp())


# --- functions --------------------------------------------------------------------------------


@footgun("compiled")
def function_given_other_code(compiled):
    def scaled(x):
        return x * 2

    def other(x):
        return x * 3

    fn = compiled(lambda x: scaled(x))
    yield fn(ramp())
    scaled.__code__ = other.__code__
    yield fn(ramp())


@footgun("compiled")
def numbers_kept_on_functions(compiled):
    def scaled(x, *, gain=2.0, gains=[1.0]):  # noqa: B006
        return x * gain * gains[0] * scaled.factor

    scaled.factor = 2.0
    part = functools.partial(scaled, gain=3.0)
    fn = compiled(lambda x: scaled(x) + part(x))
    yield fn(ramp())
    scaled.factor += 1
    yield fn(ramp())
    scaled.__kwdefaults__["gain"] += 1
    yield fn(ramp())
    scaled.__kwdefaults__["gains"][0] += 1
    yield fn(ramp())
    part.keywords["gain"] += 1
    yield fn(ramp())


@footgun("compiled")
def names_imported_inside(compiled):
    made = sys.modules["made_for_programs"] = types.ModuleType("made_for_programs")
    made.GAIN = 2.0

    @compiled
    def fn(x):
        from made_for_programs import GAIN as gain
        return x * gain

    for _ in range(3):
        yield fn(ramp())
        made.GAIN += 1
    del sys.modules["made_for_programs"]


@footgun("correct")
def remembered_by_arguments(compiled):
    calls = []

    @functools.lru_cache
    def mask(n):
        calls.append(n)
        return torch.ones(n) * len(calls)

    fn = compiled(lambda x: x * mask(4))
    for _ in range(3):
        yield fn(ramp()), len(calls)
    mask.cache_clear()
    for _ in range(3):
        yield fn(ramp()), len(calls), mask(4)


@footgun("correct")
def function_chosen_by_the_class(compiled):
    @functools.singledispatch
    def gain(value):
        return 2.0

    fn = compiled(lambda x: x * gain(4))
    yield fn(ramp())
    gain.register(int)(lambda value: 5.0)
    yield fn(ramp())


# --- containers -------------------------------------------------------------------------------


@footgun("compiled")
def containers_in_containers(compiled):
    rows = [[1.0, 2.0], [3.0]]

    @compiled
    def fn(x):
        scale = 2 if rows == [[1.0, 2.0], [3.0]] else 3
        flat = [v for row in rows for v in row]
        return x * scale + sum(map(len, rows)) * sum(flat) + len(f"{rows}") + max(rows)[0]

    yield fn(ramp())
    rows[0][0] += 1
    yield fn(ramp())
    rows[1].append(4.0)
    yield fn(ramp())


@footgun("correct")
def dicts_with_a_will_of_their_own(compiled):
    class Missing(dict):
        default = 2.0

        def __missing__(self, key):
            return self.default

    class Doubled(dict):
        def __getitem__(self, key):
            return dict.__getitem__(self, key) * 2

    missing, doubled = Missing(), Doubled(a=2.0)
    near, far = {"a": 2.0}, {"a": 3.0, "b": 1.0}
    chain = collections.ChainMap(near, far)
    fns = [compiled(fn) for fn in (lambda x: x * missing["a"], lambda x: x * doubled["a"],
                                   lambda x: x * chain["a"] + chain["b"])]
    for i in range(3):
        yield [fn(ramp()) for fn in fns]
        Missing.default += 1
        doubled["a"] += 1
        near["a"] = far["b"] = i + 4.0
    del near["a"]
    yield [fn(ramp()) for fn in fns]


@footgun("correct")
def contents_that_only_look_fixed(compiled):
    table, raw, line = {"a": 1.0}, bytearray(b"ab"), collections.deque([1.0, 2.0], maxlen=2)
    view, proxy, window = table.values(), types.MappingProxyType(table), memoryview(raw)
    fns = [compiled(fn) for fn in (
        lambda x: x * sum(view), lambda x: x * proxy["a"], lambda x: x * raw[0] + len(raw),
        lambda x: x * window[0], lambda x: x * sum(line), lambda x: x * sum(raw))]
    for i in range(3):
        yield [fn(ramp()) for fn in fns]
        table["a"] += 1
        raw[0] += 1
        line.append(i + 5.0)


@footgun("correct")
def iterators_from_outside(compiled):
    steps = [itertools.count(1), zip([1, 2, 3], [1, 2, 3], strict=True), iter([1, 0, 1, 0, 1])]
    fns = [compiled(fn) for fn in (
        lambda x: x * next(steps[0]), lambda x: x * len(list(zip(steps[1], [0], strict=False))),
        lambda x: x * any(steps[2]))]
    for _ in range(3):
        yield [fn(ramp()) for fn in fns]


@dataclasses.dataclass
class Pair:
    first: float = 1.0
    second: float = 2.0


@footgun("correct")
def dataclasses_as_a_whole(compiled):
    pair, other = Pair(), Pair()
    fns = [compiled(fn) for fn in (
        lambda x: x * (2 if pair == other else 3), lambda x: x * (2 if pair in [other] else 3),
        lambda x: x * dataclasses.replace(pair, first=7.0).second,
        lambda x: x * sum(dataclasses.astuple(pair)),
        lambda x: x * sum(dataclasses.asdict(pair).values()), lambda x: x * len(repr(pair)))]
    for _ in range(3):
        yield [fn(ramp()) for fn in fns]
        pair.second += 9


# --- arguments are other objects at every call ------------------------------------------------


@footgun("correct")
def argument_is_one_of_those_outside(compiled):
    weights = [ramp(), ramp() * 2]
    table, places = {weights[0]: 7.0}, {id(weights[1]): 9.0}

    @compiled
    def by_identity(x):
        for i, w in enumerate(weights):
            if x is w:
                return x * (5 + i)
        return x * 2

    fns = [by_identity, compiled(lambda x: x * table.get(x, 1.0)),
           compiled(lambda x: x * (2 if x in table else 3)),
           compiled(lambda x: x * places.get(id(x), 1.0))]
    for x in (ramp(), weights[0], weights[1], ramp()):
        yield [fn(x) for fn in fns]


@footgun("correct")
def attributes_of_an_argument(compiled):
    fns = [compiled(fn) for fn in (
        lambda x: x * getattr(x, "tag", 9.0), lambda x: x * (2 if hasattr(x, "tag") else 3))]
    plain, first, second = ramp(), ramp(), ramp()
    first.tag, second.tag = 3.0, 4.0
    for x in (plain, first, second, plain):
        yield [fn(x) for fn in fns]


@footgun("compiled")
def attributes_of_a_tensor_outside(compiled):
    w = ramp()
    fn = compiled(lambda x: x * getattr(w, "tag", 9.0))
    yield fn(ramp())
    w.tag = 3.0
    yield fn(ramp())
    w.tag = 4.0
    yield fn(ramp())
    del w.tag
    yield fn(ramp())


@footgun("compiled")
def tensor_outside_that_is_only_asked(compiled):
    w = ramp()
    fn = compiled(lambda x: x * (2 if w.requires_grad else 3) * (4 if w.shape[0] > 4 else 5))
    yield fn(ramp())
    w.requires_grad_()
    yield fn(ramp())
    w.data = ramp(6)
    yield fn(ramp())


@footgun("correct")
def past_of_an_argument(compiled):
    w = ramp().requires_grad_()
    fns = [compiled(fn) for fn in (
        lambda x: x.detach() * (2 if x.is_leaf else 3),
        lambda x: x.detach() * (2 if x.grad_fn is None else len(x.grad_fn.name())),
        lambda x: x.detach() * (2 if x._base is None else x._base.sum().item()),
        lambda x: x.detach() * (2 if x.is_inference() else 3))]
    with torch.inference_mode():
        inferred = ramp()
    for x in (w, w * 1, w.sigmoid(), w.detach()[:2], inferred, w):
        yield [fn(x) for fn in fns]


@footgun("compiled")
def kinds_of_numbers(compiled):
    here = spaced(k=1)

    @compiled
    def fn(x, k):
        return (x.long() + 1) * k, x * here.k, type(k).__name__, type(here.k).__name__

    for k in (1, True, 1.0, -0.0, 0.0, 2.5, 0, False, 1):
        here.k = k
        yield fn(ramp(), k)


# --- what runs unseen -------------------------------------------------------------------------


class Noted:
    """Its operators, and setting its attributes and items, are noted."""

    log: list = []

    def __add__(self, other):
        self.log.append("+")
        return 2

    def __iadd__(self, other):
        self.log.append("+=")
        return self

    def __bool__(self):
        self.log.append("bool")
        return True

    def __contains__(self, other):
        self.log.append("in")
        return True

    def __setitem__(self, key, value):
        self.log.append(key)

    def __iter__(self):
        self.log.append("iter")
        return iter((1.0, 2.0))


@footgun("correct")
def operators_of_what_the_function_makes(compiled):
    def augmented(x):
        noted = Noted()
        noted += 1
        return x

    def stored(x):
        Noted()["key"] = 1
        return x

    fns = [compiled(fn) for fn in (
        lambda x: x * (Noted() + 1), lambda x: x if Noted() else -x,
        lambda x: x * (2 if 3 in Noted() else 3), lambda x: x * sum(Noted()), augmented, stored)]
    for _ in range(3):
        yield [fn(ramp()) for fn in fns], list(Noted.log)
    Noted.log.clear()


@footgun("correct")
def setting_and_going_that_run_code(compiled):
    log = []

    class Setter:
        @property
        def gain(self):
            return 2.0

        @gain.setter
        def gain(self, value):
            log.append(value)

    class Noisy:
        def __setattr__(self, name, value):
            log.append(name)
            object.__setattr__(self, name, value)

    class Going:
        def __del__(self):
            log.append("gone")

    class Failure(Exception):
        def __init__(self):
            log.append("failed")

    def set_two(x):
        a, b = Setter(), Noisy()
        a.gain = b.gain = 3.0
        return x * b.gain

    def gone(x):
        Going()
        return x * 2

    def failed(x):
        try:
            raise Failure
        except Failure:
            return x * 3

    fns = [compiled(fn) for fn in (set_two, gone, failed)]
    for _ in range(3):
        yield [fn(ramp()) for fn in fns], list(log)


@footgun("correct")
def refusals_that_are_caught(compiled):
    log = []

    def bare(x):
        try:
            log.append(1)
        except:  # noqa: E722
            pass
        return x * 2

    def returned(x):
        try:
            log.append(2)
        finally:
            return x * 2  # noqa: B012

    def suppressed(x):
        with contextlib.suppress(BaseException):
            log.append(3)
        return x * 2

    fns = [compiled(fn) for fn in (bare, returned, suppressed)]
    for _ in range(3):
        yield [fn(ramp()) for fn in fns], list(log)


@footgun("correct")
def reads_that_are_caught(compiled):
    @compiled
    def fn(x):
        try:
            gain = 1 if x.sum() > 100 else 2
        except Exception:
            gain = 5
        return x * gain

    for i in range(3):
        yield fn(ramp() * (100 * i + 1))


class nullcontext:
    """Only called as one that does nothing."""

    log: list = []

    def __enter__(self):
        self.log.append("in")

    def __exit__(self, *error):
        self.log.append("out")


@footgun("correct")
def context_with_a_known_name(compiled):
    @compiled
    def fn(x):
        with nullcontext():
            return x * 2

    for _ in range(3):
        yield fn(ramp()), list(nullcontext.log)
    nullcontext.log.clear()


# --- modules, optimizers, schedulers ----------------------------------------------------------


@footgun("compiled")
def layers_patched(compiled):
    layer = nn.Linear(4, 4)
    fn = compiled(lambda x: layer(x))
    yield fn(ramp())
    layer.forward = lambda x: x * 5
    yield fn(ramp())
    del layer.forward
    original = nn.Linear.forward
    nn.Linear.forward = lambda self, x: x * 7
    try:
        yield fn(ramp())
    finally:
        nn.Linear.forward = original
    yield fn(ramp())


@footgun("compiled")
def call_of_a_module_replaced(compiled):
    class Model(nn.Module):
        def forward(self, x):
            return x * 2

    model = Model()
    fn = compiled(lambda x: model(x))
    yield fn(ramp())
    Model.__call__ = lambda self, x: x * 5
    yield fn(ramp())
    del Model.__call__
    yield fn(ramp())


def stepped(opt, w, compiled):
    @compiled
    def fn(x):
        opt.zero_grad()
        (w * x).sum().backward()
        opt.step()
        return w.detach() * 2

    return fn


@footgun("correct")
def optimizer_patched(compiled):
    w = ramp().requires_grad_()
    opt = torch.optim.SGD([w], lr=0.1)
    fn = stepped(opt, w, compiled)
    yield fn(ramp()), w
    opt.step = lambda: w.data.mul_(0.5)
    yield fn(ramp()), w
    yield fn(ramp()), w
    del opt.step
    yield fn(ramp()), w


@footgun("correct")
def optimizer_that_does_more(compiled):
    class Keeping(torch.optim.SGD):
        def zero_grad(self, set_to_none=True):
            pass

    class Shrinking(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure=None):
            super().step(closure)
            for group in self.param_groups:
                for p in group["params"]:
                    p.mul_(0.5)

    for kind in (Keeping, Shrinking):
        w = ramp().requires_grad_()
        fn = stepped(kind([w], lr=0.1), w, compiled)
        for _ in range(3):
            yield fn(ramp()), w


@footgun("correct")
def rate_read_after_the_scheduler(compiled):
    for read in (lambda opt, s, group: s.get_last_lr()[0], lambda opt, s, group: s.last_epoch,
                 lambda opt, s, group: group["lr"], lambda opt, s, group: sum(
                     g["lr"] for g in opt.param_groups)):
        w = ramp().requires_grad_()
        opt = torch.optim.SGD([w], lr=1.0)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)

        @compiled
        def fn(x, w=w, opt=opt, scheduler=scheduler, read=read):
            group = opt.param_groups[0]
            (w * x).sum().backward()
            opt.step()
            scheduler.step()
            return x * read(opt, scheduler, group)

        for _ in range(3):
            yield fn(ramp()), w


@footgun("correct")
def step_count_read_around_the_step(compiled):
    for late in (False, True):
        w = ramp().requires_grad_()
        opt = torch.optim.Adam([w], lr=0.1)

        @compiled
        def fn(x, w=w, opt=opt, late=late):
            before = 0 if late else opt.state[w].get("step", torch.zeros(())) * 1
            opt.zero_grad()
            (w * x).sum().backward()
            opt.step()
            return x * (opt.state[w]["step"] if late else before)

        for _ in range(4):
            yield fn(ramp()), w


@footgun("correct")
def step_whose_failure_is_caught(compiled):
    w = ramp().requires_grad_()
    opt = torch.optim.Adam([w], lr=0.1)

    @compiled
    def fn(x):
        opt.zero_grad()
        (w * x).sum().backward()
        with contextlib.suppress(Exception):
            opt.step()
        return w.detach() * 2

    for _ in range(3):
        yield fn(ramp()), w


# --- memory that others see too ---------------------------------------------------------------


@footgun("correct")
def memory_of_numpy_under_two_tensors(compiled):
    a = np.ones(4, np.float32)
    t, u = torch.from_numpy(a), torch.from_numpy(a)

    @compiled
    def fn(x):
        t.add_(x)
        return u * 2, x * 2

    yield fn(ramp()), a.copy()
    a *= 2
    yield fn(ramp()), a.copy()
    yield fn(torch.from_numpy(a)), a.copy()


@footgun("correct")
def parameters_in_one_memory(compiled):
    flat = torch.arange(8.0)
    w, b = nn.Parameter(flat[:4]), nn.Parameter(flat[4:])
    opt = torch.optim.SGD([w, b], lr=0.1)

    @compiled
    def fn(x):
        opt.zero_grad()
        ((w * x + b) ** 2).sum().backward()
        opt.step()
        with torch.no_grad():
            flat.mul_(0.5)
        return w.detach() * x + b.detach()

    for _ in range(3):
        yield fn(ramp()), w, b, flat


@footgun("correct")
def views_made_before(compiled):
    w = torch.zeros(3, 4)
    row, turned, wide = w[1], w.t(), torch.ones(1, 4).expand(3, 4)

    @compiled
    def fn(x):
        row.add_(x)
        return turned * 1, w.sum(0), wide * x

    for _ in range(3):
        yield fn(ramp()), w, row, turned
        w.mul_(2)


@footgun("correct")
def gradients_that_are_shared(compiled):
    w, v = ramp().requires_grad_(), ramp().requires_grad_()
    both = torch.zeros(4)
    w.grad = v.grad = both

    @compiled
    def fn(x):
        (w * x).sum().backward()
        (v * x * 2).sum().backward()
        return w.grad * 1

    for _ in range(3):
        yield fn(ramp()), w.grad, v.grad, both


@footgun("correct")
def other_memory_put_under_a_tensor(compiled):
    w, a, b = ramp(), ramp(), ramp()
    first = compiled(lambda x: x * w.sum())

    @compiled
    def second(x, y):
        x.add_(1)
        return y * 2

    yield first(ramp()), second(a, b)
    w.data = ramp(6)
    b.data = a
    yield first(ramp()), second(a, b), a, b
    w.data = ramp(6).double()
    yield first(ramp())


# --- control flow -----------------------------------------------------------------------------


class Choice(enum.Enum):
    ONE = 1
    TWO = 2


@footgun("compiled")
def ways_through_a_function(compiled):
    here = spaced(choice=Choice.ONE)

    @compiled
    def fn(x, k):
        try:
            if (n := x.shape[0]) > 3:
                x = x * n
            if k > 1:
                return x * 2
            parts = [y := x * i for i in range(3)]
        finally:
            x = x + (1 if here.choice is Choice.ONE else here.choice.value)
        return x, parts, y

    for k in (1, 2, 1):
        yield fn(ramp(k + 2), k)
        here.choice = Choice.TWO


@footgun("correct")
def changes_inside_of_tuples(compiled):
    both = ([1.0], spaced(gain=1.0))

    @compiled
    def fn(x):
        with contextlib.suppress(TypeError):
            both[0] += [2.0]
        both[1].gain += 1
        return x * len(both[0]) * both[1].gain

    for _ in range(3):
        yield fn(ramp()), both[0], both[1].gain
