"""Which functions autocast computes in the reduced type, which in float32."""

import pytest

import lampion

REDUCED = """
torch.mm(x, x.t()) | x @ x.t() | x @ x[0] | x[0] @ x[0] | torch.addmm(s, x, x.t())
torch.bmm(x[None], x.t()[None]) | torch.addbmm(s, x[None], x.t()[None])
F.linear(x, x, x[0, :4]) | torch.einsum('ij,kj->ik', x, x) | torch.linalg.vecdot(x, x)
F.prelu(x, torch.ones(1)) | F.conv1d(i[:, :, 0], torch.ones(2, 3, 2))
F.conv2d(i, torch.ones(2, 3, 3, 3)) | F.conv_transpose2d(i, torch.ones(3, 2, 3, 3))
F.scaled_dot_product_attention(x, x, x) | nn.LSTM(6, 3)(f)[0] | nn.RNN(6, 3)(f)[0]
nn.Linear(6, 2)(x) | nn.Conv2d(3, 2, 3)(i)
"""
KEPT = """
torch.exp(x) | x.softmax(1) | F.log_softmax(x, 1) | F.layer_norm(x, (6,)) | F.group_norm(x, 2)
x.sum() | x.mean(0) | x.pow(2) | F.gelu(x) | F.dropout(x) | x.cumsum(0) | F.max_pool2d(i, 2)
F.interpolate(i, scale_factor=2, mode='bilinear') | F.avg_pool2d(i, 2) | F.pad(i, (1, 1))
torch.logsumexp(x, 1) | F.cosine_similarity(x, x) | F.normalize(x) | x.norm()
"""
EXACT = """
F.cross_entropy(x, y) | F.nll_loss(x, y) | F.mse_loss(x, x * 0) | F.l1_loss(x, x * 0) | x.prod()
F.smooth_l1_loss(x, x * 0) | F.huber_loss(x, x * 0) | F.kl_div(x, x, reduction='sum')
torch.cdist(x, x) | F.binary_cross_entropy_with_logits(x, x.sigmoid())
F.binary_cross_entropy(x.sigmoid(), x.abs() * 0) | F.hinge_embedding_loss(x, x.sign())
F.cosine_embedding_loss(x, x, torch.ones(4)) | F.poisson_nll_loss(x, x.abs())
F.soft_margin_loss(x, x.sign()) | F.multi_margin_loss(x, y)
F.triplet_margin_loss(x, x + 1, x - 1) | F.margin_ranking_loss(x[0], x[0], x[0].sign())
F.avg_pool3d(i, 2) | F.max_pool3d(i, 2) | F.adaptive_avg_pool3d(i, 2)
F.adaptive_max_pool3d(i, 2) | F.pad(i, (1, 1, 1, 1), mode='reflect')
F.pad(i, (1, 1, 1, 1), mode='replicate')
F.grid_sample(i, torch.zeros(2, 4, 4, 2), align_corners=False) | torch.quantile(x, 0.5)
x.nanquantile(0.5) | s.trace() | torch.linalg.inv(s) | torch.inverse(s)
torch.linalg.solve(s, s) | torch.linalg.cholesky(s) | torch.linalg.svdvals(s)
torch.linalg.qr(s)[1] | torch.linalg.eigvalsh(s) | torch.fft.irfft(s) | torch.fft.fft(s).real
torch.polar(s, s).real | torch.linalg.lstsq(s, s)[0]
"""
CASES = [(case.strip(), kind)
         for kind, text in (("reduced", REDUCED), ("kept", KEPT), ("exact", EXACT))
         for case in text.replace("\n", "|").split("|") if case.strip()]


def run(torch, case, dtype):
    """The result of a case with arguments of a type, under autocast to bfloat16."""
    torch.manual_seed(0)
    x, i, s = torch.rand(4, 6) + 0.1, torch.rand(2, 3, 8, 8), torch.eye(4) * 3 + 0.1
    names = {"torch": torch, "F": torch.nn.functional, "nn": torch.nn, "f": x, "x": x.to(dtype),
             "i": i.to(dtype), "s": s.to(dtype), "y": torch.tensor([0, 5, 2, 3])}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return eval(case, names)


@pytest.mark.parametrize(("case", "kind"), CASES)
def test_types(case, kind):
    for given in (lampion.float32, lampion.bfloat16):
        expected = {"reduced": lampion.bfloat16, "kept": given, "exact": lampion.float32}[kind]
        assert run(lampion, case, given).dtype is expected


@pytest.mark.parametrize(("case", "kind"), CASES)
def test_types_and_values_are_those_of_torch(case, kind):
    torch = pytest.importorskip("torch")
    for name in ("float32", "bfloat16"):
        theirs = run(torch, case, getattr(torch, name))
        ours = run(lampion, case, getattr(lampion, name))
        assert str(theirs.dtype) == str(ours.dtype)
        bound = 2e-2 if kind == "reduced" or name == "bfloat16" else 1e-5
        if "dropout" not in case:
            lampion.testing.assert_close(ours.float(), lampion.tensor(theirs.float().tolist()),
                                         rtol=bound, atol=bound)


def test_float64_is_left_alone_and_autocast_is_back_after_an_error():
    x = lampion.ones(2, 3, dtype=lampion.float64)
    with lampion.autocast("cpu", dtype=lampion.bfloat16):
        assert lampion.nn.functional.l1_loss(x, x).dtype is lampion.float64
        with pytest.raises(RuntimeError):
            lampion.nn.functional.conv2d(x, lampion.ones(1, 2, 3, 4))
        assert lampion.is_autocast_enabled("cpu")
        assert (x.float() @ x.float().t()).dtype is lampion.bfloat16


def test_gradients_arrive_in_the_type_of_the_parameters():
    layer, x = lampion.nn.Conv1d(2, 3, 2), lampion.randn(4, 2, 5)
    with lampion.autocast("cpu", dtype=lampion.bfloat16):
        loss = lampion.nn.functional.cross_entropy(layer(x).mean(2), lampion.tensor([0, 1, 2, 0]))
    loss.backward()
    assert loss.dtype is lampion.float32 is layer.weight.grad.dtype
    assert layer.weight.grad.abs().sum() > 0
