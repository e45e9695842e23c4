"""Programs that look at values: host reads, branches on data, shapes that depend on data."""

import math

import numpy as np
import torch
from footguns import footgun
from torch import nn


def batches(count, *shape):
    return [torch.randn(*shape) * (i + 1) for i in range(count)]


@footgun("correct")
def item_in_the_middle(compiled):
    @compiled
    def fn(x):
        scale = x.abs().max().item()  # here
        return x / scale  # here

    for x in batches(4, 3, 4):
        yield fn(x)


@footgun("correct")
def item_of_the_result(compiled):
    net = nn.Linear(4, 2)

    @compiled
    def fn(x):
        return net(x).pow(2).mean().item()  # here

    for x in batches(3, 3, 4):
        yield fn(x)


@footgun("correct")
def item_of_an_argument(compiled):
    @compiled
    def fn(x, temperature):
        return (x / temperature.item()).softmax(-1)  # here

    x = torch.randn(3, 4)
    for value in (1.0, 2.0, 0.5, 2.0):
        yield fn(x, torch.tensor(value))


@footgun("correct")
def branch_on_a_tensor(compiled):
    @compiled
    def fn(x):
        if x.sum() > 0:  # here
            return x * 2
        return x - 10

    x = torch.rand(3, 4)
    for sign in (1, -1, -1, 1, 1):
        yield fn(sign * x)


@footgun("correct")
def loop_until_a_tensor_is_small(compiled):
    @compiled
    def fn(x):
        turns = 0
        while x.norm() > 1:  # here
            x = x / 2
            turns += 1
        return x, turns

    for size in (1.0, 10.0, 0.1, 100.0):
        yield fn(torch.full((5,), size))


@footgun("correct")
def length_from_a_tensor(compiled):
    @compiled
    def fn(x, lengths):
        longest = int(lengths.max())  # here
        return x[:, :longest].sum(1)

    x = torch.randn(3, 7)
    for lengths in ([1, 2, 3], [7, 1, 1], [3, 3, 3], [2, 2, 1]):
        yield fn(x, torch.tensor(lengths))


@footgun("correct")
def float_for_the_math_module(compiled):
    @compiled
    def fn(x):
        return x * math.log1p(float(x.pow(2).sum()))  # here

    for x in batches(3, 4):
        yield fn(x)


@footgun("correct")
def print_in_the_middle(compiled):
    @compiled
    def fn(x):
        y = x * 2
        print("sum", y.sum())  # here
        return y + 1

    for i in range(4):
        yield fn(torch.arange(3.0) + i)


@footgun("correct")
def print_of_shapes_only(compiled):
    @compiled
    def fn(x):
        print("shape", tuple(x.shape), x.dtype)
        return x.relu()

    for x in batches(3, 2, 3):
        yield fn(x)


@footgun("correct")
def text_of_a_value(compiled):
    log = []

    @compiled
    def fn(x):
        loss = x.pow(2).mean()
        log.append(f"loss {loss:.4f}")  # here
        return loss

    for x in batches(3, 4):
        yield fn(x), log


@footgun("correct")
def numpy_in_the_middle(compiled):
    @compiled
    def fn(x):
        y = np.median((x * 2).numpy(), axis=0)  # here
        return torch.from_numpy(y) + x

    for x in batches(3, 5, 2):
        yield fn(x)


@footgun("correct")
def numpy_shares_memory_with_the_result(compiled):
    @compiled
    def fn(x):
        y = x + 1
        return y, y.numpy()  # here

    for x in batches(3, 4):
        y, array = fn(x)
        array[0] = 7.0
        yield y, array


@footgun("correct")
def numpy_function_of_tensors(compiled):
    @compiled
    def fn(x):
        return torch.tensor(np.percentile(x, 25)) * x.sum()  # here

    for x in batches(3, 6):
        yield fn(x)


@footgun("correct")
def list_of_values(compiled):
    @compiled
    def fn(x):
        return sorted(x.tolist()), x.cumsum(0)  # here

    for x in batches(3, 5):
        yield fn(x)


@footgun("correct")
def pieces_by_values(compiled):
    @compiled
    def fn(x, sizes):
        return [part.mean() for part in x.split(sizes.tolist())]  # here

    x = torch.arange(6.0)
    for sizes in ([1, 2, 3], [3, 3], [2, 2, 1, 1]):
        yield fn(x, torch.tensor(sizes))


@footgun("correct")
def nonzero(compiled):
    @compiled
    def fn(x):
        return (x > 0).nonzero(), x * 2  # here

    for x in batches(4, 3, 3):
        yield fn(x)


@footgun("correct")
def selected_by_a_mask(compiled):
    @compiled
    def fn(x):
        return x[x > 0].sum(), x.masked_select(x < 0.5)  # here

    for x in batches(4, 3, 3):
        yield fn(x)


@footgun("correct")
def unique_values(compiled):
    @compiled
    def fn(x):
        values, counts = x.unique(return_counts=True)  # here
        return values * counts

    for top in (2, 9, 1, 5):
        yield fn(torch.randint(0, top, (8,)))


@footgun("correct")
def written_where_a_mask_holds(compiled):
    @compiled
    def fn(x):
        y = x.clone()
        y[y < 0] = 0
        y[y > 1] += 5
        return y

    for x in batches(3, 3, 3):
        yield fn(x)


@footgun("correct")
def repeated_by_counts(compiled):
    @compiled
    def fn(x, counts):
        return x.repeat_interleave(counts) * 2  # here

    for counts in ([1, 0, 2], [3, 3, 3], [0, 0, 1]):
        yield fn(torch.arange(3.0), torch.tensor(counts))


@footgun("correct")
def counts_of_bins(compiled):
    @compiled
    def fn(x):
        return x.bincount(), x + 1  # here

    for top in (3, 6, 2):
        yield fn(torch.randint(0, top, (9,)))


@footgun("correct")
def assertion_on_values(compiled):
    @compiled
    def fn(x):
        assert (x >= 0).all(), "negative"  # here
        return x.sqrt()

    for x in (torch.rand(3), torch.tensor([1.0, -1.0]), torch.ones(2)):
        try:
            yield fn(x)
        except AssertionError as error:
            yield error


@footgun("correct")
def stops_at_a_bad_loss(compiled):
    net = nn.Linear(3, 1)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)

    @compiled
    def step(x):
        opt.zero_grad()
        loss = net(x).pow(2).mean()
        if not torch.isfinite(loss):  # here
            return None
        loss.backward()
        opt.step()
        return loss

    for x in (torch.ones(2, 3), torch.full((2, 3), math.inf), torch.ones(2, 3) * 2):
        yield step(x), net, opt


@footgun("correct")
def best_so_far(compiled):
    best = math.inf

    @compiled
    def fn(x):
        nonlocal best
        loss = x.pow(2).sum()
        best = min(best, loss.item())  # here
        return loss

    for value in (3.0, 2.0, 5.0, 1.0):
        yield fn(torch.full((2,), value)), best


@footgun("correct")
def tensor_as_an_index_of_a_list(compiled):
    layers = [torch.sin, torch.cos, torch.exp]

    @compiled
    def fn(x, which):
        return layers[which](x)  # here

    for which in (0, 2, 1, 2):
        yield fn(torch.arange(3.0), torch.tensor(which))


@footgun("correct")
def tensor_as_a_count(compiled):
    @compiled
    def fn(x, n):
        for _ in range(n):  # here
            x = x * 1.5
        return x

    for n in (0, 3, 1, 2):
        yield fn(torch.arange(3.0), torch.tensor(n))


@footgun("correct")
def found_in_a_tensor(compiled):
    @compiled
    def fn(x, stop):
        return x * 2 if stop in x else x - 1  # here

    for stop in (3, 9, 1, 7):
        yield fn(torch.arange(4), stop)


@footgun("correct")
def equality_of_tensors(compiled):
    @compiled
    def fn(x, y):
        return x + 1 if torch.equal(x, y) else y  # here

    x = torch.arange(3.0)
    for y in (x, x + 1, x.clone(), x * 0):
        yield fn(x, y)


@footgun("correct")
def larger_of_two_by_python(compiled):
    @compiled
    def fn(x, y):
        return max(x.sum(), y.sum()) * 2  # here

    for i in range(4):
        yield fn(torch.tensor([1.0, 2.0]), torch.tensor([i * 1.0, 1.0]))


@footgun("compiled")
def rows_of_a_tensor(compiled):
    @compiled
    def fn(x):
        total = torch.zeros(x.shape[1])
        for i, row in enumerate(x):
            total = total + (i + 1) * row
        return total / len(x), x.numel() + x.dim()

    for x in batches(3, 4, 3):
        yield fn(x)


@footgun("compiled")
def arithmetic_on_sizes(compiled):
    @compiled
    def fn(x):
        b, t, c = x.shape
        mask = torch.ones(t, t).tril() / math.sqrt(c)
        return (x.reshape(b, t, 2, c // 2).transpose(1, 2).reshape(b, 2, -1), mask * b)

    for t in (3, 3, 5):
        yield fn(torch.randn(2, t, 4))


@footgun("compiled", most=1)
def one_graph_with_a_number_of_a_tensor(compiled):
    @compiled(fullgraph=True)
    def fn(x):
        return x * x.sum().item()

    for x in batches(3, 4):
        yield fn(x)


@footgun("compiled", most=2)
def one_graph_with_a_branch(compiled):
    @compiled(fullgraph=True)
    def fn(x):
        if x.mean() > 0:
            return x * 2
        return -x

    for x in batches(6, 4):
        yield fn(x)


@footgun("raises")
def one_graph_with_a_read(compiled):
    @compiled(fullgraph=True)
    def fn(x):
        return x * sum(x.tolist())  # here

    for x in batches(3, 4):
        yield fn(x)


@footgun("raises")
def one_graph_with_print(compiled):
    @compiled(fullgraph=True)
    def fn(x):
        print(x)  # here
        return -x

    for x in batches(2, 4):
        yield fn(x)
