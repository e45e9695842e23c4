"""Every layer beside PyTorch: seeded weights, names, repr, outputs and gradients."""

import numpy as np
import pytest

import lampion

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

IMAGE, SERIES, ROWS, VOLUME = (2, 4, 9, 8), (2, 4, 9), (5, 8), (1, 4, 5, 6, 5)
LAYERS = [
    ("Linear", (8, 3), ROWS),
    ("Linear", (8, 3, False), (2, 3, 8)),
    ("Conv1d", (4, 6, 3, 2, 1), SERIES),
    ("Conv2d", (4, 6, 3, 1, "same", 2, 2), IMAGE),
    ("Conv2d", (4, 4, (3, 2), 2, 1, 1, 4, True, "reflect"), IMAGE),
    ("Conv3d", (4, 2, 3), VOLUME),
    ("ConvTranspose1d", (4, 6, 3, 2, 1, 1), SERIES),
    ("ConvTranspose2d", (4, 6, 3, 2, 1, 1, 2), IMAGE),
    ("ConvTranspose3d", (4, 2, 2, 2), VOLUME),
    ("BatchNorm1d", (4,), SERIES),
    ("BatchNorm2d", (4,), IMAGE),
    ("BatchNorm3d", (4,), VOLUME),
    ("InstanceNorm2d", (4, 1e-5, 0.1, True, True), IMAGE),
    ("LayerNorm", ((9, 8),), IMAGE),
    ("GroupNorm", (2, 4), IMAGE),
    ("RMSNorm", (8,), IMAGE),
    ("LocalResponseNorm", (3,), IMAGE),
    ("MaxPool1d", (3, 2, 1), SERIES),
    ("MaxPool2d", (3, 2, 1, 1, False, True), IMAGE),
    ("MaxPool3d", (2,), VOLUME),
    ("AvgPool2d", (3, 2, 1, True, False), IMAGE),
    ("LPPool2d", (2, 3), IMAGE),
    ("AdaptiveAvgPool2d", ((3, 5),), IMAGE),
    ("AdaptiveMaxPool2d", ((3, 5),), IMAGE),
    ("Upsample", (None, 2.0, "bilinear"), IMAGE),
    ("Upsample", ((5, 11), None, "bicubic", True), IMAGE),
    ("PixelShuffle", (2,), IMAGE),
    ("Unfold", (3, 1, 1, 2), IMAGE),
    ("ReflectionPad2d", ((1, 2, 3, 0),), IMAGE),
    ("ReplicationPad3d", (1,), VOLUME),
    ("CircularPad1d", ((2, 1),), SERIES),
    ("ZeroPad2d", ((1, -1, 0, 2),), IMAGE),
    ("ReLU", (), ROWS),
    ("ReLU6", (), ROWS),
    ("LeakyReLU", (0.2,), ROWS),
    ("ELU", (0.7,), ROWS),
    ("SELU", (), ROWS),
    ("CELU", (0.7,), ROWS),
    ("GELU", (), ROWS),
    ("GELU", ("tanh",), ROWS),
    ("SiLU", (), ROWS),
    ("Mish", (), ROWS),
    ("Hardtanh", (-0.5, 0.5), ROWS),
    ("Hardswish", (), ROWS),
    ("Hardsigmoid", (), ROWS),
    ("Softplus", (2.0, 1.0), ROWS),
    ("Softshrink", (0.3,), ROWS),
    ("Hardshrink", (0.3,), ROWS),
    ("Tanhshrink", (), ROWS),
    ("Threshold", (0.1, 5.0), ROWS),
    ("PReLU", (4,), IMAGE),
    ("GLU", (1,), IMAGE),
    ("LogSigmoid", (), ROWS),
    ("Softsign", (), ROWS),
    ("Softmax", (1,), ROWS),
    ("LogSoftmax", (1,), ROWS),
    ("Flatten", (), IMAGE),
    ("RNN", (8, 5, 2, "relu"), (6, 3, 8)),
    ("LSTM", (8, 5, 2, True, True, 0.0, True), (3, 6, 8)),
    ("LSTM", (8, 5, 1, True, False, 0.0, False, 2), (6, 3, 8)),
    ("GRU", (8, 5, 2), (6, 3, 8)),
    ("LSTMCell", (8, 5), ROWS),
    ("GRUCell", (8, 5), ROWS),
    ("TransformerEncoderLayer", (8, 2, 16, 0.0), (6, 3, 8)),
]


def _leaves(value):
    items = value if isinstance(value, (tuple, list)) else [value]
    return [t for v in items for t in (_leaves(v) if isinstance(v, (tuple, list)) else [v])]


def _run(package, name, args, data):
    package.manual_seed(3)
    layer = getattr(package.nn, name)(*args)
    x = package.tensor(data.tolist(), requires_grad=True)
    outs = _leaves(layer(x))
    loss = sum((t * t).sum() for t in outs if t.is_floating_point())
    wanted = [x, *layer.parameters()]
    grads = package.autograd.grad(loss, wanted)
    return layer, outs, grads


def _same(ours, theirs, tolerance=2e-5):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        a, b = a.detach().numpy(), b.detach().numpy()
        scale = max(1.0, float(np.abs(b).max(initial=0)))
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=tolerance * scale)


@pytest.mark.parametrize("name,args,shape", LAYERS, ids=[f"{n}{a}" for n, a, _ in LAYERS])
@pytest.mark.filterwarnings("ignore:.*oneDNN.*")
def test_layer(name, args, shape):
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    ours, outs, grads = _run(lampion, name, args, data)
    theirs, expected, expected_grads = _run(torch, name, args, data)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert a.detach().numpy().tobytes() == b.detach().numpy().tobytes()
    _same(outs, expected)
    _same(grads, expected_grads)
    _same(list(ours.state_dict().values()), list(theirs.state_dict().values()))


LOSSES = [
    ("cross_entropy", "class", {"label_smoothing": 0.1}),
    ("cross_entropy", "class", {"ignore_index": 1, "weight": "classes"}),
    ("cross_entropy", "same", {}),
    ("multi_margin_loss", "class", {"p": 2}),
    ("mse_loss", "same", {}),
    ("l1_loss", "same", {}),
    ("smooth_l1_loss", "same", {"beta": 0.4}),
    ("huber_loss", "same", {"delta": 0.4}),
    ("binary_cross_entropy_with_logits", "unit", {"pos_weight": "classes"}),
    ("kl_div", "unit", {}),
    ("poisson_nll_loss", "unit", {"full": True}),
    ("soft_margin_loss", "sign", {}),
    ("hinge_embedding_loss", "sign", {}),
    ("multilabel_soft_margin_loss", "unit", {}),
]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("name,kind,extra", LOSSES)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_loss(name, kind, extra, reduction):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, 4)).astype(np.float32)
    weight = rng.uniform(0.5, 2, 4).astype(np.float32)
    targets = {
        "class": np.array([0, 1, 3, 1, 2, 0]),
        "same": rng.standard_normal((6, 4)).astype(np.float32),
        "unit": rng.uniform(0, 1, (6, 4)).astype(np.float32),
        "sign": np.where(rng.standard_normal((6, 4)) > 0, 1, -1).astype(np.float32),
    }

    def run(package):
        settings = {k: package.from_numpy(weight) if v == "classes" else v
                    for k, v in extra.items()}
        value = package.from_numpy(x.copy()).requires_grad_()
        target = package.from_numpy(targets[kind])
        function = getattr(package.nn.functional, name)
        loss = function(value, target, reduction=reduction, **settings)
        return [loss, *package.autograd.grad((loss * loss).sum(), value)]

    _same(run(lampion), run(torch))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [None, "bool", "float"])
def test_attention(causal, masked):
    if causal and masked:
        pytest.skip("a mask and is_causal exclude each other")
    rng = np.random.default_rng(2)
    q, k, v = (rng.standard_normal((2, 3, n, 4)).astype(np.float32) for n in (5, 6, 6))
    keep = rng.uniform(size=(5, 6)) > 0.3

    def run(package):
        tensors = [package.from_numpy(t.copy()).requires_grad_() for t in (q, k, v)]
        mask = {None: None, "bool": package.from_numpy(keep),
                "float": package.from_numpy(np.where(keep, 0, -2).astype(np.float32))}[masked]
        out = package.nn.functional.scaled_dot_product_attention(
            *tensors, attn_mask=mask, is_causal=causal)
        return [out, *package.autograd.grad((out * out).sum(), tensors)]

    _same(run(lampion), run(torch))


INITS = ["uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_",
         "kaiming_uniform_", "kaiming_normal_", "eye_"]


@pytest.mark.parametrize("name", INITS)
def test_init_draws_the_same_numbers(name):
    def run(package):
        package.manual_seed(0)
        return getattr(package.nn.init, name)(package.empty(7, 5))

    _same([run(lampion)], [run(torch)], 1e-6)


def test_packed_sequences_run_as_in_torch():
    rng = np.random.default_rng(4)
    parts = [rng.standard_normal((n, 3)).astype(np.float32) for n in (3, 5, 2)]

    def run(package):
        package.manual_seed(0)
        layer = package.nn.LSTM(3, 4, 2, bidirectional=True)
        rnn = package.nn.utils.rnn
        packed = rnn.pack_sequence([package.from_numpy(p) for p in parts], enforce_sorted=False)
        out, (h, c) = layer(packed)
        padded, lengths = rnn.pad_packed_sequence(out)
        (padded * padded).sum().backward()
        return [padded, lengths, h, c, *(p.grad for p in layer.parameters())]

    _same(run(lampion), run(torch))
