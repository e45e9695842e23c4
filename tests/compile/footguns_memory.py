"""Memory: writes into arguments and views, aliases, results of earlier calls, layouts, sizes."""

import numpy as np
import torch
import torch.nn.functional as F
from footguns import footgun
from torch import nn


def ramp(*shape):
    n = 1
    for s in shape:
        n *= s
    return torch.arange(float(n)).reshape(shape) / 4


# --- writes into arguments --------------------------------------------------------------------


@footgun("compiled")
def argument_changed_in_place(compiled):
    @compiled
    def fn(x, y):
        x.mul_(2)
        x += y
        return x.sum()

    x = ramp(3, 4)
    for i in range(4):
        yield fn(x, torch.full((3, 4), float(i))), x


@footgun("compiled")
def weights_assigned_and_not_returned(compiled):  # tinygrad#16618
    x, y, w = torch.randn(16, 5), torch.randn(16, 1), torch.zeros(5, 1)

    @compiled
    def step(w):
        error = x @ w - y
        w.copy_(w - 0.1 * (x.t() @ error) / len(x))
        return error.pow(2).mean()

    for _ in range(5):
        yield step(w), w


@footgun("compiled")
def read_before_the_write(compiled):  # pytorch#94777
    @compiled
    def fn(x):
        y = torch.log(x)
        x.log_()
        return y

    for i in range(3):
        x = torch.full((3,), 3.0 + i)
        yield fn(x), x


@footgun("compiled")
def two_values_swapped(compiled):
    @compiled
    def fn(x, y):
        kept = x.clone()
        x.copy_(y)
        y.copy_(kept)

    x, y = ramp(3), -ramp(3)
    for _ in range(3):
        yield fn(x, y), x, y


@footgun("compiled")
def write_through_a_view_of_an_argument(compiled):
    @compiled
    def fn(x):
        row = x[1]
        row += 10
        x.t()[0].mul_(3)
        x.view(-1)[2:5].zero_()
        return row * 2, x.sum()

    x = ramp(3, 4)
    for _ in range(3):
        yield fn(x), x


@footgun("correct")
def write_into_a_view_given(compiled):
    @compiled
    def fn(part):
        part.add_(1)
        return part * 2

    base = ramp(4, 6)
    for part in (base[1], base[2], base[:, 1], base[::2, ::3], base.t()[0], base):
        yield fn(part), base


@footgun("correct")
def write_through_dropout_that_does_nothing(compiled):  # pytorch#195422
    @compiled
    def fn(x):
        y = F.dropout(x, 0.5, training=False)
        y += y
        return x.sum()

    for _ in range(3):
        x = torch.ones(2, 2)
        yield fn(x), x


@footgun("correct")
def identity_layers_give_the_same_tensor(compiled):
    @compiled
    def fn(x):
        y = nn.Identity()(x)
        z = x.to(torch.float32).contiguous()
        z.mul_(2)
        return y is x, z is x, y

    for _ in range(3):
        x = ramp(4)
        yield fn(x), x


@footgun("correct")
def view_read_after_writes_to_its_base(compiled):  # pytorch#97083
    @compiled
    def fn(x):
        a = x[0:1]
        b = a.squeeze()
        a[0] = 0
        c = b + 1
        x[0] = 2
        return b, c

    for _ in range(3):
        x = ramp(3)
        yield fn(x), x


@footgun("correct")
def result_is_the_argument(compiled):
    @compiled
    def fn(x, flag):
        x.add_(1)
        return x if flag else x.view(-1)

    for flag in (True, False, True):
        x = ramp(2, 2)
        y = fn(x, flag)
        yield y, x, y is x
        y[0] = 50
        yield x


@footgun("compiled")
def results_share_memory(compiled):
    @compiled
    def fn(x):
        y = x * 2
        a, b = y.chunk(2)
        return y, a, b.t(), y.detach()

    for i in range(3):
        y, a, b, d = fn(ramp(4, 2) + i)
        a.zero_()
        yield y, a, b, d


@footgun("correct")
def view_of_an_argument_returned(compiled):
    @compiled
    def fn(x):
        return x[1:], x.unsqueeze(0), x + 0

    for _ in range(3):
        x = ramp(4)
        part, whole, copy = fn(x)
        x.mul_(10)
        part[0] = -1
        yield x, part, whole, copy


@footgun("correct")
def parameter_returned(compiled):
    net = nn.Linear(2, 2)

    @compiled
    def fn(x):
        return net.weight, net.bias.detach(), net(x)

    for _ in range(3):
        w, b, y = fn(ramp(2, 2))
        with torch.no_grad():
            b.add_(1)
        yield w is net.weight, w, b, y, net


# --- results of earlier calls -----------------------------------------------------------------


@footgun("compiled")
def results_of_earlier_calls_stay(compiled):  # CUDA graphs, row 27 of what users ask
    net = nn.Linear(4, 4)

    @compiled
    def fn(x):
        y = net(x)
        return y, y.sum()

    kept = []
    for i in range(4):
        kept.append(fn(ramp(3, 4) * i))
        yield kept


@footgun("compiled")
def losses_kept_in_a_list(compiled):
    w = torch.ones(4, requires_grad=True)
    losses = []

    @compiled
    def fn(x):
        return (w * x).pow(2).sum()

    for i in range(4):
        losses.append(fn(ramp(4) + i))
    torch.stack(losses).sum().backward()
    yield losses, w


@footgun("compiled")
def results_fed_back(compiled):  # tinygrad PR 14278
    @compiled
    def fn(x):
        return ((x + 1) * 2).cumsum(0)

    x = ramp(3)
    first = x
    for _ in range(4):
        x = fn(x)
        yield x, first
    y = ramp(3) * 100
    for _ in range(3):
        y = fn(y)
        yield y, x


@footgun("compiled")
def buffer_that_shifts(compiled):  # tinygrad: buffers overwritten
    @compiled
    def fn(buffer, frame):
        new = torch.cat([buffer[1:], frame])
        return new, new[:1]

    buffer = ramp(3, 2)
    for i in range(5):
        buffer, first = fn(buffer, torch.full((1, 2), 10.0 + i))
        yield buffer, first


@footgun("correct")
def result_written_by_the_caller(compiled):
    scale = torch.tensor([1.0, 2.0])

    @compiled
    def fn(x):
        return x * scale, scale + 0

    for _ in range(3):
        y, s = fn(torch.ones(2))
        y.add_(100)
        s.zero_()
        yield y, s, scale


@footgun("correct")
def constant_made_inside_and_returned(compiled):
    @compiled
    def fn(n):
        return torch.zeros(3), torch.arange(4) + n, torch.tensor([1.0, 2.0])

    for n in (0, 0, 1):
        made = fn(n)
        yield made
        for t in made:
            t.add_(5)


@footgun("compiled")
def gradients_kept_by_the_caller(compiled):
    w = nn.Parameter(torch.ones(3))

    @compiled
    def fn(x):
        w.grad = None
        (w * x).sum().backward()

    kept = []
    for i in range(4):
        fn(ramp(3) + i)
        kept.append(w.grad)
        yield kept


# --- the same tensor twice --------------------------------------------------------------------


@footgun("compiled")
def same_tensor_twice(compiled):
    @compiled
    def fn(x, y):
        x.add_(1)
        return x * y

    a, b = ramp(3), ramp(3) + 1
    for x, y in ((a, b), (a, a), (b, a), (b, b)):
        yield fn(x, y), a, b


@footgun("correct")
def arguments_that_overlap(compiled):  # pytorch#139789
    @compiled
    def fn(x, y):
        x.mul_(2)
        return x + y

    yield fn(torch.ones(4), torch.ones(4))
    base = ramp(8)
    yield fn(base[:4], base[2:6]), base
    yield fn(base[:4], base[4:]), base
    yield fn(base[1:5], base[:4]), base


@footgun("correct")
def argument_is_also_a_closure(compiled):
    state = ramp(3)

    @compiled
    def fn(x):
        x.add_(1)
        return state * 2

    for x in (ramp(3), state, state[:], ramp(3)):
        yield fn(x), state, x


@footgun("correct")
def parameter_given_as_an_argument(compiled):
    net = nn.Linear(3, 3)

    @compiled
    def fn(x, w):
        return (net(x) * w).sum()

    for w in (torch.ones(3, 3), net.weight, net.weight.detach(), torch.ones(3, 3)):
        net.zero_grad()
        fn(ramp(3, 3), w).backward()
        yield net


@footgun("compiled")
def same_tensor_in_a_list(compiled):
    @compiled
    def fn(parts):
        for i, p in enumerate(parts):
            p.add_(i + 1)
        return sum(parts)

    a, b = torch.zeros(2), torch.zeros(2)
    for parts in ([a, b], [a, a], [b, a, b]):
        yield fn(parts), a, b


# --- indices ----------------------------------------------------------------------------------


@footgun("compiled")
def added_to_itself_by_index(compiled):  # pytorch#138908
    @compiled
    def fn(x, y):
        x = x + 10
        y[x] += y[x]

    y = torch.randn(2, 5)
    for _ in range(3):
        yield fn(torch.full((1, 2), -10), y), y


@footgun("compiled")
def same_row_twice(compiled):  # pytorch#174074, #197582
    @compiled
    def fn(x):
        x[[0, 0]] += x[[0, 0]]
        v = x.view(-1)
        index = torch.arange(v.numel()) % 2
        v[index] = v[index] + 1.0
        return x

    for i in range(3):
        yield fn(ramp(2, 2) + i)


@footgun("compiled")
def flipped_onto_itself(compiled):  # pytorch#198270
    @compiled
    def fn(x):
        x.index_put_((torch.arange(x.size(0)),), x * 2.0)
        x.add_(x.flip(0))
        x[1:] = x[:-1].clone()
        return x

    for i in range(3):
        yield fn(ramp(4, 8) + i)


@footgun("compiled")
def normalised_by_groups(compiled):  # pytorch#171493
    @compiled
    def fn(f, group):
        squared = f**2 + 0.01
        sums = torch.zeros(2, f.shape[1]).index_add_(0, group, squared)
        return squared / (sums[group] + 1e-6)

    for i in range(3):
        yield fn(ramp(6, 1) + i, torch.zeros(6, dtype=torch.long))


@footgun("correct")
def write_into_an_expanded_tensor(compiled):  # pytorch#152425
    @compiled
    def fn(x, n):
        a = x.expand((n,))
        a[-1] = 3
        return a

    for n in (2, 4):
        x = torch.tensor(1.0)
        yield fn(x, n), x


@footgun("compiled")
def added_over_an_expanded_tensor(compiled):  # pytorch#183986
    @compiled
    def fn(x, index):
        return x.expand(3, 4).index_add(0, index, torch.ones(2, 4)).contiguous(), x

    for i in range(3):
        yield fn(ramp(1, 4), torch.tensor([0, i]))


@footgun("correct")
def cache_written_at_a_position(compiled):
    cache = torch.zeros(5, 3)

    @compiled
    def fn(x, pos):
        cache[pos:pos + len(x)] = x
        return cache[:pos + len(x)].sum(0)

    pos = 0
    for n in (2, 1, 1, 1):
        yield fn(ramp(n, 3) + 1, pos), cache
        pos += n


@footgun("compiled")
def cache_written_at_an_index(compiled):
    cache = torch.zeros(5, 3)

    @compiled
    def fn(x, pos):
        cache.index_copy_(0, pos, x)
        return cache.sum(0)

    for i in (0, 3, 4, 1):
        yield fn(ramp(1, 3) + i, torch.tensor([i])), cache


@footgun("correct")
def index_out_of_range(compiled):
    table = ramp(4, 2)
    count = torch.zeros(())

    @compiled
    def fn(index):
        count.add_(1)
        return table[index] * 2

    for index in ([0, 3], [1, 9], [2, 2], [-5, 0]):
        try:
            yield fn(torch.tensor(index))
        except IndexError as error:
            yield type(error).__name__, count


@footgun("correct")
def class_out_of_range(compiled):
    net = nn.Embedding(4, 3)

    @compiled
    def fn(x, y):
        return F.cross_entropy(net(x), y)

    for x, y in (([0, 1], [0, 2]), ([0, 1], [0, 3]), ([0, 4], [0, 0]), ([3, 1], [1, 2])):
        try:
            yield fn(torch.tensor(x), torch.tensor(y))
        except IndexError:
            yield "refused", net


# --- tensors from outside, and sharing with others --------------------------------------------


@footgun("compiled")
def tensor_outside_changed_in_place(compiled):
    table = ramp(3)

    @compiled
    def fn(x):
        return x * table

    for i in range(4):
        yield fn(torch.ones(3))
        table.add_(i)


@footgun("compiled")
def memory_changed_by_numpy(compiled):
    array = np.arange(3, dtype=np.float32)
    table = torch.from_numpy(array)

    @compiled
    def fn(x):
        table.add_(1)
        return x * table

    for i in range(3):
        yield fn(torch.ones(3)), array.copy()
        array[i] = -5


@footgun("correct")
def result_of_out(compiled):
    out = torch.zeros(3)

    @compiled
    def fn(x):
        y = torch.mul(x, 2, out=out)
        return y is out, torch.add(x, 1, out=torch.empty(0))

    for i in range(3):
        yield fn(ramp(3) + i), out


@footgun("correct")
def shape_changed_in_place(compiled):
    @compiled
    def fn(x):
        x.unsqueeze_(0)
        y = x.t_() * 2
        return y, x.shape

    for _ in range(2):
        x = ramp(3)
        yield fn(x), x


@footgun("correct")
def size_changed_in_place(compiled):
    @compiled
    def fn(x, n):
        x.resize_(n)
        return x.fill_(n)

    x = torch.zeros(4)
    for n in (2, 4, 3):
        yield fn(x, n), x


@footgun("correct")
def data_of_an_argument_assigned(compiled):
    @compiled
    def fn(x):
        before = x[:]
        x.data = torch.ones(2, 3)
        return before, x * 2

    for _ in range(2):
        x = ramp(4)
        yield fn(x), x


@footgun("correct")
def detached_then_written(compiled):
    w = nn.Parameter(ramp(3))

    @compiled
    def fn(x):
        w.detach().mul_(2)
        with torch.no_grad():
            w.sub_(1)
        return (w * x).sum()

    for _ in range(3):
        fn(torch.ones(3)).backward()
        yield w


@footgun("correct")
def windows_over_memory(compiled):
    @compiled
    def fn(x):
        windows = x.as_strided((3, 3), (1, 1))
        y = windows * 2
        x.as_strided((2,), (2,), 1).add_(100)
        return y, windows.sum()

    for _ in range(3):
        x = ramp(5)
        yield fn(x), x


@footgun("correct")
def parts_written_one_by_one(compiled):
    @compiled
    def fn(x):
        for i, part in enumerate(x.unbind(1)):
            part.mul_(i)
        left, right = x.split(2, dim=1)
        left += right.flip(1)
        return x

    for i in range(3):
        yield fn(ramp(2, 4) + i)


# --- layouts, types and sizes of arguments ----------------------------------------------------


@footgun("compiled")
def layouts_that_change(compiled):
    @compiled
    def fn(x):
        return (x * 2).sum(0), x.reshape(-1) + 1, x.exp()

    a = ramp(4, 4)
    for x in (a, a.t(), a[::2].repeat(2, 1), a.expand(4, 4), a[:, :1].expand(4, 4), a.flip(0)):
        yield fn(x)


@footgun("compiled")
def offsets_that_change(compiled):  # tinygrad: views with different offsets
    @compiled
    def fn(x):
        return x + 1, x.sum()

    base = ramp(5, 6)
    for i in range(4):
        yield fn(base[:, i:i + 2])


@footgun("compiled")
def channels_last(compiled):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
    fn = compiled(net)
    x = torch.randn(2, 3, 5, 5)
    for form in (torch.contiguous_format, torch.channels_last, torch.contiguous_format):
        yield fn(x.to(memory_format=form)), net


@footgun("compiled")
def types_that_change(compiled):
    @compiled
    def fn(x):
        return x * 2 + 1, x.sum(), x / 3

    for dtype in (torch.float32, torch.float64, torch.int64, torch.bool, torch.bfloat16,
                  torch.uint8, torch.float32):
        yield fn(ramp(3).to(dtype))


@footgun("compiled")
def sizes_that_vary(compiled):
    net = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 2))

    @compiled
    def step(x, y):
        net.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        return loss

    for n in (5, 3, 5, 1, 9, 2, 7, 4, 6, 8, 10, 1):
        yield step(torch.randn(n, 4), torch.randint(0, 2, (n,))), net


@footgun("correct")
def batches_of_none_and_one(compiled):
    net = nn.Linear(4, 3)

    @compiled
    def fn(x):
        y = net(x).relu()
        return y.sum(0), y, y.mean()

    for n in (2, 0, 1, 2, 0):
        x = torch.randn(n, 4)
        net.zero_grad()
        made = fn(x)
        made[0].sum().backward()
        yield made, net


@footgun("compiled")
def axes_of_one_that_spread(compiled):
    @compiled
    def fn(x, y):
        return x + y, (x * y).sum(0)

    for a, b in (((3, 4), (3, 4)), ((3, 1), (3, 4)), ((1, 4), (3, 1)), ((), (3,)), ((3,), ())):
        yield fn(ramp(*a), ramp(*b))


@footgun("compiled")
def tensors_of_no_dimension(compiled):
    @compiled
    def fn(x, y):
        return x * y, x.reshape(1), y.add(1)

    for i in range(3):
        yield fn(torch.tensor(2.0 + i), torch.tensor(3))


@footgun("correct")
def empty_tensors(compiled):
    @compiled
    def fn(x):
        return x.sum(), x * 2, torch.cat([x, x]), x.reshape(0, 5)

    for shape in ((0,), (0, 3), (2, 0)):
        yield fn(torch.zeros(shape))


@footgun("correct")
def size_of_the_batch_in_a_number(compiled):
    @compiled
    def fn(x):
        n = x.shape[0]
        if n > 4:
            return x.sum() / n
        return torch.full((n,), float(n)) * x[:, 0]

    for n in (2, 3, 5, 6, 2):
        yield fn(torch.ones(n, 2))
