"""Recurrent layers whose launches are noted once and run again without Python."""

import threading

import pytest

import lampion as torch
from lampion.debug.knobs import override
from lampion.ops.native import TEMPLATES
from lampion.ops.streamed import Streamed

nn = torch.nn
LAYERS = {
    "lstm": lambda: nn.LSTM(5, 7, 2, bidirectional=True),
    "projected": lambda: nn.LSTM(5, 7, proj_size=3),
    "gru": lambda: nn.GRU(5, 7, batch_first=True),
    "rnn": lambda: nn.RNN(5, 7, nonlinearity="relu", bias=False),
}


def streams(name):
    launcher = TEMPLATES[name]
    assert isinstance(launcher, Streamed)
    return [s for s in launcher.streams.values() if s.__class__ is not int]


def run(layer, x):
    out, state = layer(x)
    state = state[0] if isinstance(state, tuple) else state
    out = out.data if isinstance(out, nn.utils.rnn.PackedSequence) else out
    (out.sin().sum() + state.cos().sum()).backward()
    found = [out.detach().clone(), *(p.grad.clone() for p in layer.parameters())]
    layer.zero_grad()
    return found


@pytest.fixture(autouse=True)
def fresh():
    for launcher in TEMPLATES.values():
        if isinstance(launcher, Streamed):
            launcher.streams.clear()
    with override(kernels="sync"):
        yield


@pytest.mark.parametrize("name", LAYERS)
def test_streams_give_the_same_bits(name):
    torch.manual_seed(0)
    layer, x = LAYERS[name](), torch.randn(6, 3, 5)
    first, *others = [run(layer, x) for _ in range(14)]
    assert streams(f"{name if name in ('gru', 'rnn') else 'lstm'}_layer")
    assert all(torch.equal(a, b) for found in others for a, b in zip(found, first, strict=True))


@pytest.mark.parametrize("kernels", ["sync", "off"])
@pytest.mark.parametrize("name", LAYERS)
def test_data_that_asks_for_no_gradient_costs_none_and_changes_none(name, kernels):
    torch.manual_seed(0)
    layer, x = LAYERS[name](), torch.randn(6, 3, 5)
    with override(kernels=kernels):
        expected = run(layer, x.requires_grad_())
        found = run(layer, x.detach())
    assert x.grad.shape == x.shape
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_packed_sequences_and_new_values():
    torch.manual_seed(0)
    layer, x = nn.LSTM(5, 7), torch.randn(6, 3, 5)
    for i in range(14):
        packed = nn.utils.rnn.pack_padded_sequence(x * i, [6, 4, 1])
        found = run(layer, packed)
    assert streams("lstm_layer") and streams("lstm_backward")
    with override(kernels="off"):
        expected = run(layer, packed)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_results_are_new_memory_and_threads_take_turns():
    torch.manual_seed(0)
    layer, x = nn.GRU(5, 7), torch.randn(6, 3, 5)
    with torch.no_grad():
        expected = {k: layer(x * k)[0] for k in range(1, 12)}
        found = {}

        def work(k):
            with torch.no_grad():
                found[k] = layer(x * k)[0]
        threads = [threading.Thread(target=work, args=(k,)) for k in expected]
        [t.start() for t in threads], [t.join() for t in threads]
    assert streams("gru_layer")
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_other_numbers_of_threads_have_streams_of_their_own():
    torch.manual_seed(0)
    layer, x = nn.LSTM(5, 7), torch.randn(6, 3, 5)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3, 1):
            torch.set_num_threads(threads)
            found += [run(layer, x) for _ in range(12)]
    finally:
        torch.set_num_threads(before)
    assert len(streams("lstm_layer")) == 2
    assert all(torch.equal(a, b) for f in found for a, b in zip(f, found[0], strict=True))


def test_bad_arguments_are_told_as_ever():
    layer = nn.LSTM(5, 7)
    [run(layer, torch.randn(6, 3, 5)) for _ in range(12)]
    with pytest.raises(RuntimeError, match=r"input.size\(-1\) must be equal to input_size"):
        layer(torch.randn(6, 3, 4))
