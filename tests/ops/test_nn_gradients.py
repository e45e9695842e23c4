"""First and second derivatives of the neural network operators against finite differences."""

import pytest

import lampion as torch
from lampion import nn

F = nn.functional


def _x(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


W, B = _x(4, 2, 3, 3, seed=1), _x(4, seed=2)
SCALE = _x(4, seed=3)
TARGET = torch.tensor([1, 0, 2])

TWICE = {
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, 2), (_x(1, 4, 5, 4), W, B)),
    "conv_transpose2d": (
        lambda x, w: F.conv_transpose2d(x, w, None, 2, 1, 1),
        (_x(1, 4, 3, 3), W),
    ),
    "depthwise": (
        lambda x, w: F.conv2d(x, w, groups=4),
        (_x(1, 4, 4, 4), _x(4, 1, 3, 3, seed=4)),
    ),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), (_x(1, 2, 4, 4),)),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), (_x(1, 2, 4, 4),)),
    "layer_norm": (lambda x, w: F.layer_norm(x, (4,), w), (_x(3, 4), SCALE)),
    "group_norm": (lambda x, w: F.group_norm(x, 2, w), (_x(2, 4, 3), SCALE)),
    "batch_norm": (
        lambda x, w: F.batch_norm(x, None, None, w, training=True),
        (_x(3, 4, 2), SCALE),
    ),
    "rms_norm": (lambda x, w: F.rms_norm(x, (4,), w), (_x(3, 4), SCALE)),
    "gelu": (F.gelu, (_x(5),)),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), (_x(5),)),
    "silu": (F.silu, (_x(5),)),
    "mish": (F.mish, (_x(5),)),
    "softplus": (F.softplus, (_x(5),)),
    "elu": (F.elu, (_x(5),)),
    "hardswish": (F.hardswish, (_x(5),)),
    "glu": (F.glu, (_x(3, 4),)),
    "prelu": (F.prelu, (_x(3, 4), SCALE)),
    "cross_entropy": (lambda x: F.cross_entropy(x, TARGET), (_x(3, 4),)),
    "mse_loss": (F.mse_loss, (_x(3), _x(3, seed=5))),
    "huber_loss": (F.huber_loss, (_x(3), _x(3, seed=5))),
    "interpolate": (lambda x: F.interpolate(x, 7, mode="linear"), (_x(1, 2, 4),)),
    "pad": (lambda x: F.pad(x, (2, 1), mode="reflect"), (_x(1, 2, 4),)),
    "attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        (_x(3, 2), _x(3, 2, seed=6), _x(3, 2, seed=7)),
    ),
    "embedding": (lambda w: F.embedding(torch.tensor([0, 2, 0]), w), (_x(3, 2),)),
    "bce with logits": (
        lambda x: F.binary_cross_entropy_with_logits(x, torch.full((3,), 0.3).double()),
        (_x(3),),
    ),
}
ONCE = {
    "grid_sample": (F.grid_sample, (_x(1, 1, 3, 3), (_x(1, 2, 2, 2) * 0.3).detach())),
    "ctc_loss": (
        lambda x: F.ctc_loss(x.log_softmax(2), torch.tensor([[1, 2]]), [5], [2]),
        (_x(5, 1, 3),),
    ),
    "multi_margin_loss": (lambda x: F.multi_margin_loss(x, TARGET, p=2), (_x(3, 4),)),
}


@pytest.mark.parametrize("name", [*TWICE, *ONCE])
def test_first_derivative(name):
    function, inputs = {**TWICE, **ONCE}[name]
    assert torch.autograd.gradcheck(function, inputs)


@pytest.mark.parametrize("name", list(TWICE))
def test_second_derivative(name):
    function, inputs = TWICE[name]
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_can_be_differentiated_twice(kind):
    torch.manual_seed(0)
    layer = getattr(nn, kind)(2, 2, bidirectional=True).double()
    x = _x(3, 1, 2)
    assert torch.autograd.gradcheck(lambda t: layer(t)[0], (x,))
    assert torch.autograd.gradgradcheck(lambda t: layer(t)[0], (x,))


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("reverse", [False, True])
def test_outputs_of_recurrent_layers_may_be_changed_in_place(kind, reverse):
    """Backward reads none of the memory that is shown."""
    torch.manual_seed(0)
    layer = getattr(nn, kind)(2, 3, bidirectional=reverse).double()
    x, grads = _x(4, 2, 2), []
    for change in (False, True):
        out, state = layer(x)
        states = state if isinstance(state, tuple) else (state,)
        total = out.sum() + sum(s.pow(2).sum() for s in states)
        if change:
            out.mul_(0).add_(7)
        grads.append(torch.autograd.grad(total, x)[0])
    assert torch.equal(*grads)
