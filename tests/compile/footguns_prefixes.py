"""Foot-guns: caches that are cut at a position which another call has elsewhere."""

import torch
from footguns import footgun
from torch.nn import functional as F


def cache(*shape, value=0.0):
    return torch.full(shape, value), torch.full(shape, value)


def tokens(count, *shape):
    """Queries, keys and values for so many calls."""
    return [torch.randn(3, *shape).unbind() for _ in range(count)]


@footgun("compiled", most=5)
def generation_by_a_number(compiled):
    keys, values = cache(1, 2, 12, 4, value=float("nan"))

    @compiled
    def step(q, k, v, at):
        keys[:, :, at:at + 1], values[:, :, at:at + 1] = k, v
        return F.scaled_dot_product_attention(q, keys[:, :, :at + 1], values[:, :, :at + 1])

    for at, (q, k, v) in enumerate(tokens(12, 1, 2, 1, 4)):
        yield step(q, k, v, at), keys, values


@footgun("compiled", most=3)
def generation_by_a_counter(compiled):
    class State:
        at, (keys, values) = 0, cache(1, 2, 10, 4, value=float("inf"))

    @compiled
    def step(q, k, v):
        state = State
        state.keys[:, :, state.at:state.at + 1] = k
        state.values[:, :, state.at:state.at + 1] = v
        y = F.scaled_dot_product_attention(q, state.keys[:, :, :state.at + 1],
                                           state.values[:, :, :state.at + 1], scale=0.3)
        state.at += 1
        return y

    for q, k, v in tokens(8, 1, 2, 1, 4):
        yield step(q, k, v), State.keys, State.at


@footgun("compiled", most=5)
def a_cache_with_heads_last(compiled):
    keys, values = cache(2, 12, 3, 4)

    @compiled
    def step(q, k, v, at):
        keys[:, at:at + 1], values[:, at:at + 1] = k, v
        seen = [c[:, :at + 1].transpose(1, 2) for c in (keys, values)]
        return F.scaled_dot_product_attention(q.transpose(1, 2), *seen).permute(0, 2, 1, 3)

    for at, (q, k, v) in enumerate(tokens(10, 2, 1, 3, 4)):
        yield step(q, k, v, at), keys


@footgun("compiled", most=5)
def fewer_heads_of_keys(compiled):
    keys, values = cache(1, 2, 12, 4)

    @compiled
    def step(q, k, v, at):
        keys[:, :, at:at + 1], values[:, :, at:at + 1] = k, v
        return F.scaled_dot_product_attention(q, keys[:, :, :at + 1], values[:, :, :at + 1],
                                              enable_gqa=True)

    for at, (q, k, v) in enumerate(tokens(7, 1, 4, 1, 4)):
        yield step(q, k[:, :2], v[:, :2], at)


@footgun("compiled", most=5)
def gradients_through_a_part(compiled):
    keys, values = cache(1, 12, 4)
    net = torch.nn.Linear(4, 4)

    @compiled
    def step(q, at):
        seen = F.scaled_dot_product_attention(net(q), keys[:, :at + 1], values[:, :at + 1])
        return (seen * q).sum()

    keys.normal_()
    values.normal_()
    for at, (q, _, _) in enumerate(tokens(7, 1, 3, 4)):
        step(q, at + 2).backward()
        yield net.weight.grad


@footgun("correct")
def the_length_of_a_part_is_used(compiled):
    keys, values = cache(1, 2, 12, 4)
    keys.normal_()
    values.normal_()

    @compiled
    def step(q, at):
        k, v = keys[:, :, :at], values[:, :, :at]
        return F.scaled_dot_product_attention(q, k, v) * k.shape[2] + len(v[0, 0])

    for at, (q, _, _) in enumerate(tokens(9, 1, 2, 1, 4)):
        yield step(q, at + 1)


@footgun("correct")
def a_part_is_summed_as_well(compiled):
    keys, values = cache(1, 2, 12, 4)
    keys.normal_()
    values.normal_()

    @compiled
    def step(q, at):
        k, v = keys[:, :, :at], values[:, :, :at]
        return F.scaled_dot_product_attention(q, k, v) + v.sum(2, keepdim=True)

    for at, (q, _, _) in enumerate(tokens(9, 1, 2, 1, 4)):
        yield step(q, at + 1)


@footgun("correct")
def a_part_is_returned(compiled):
    keys, values = cache(1, 2, 12, 4)
    values.normal_()

    @compiled
    def step(q, at):
        k = keys[:, :, :at]
        return F.scaled_dot_product_attention(q, k, values[:, :, :at]), k, {"k": k.transpose(1, 2)}

    for at, (q, _, _) in enumerate(tokens(8, 1, 2, 1, 4)):
        y, k, more = step(q, at + 1)
        yield y, k, more["k"].shape
        k += 1  # of the cache itself
        yield keys


@footgun("correct")
def another_tensor_is_made_like_a_part(compiled):
    keys, values = cache(1, 2, 12, 4)
    values.normal_()

    @compiled
    def step(q, at):
        v = values[:, :, :at]
        return F.scaled_dot_product_attention(q, torch.ones_like(keys[:, :, :at]), v)

    for at, (q, _, _) in enumerate(tokens(8, 1, 2, 1, 4)):
        yield step(q, at + 1)


@footgun("correct")
def a_part_is_kept(compiled):
    keys, values = cache(1, 2, 12, 4)
    kept = []

    @compiled
    def step(q, at):
        k = keys[:, :, :at]
        kept.append(k)
        return F.scaled_dot_product_attention(q, k, values[:, :, :at])

    for at, (q, _, _) in enumerate(tokens(7, 1, 2, 1, 4)):
        yield step(q, at + 1), [k.shape for k in kept]


@footgun("correct")
def the_cache_is_written_after_it_was_cut(compiled):
    keys, values = cache(1, 2, 12, 4)

    @compiled
    def step(q, k, v, at):
        some, others = keys[:, :, :at + 1], values[:, :, :at + 1]
        keys[:, :, at:at + 1], values[:, :, at:at + 1] = k, v
        return F.scaled_dot_product_attention(q, some, others)

    for at, (q, k, v) in enumerate(tokens(9, 1, 2, 1, 4)):
        yield step(q, k, v, at), keys


@footgun("correct")
def a_part_is_written_to(compiled):
    keys, values = cache(1, 2, 12, 4)
    values.normal_()

    @compiled
    def step(q, at):
        k = keys[:, :, :at]
        k += 1
        return F.scaled_dot_product_attention(q, k * q, values[:, :, :at])

    for at, (q, _, _) in enumerate(tokens(8, 1, 2, 1, 4)):
        yield step(q, at + 1), keys


@footgun("correct")
def positions_at_both_ends(compiled):
    keys, values = cache(1, 2, 6, 4)
    keys.normal_()
    values.normal_()

    @compiled
    def step(q, at):
        return F.scaled_dot_product_attention(q, keys[:, :, :at], values[:, :, :at])

    for at, (q, _, _) in zip((3, 4, 5, 2, 1, 6, 7, 40, -1, -4, 2, 3),
                             tokens(12, 1, 2, 1, 4), strict=True):
        yield step(q, at)


@footgun("correct")
def keys_and_values_of_other_lengths(compiled):
    keys, values = cache(1, 12, 4)
    keys.normal_()
    values.normal_()

    @compiled
    def step(q, at, more):
        return F.scaled_dot_product_attention(q, keys[:, :at], values[:, :more])

    for at, (q, _, _) in enumerate(tokens(8, 1, 1, 4)):
        yield step(q, at + 1, at + 1)
    try:
        yield step(q, 3, 4)
    except RuntimeError:
        yield "refused"


@footgun("correct")
def attention_with_more_to_it(compiled):
    keys, values = cache(1, 12, 4)
    keys.normal_()
    values.normal_()

    @compiled
    def step(q, at, causal):
        k, v = keys[:, :at], values[:, :at]
        mask = torch.ones(2, at, dtype=torch.bool).tril()
        return (F.scaled_dot_product_attention(q, k, v, is_causal=causal)
                + F.scaled_dot_product_attention(q, k, v, mask))

    for at, (q, _, _) in enumerate(tokens(8, 1, 2, 4)):
        yield step(q, at + 1, at % 2 == 0)
