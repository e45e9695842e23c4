"""nn.utils: clipping, vectors, norms, parametrisation, pruning, packing, fusion."""

import numpy as np
import pytest

import lampion as torch
from lampion import nn
from lampion.nn.utils import parametrize, prune


def _layer():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def test_clip_grad_norm_and_value():
    p = nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([3.0, 4.0])
    assert nn.utils.clip_grad_norm_([p], 1.0).item() == 5
    assert p.grad.norm().item() == pytest.approx(1, rel=1e-5)
    nn.utils.clip_grad_value_(p, 0.7)
    assert p.grad.tolist() == pytest.approx([0.6, 0.7])
    p.grad = torch.tensor([float("nan"), 1.0])
    with pytest.raises(RuntimeError, match="is non-finite"):
        nn.utils.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)


def test_vector_round_trip():
    layer = _layer()
    vector = nn.utils.parameters_to_vector(layer.parameters())
    nn.utils.vector_to_parameters(vector * 2, layer.parameters())
    assert torch.equal(nn.utils.parameters_to_vector(layer.parameters()), vector * 2)


def test_weight_norm_keeps_the_function():
    layer, x = _layer(), torch.ones(2, 4)
    before = layer(x)
    nn.utils.parametrizations.weight_norm(layer)
    assert list(layer.state_dict()) == [
        "bias",
        "parametrizations.weight.original0",
        "parametrizations.weight.original1",
    ]
    assert torch.allclose(layer(x), before, atol=1e-6)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear and torch.allclose(layer(x), before, atol=1e-6)


def test_spectral_norm_bounds_the_largest_singular_value():
    layer = nn.utils.parametrizations.spectral_norm(_layer(), n_power_iterations=20)
    layer(torch.ones(1, 4))
    assert np.linalg.norm(layer.weight.detach().numpy(), 2) == pytest.approx(1, rel=1e-3)


@pytest.mark.skipif(not hasattr(torch.linalg, "qr"), reason="starts from a QR decomposition")
@pytest.mark.parametrize("kind", ["matrix_exp", "cayley"])
def test_orthogonal(kind):
    layer = nn.utils.parametrizations.orthogonal(_layer(), orthogonal_map=kind)
    assert torch.allclose(layer.weight @ layer.weight.t(), torch.eye(3), atol=1e-5)


def test_a_parametrisation_may_not_change_the_shape():
    class Cut(nn.Module):
        def forward(self, x):
            return x[:1]

    with pytest.raises(ValueError, match="may not change the shape"):
        parametrize.register_parametrization(_layer(), "weight", Cut())
    with pytest.raises(ValueError, match="does not have a parameter"):
        parametrize.register_parametrization(_layer(), "nothing", nn.Identity())


def test_cached_computes_once():
    class Counting(nn.Module):
        calls = 0

        def forward(self, x):
            Counting.calls += 1
            return x * 2

    layer = parametrize.register_parametrization(_layer(), "weight", Counting())
    Counting.calls = 0
    with parametrize.cached():
        assert layer.weight is layer.weight
    assert Counting.calls == 1


def test_pruning_and_making_it_permanent():
    layer = prune.l1_unstructured(_layer(), "weight", 5)
    assert int((layer.weight == 0).sum()) == 5
    prune.ln_structured(layer, "weight", 1, n=2, dim=0)
    assert int((layer.weight == 0).all(1).sum()) == 1 and prune.is_pruned(layer)
    zeros = layer.weight == 0
    prune.remove(layer, "weight")
    assert list(layer.state_dict()) == ["bias", "weight"] and not prune.is_pruned(layer)
    assert torch.equal(layer.weight == 0, zeros)


def test_packing_round_trip():
    rnn = nn.utils.rnn
    parts = [torch.arange(3.0), torch.arange(5.0), torch.arange(2.0)]
    packed = rnn.pack_sequence(parts, enforce_sorted=False)
    assert packed.batch_sizes.tolist() == [3, 3, 2, 1, 1]
    padded, lengths = rnn.pad_packed_sequence(packed, batch_first=True)
    assert lengths.tolist() == [3, 5, 2]
    assert padded.tolist()[2] == [0, 1, 0, 0, 0]
    found = rnn.unpack_sequence(packed)
    assert all(torch.equal(a, b) for a, b in zip(found, parts, strict=True))
    with pytest.raises(RuntimeError, match="must be sorted in decreasing order"):
        rnn.pack_sequence(parts)


def test_fusing_a_batch_norm():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
    norm(torch.randn(4, 3, 5, 5))
    conv.eval(), norm.eval()
    x = torch.randn(1, 2, 6, 6)
    fused = nn.utils.fuse_conv_bn_eval(conv, norm)
    assert torch.allclose(fused(x), norm(conv(x)), atol=1e-5)


def test_skip_init():
    layer = nn.utils.skip_init(nn.Linear, 3, 4)
    assert layer.weight.shape == (4, 3) and not layer.weight.is_meta
    with pytest.raises(RuntimeError, match="must support a 'device' arg"):
        nn.utils.skip_init(nn.Identity)


def test_functional_call_with_tied_weights():
    from lampion.nn.utils.stateless import functional_call

    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    out = functional_call(net, {"0.weight": torch.eye(2) * 3}, torch.ones(1, 2))
    assert out.tolist() == [[9.0, 9.0]]
    with pytest.raises(RuntimeError, match="unexpected"):
        functional_call(net, {"nope": torch.ones(1)}, torch.ones(1, 2), strict=True)
