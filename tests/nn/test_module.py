"""Module: registration, walking, state, hooks, conversion, errors that name the layer."""

import copy
import pickle
import warnings

import pytest

import lampion as torch
from lampion import nn


class Block(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.first = nn.Linear(width, width)
        self.act = nn.ReLU()
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.act(self.first(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.head(self.blocks(x)) * self.scale


def test_names_come_in_registration_order():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == [
        "scale",
        "blocks.0.first.weight",
        "blocks.0.first.bias",
        "blocks.1.first.weight",
        "blocks.1.first.bias",
        "head.weight",
        "head.bias",
    ]
    assert [n for n, _ in net.named_buffers()] == [
        "blocks.0.count",
        "blocks.0.scratch",
        "blocks.1.count",
        "blocks.1.scratch",
    ]
    assert [n for n, _ in net.named_children()] == ["blocks", "head"]
    assert "blocks.1.act" in dict(net.named_modules())


def test_shared_parameters_are_listed_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert len(list(net.parameters())) == 3
    assert len(list(net.named_parameters(remove_duplicate=False))) == 4


def test_state_dict_leaves_out_what_is_not_persistent():
    state = Net().state_dict()
    assert "blocks.0.count" in state and "blocks.0.scratch" not in state
    assert not state["head.weight"].requires_grad
    assert Net().state_dict(keep_vars=True)["head.weight"].requires_grad


def test_load_state_dict_copies_and_reports():
    a, b = Net(), Net()
    assert str(a.load_state_dict(b.state_dict())) == "<All keys matched successfully>"
    assert torch.equal(a.head.weight, b.head.weight) and a.head.weight is not b.head.weight
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "bias"'):
        nn.Linear(2, 2).load_state_dict({"weight": torch.ones(2, 2)})
    with pytest.raises(RuntimeError, match=r"size mismatch for weight: copying a param with shape"):
        nn.Linear(2, 2, bias=False).load_state_dict({"weight": torch.ones(3, 2)})
    found = nn.Linear(2, 2).load_state_dict({"weight": torch.ones(2, 2), "x": 1}, strict=False)
    assert found.missing_keys == ["bias"] and found.unexpected_keys == ["x"]


def test_load_state_dict_with_assign_takes_the_tensors():
    layer, weight = nn.Linear(2, 2, bias=False), torch.ones(2, 2, dtype=torch.float64)
    layer.load_state_dict({"weight": weight}, assign=True)
    assert layer.weight.dtype == torch.float64 and isinstance(layer.weight, nn.Parameter)


def test_state_dict_hooks():
    layer, seen = nn.Linear(1, 1), []
    layer.register_state_dict_pre_hook(lambda m, prefix, keep: seen.append(prefix))
    layer.register_state_dict_post_hook(lambda m, s, p, meta: s.update(extra=1))
    layer.register_load_state_dict_pre_hook(lambda m, s, *rest: s.pop("extra"))
    layer.register_load_state_dict_post_hook(lambda m, keys: seen.append(keys.missing_keys))
    layer.load_state_dict(layer.state_dict())
    assert seen == ["", []]


def test_extra_state_travels_with_the_state_dict():
    class Counting(nn.Module):
        n = 0

        def get_extra_state(self):
            return self.n

        def set_extra_state(self, state):
            self.n = state

    a, b = Counting(), Counting()
    a.n = 7
    b.load_state_dict(a.state_dict())
    assert b.n == 7


def test_attributes_follow_their_kind():
    net = Net()
    with pytest.raises(TypeError, match="cannot assign"):
        net.scale = torch.zeros(1)
    with pytest.raises(TypeError, match="as child module 'head'"):
        net.head = 3
    net.scale = None
    assert "scale" not in dict(net.named_parameters())
    del net.head
    with pytest.raises(AttributeError, match="'Net' object has no attribute 'head'"):
        net.head


def test_assignment_before_init_is_refused():
    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"cannot assign module before Module.__init__\("):
        Early()


@pytest.mark.parametrize("name,error", [("a.b", KeyError), ("", KeyError), (3, TypeError)])
def test_bad_names(name, error):
    with pytest.raises(error):
        nn.Module().register_buffer(name, None)
    with pytest.raises(error):
        nn.Module().register_parameter(name, None)
    with pytest.raises(error):
        nn.Module().add_module(name, None)


def test_buffers_can_be_assigned():
    m = nn.Module()
    m.b = nn.Buffer(torch.ones(2))
    m.c = nn.Buffer(torch.ones(2), persistent=False)
    assert list(m.state_dict()) == ["b"] and len(list(m.buffers())) == 2


def test_submodules_by_path():
    net = Net()
    assert net.get_submodule("blocks.1.first") is net.blocks[1].first
    assert net.get_parameter("blocks.0.first.bias") is net.blocks[0].first.bias
    assert net.get_buffer("blocks.0.count") is net.blocks[0].count
    with pytest.raises(AttributeError, match="Block has no attribute `second`"):
        net.get_submodule("blocks.1.second")
    with pytest.raises(AttributeError, match="`weight` is not an nn"):
        net.get_submodule("head.weight")
    net.set_submodule("blocks.1.act", nn.Tanh())
    assert isinstance(net.blocks[1].act, nn.Tanh)


def test_conversion_keeps_parameter_identity():
    net = Net()
    weight = net.head.weight
    net.double()
    assert net.head.weight is weight and weight.dtype == torch.float64
    assert net.blocks[0].count.dtype == torch.float64
    with pytest.raises(TypeError, match="only accepts floating point or complex dtypes"):
        net.to(torch.int64)


def test_train_eval_and_requires_grad():
    net = Net().eval()
    assert not any(m.training for m in net.modules())
    assert all(m.training for m in net.train().modules())
    with pytest.raises(ValueError, match="training mode is expected to be boolean"):
        net.train("yes")
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())


def test_zero_grad():
    net = Net()
    net(torch.ones(1, 3)).sum().backward()
    net.zero_grad(set_to_none=False)
    assert float(net.head.weight.grad.abs().sum()) == 0
    net.zero_grad()
    assert net.head.weight.grad is None


def test_apply_visits_children_first():
    seen = []
    Block().apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "ReLU", "Block"]


def test_copies():
    net = Net()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(torch.ones(2, 3)), net(torch.ones(2, 3)))
        assert twin.head.weight is not net.head.weight


def test_forward_hooks_in_order():
    layer, seen = nn.Linear(2, 2), []
    layer.register_forward_pre_hook(lambda m, a: seen.append("pre") or (a[0] * 2,))
    layer.register_forward_pre_hook(lambda m, a: seen.append("first"), prepend=True)
    layer.register_forward_hook(lambda m, a, k, out: out + len(k), with_kwargs=True)
    handle = layer.register_forward_hook(lambda m, a, out: seen.append(tuple(a[0].shape)))
    expected = layer.forward(torch.ones(1, 2) * 2)
    assert torch.equal(layer(torch.ones(1, 2)), expected)
    assert seen == ["first", "pre", (1, 2)]
    handle.remove()
    layer(torch.ones(1, 2))
    assert seen[3:] == ["first", "pre"]


def test_always_called_hook_runs_when_forward_fails():
    layer, seen = nn.Linear(2, 2), []
    layer.register_forward_hook(lambda m, a, out: seen.append(out), always_call=True)
    with pytest.raises(RuntimeError):
        layer(torch.ones(1, 3))
    assert seen == [None]


def test_pre_hook_with_kwargs_must_return_a_pair():
    layer = nn.Linear(2, 2)
    layer.register_forward_pre_hook(lambda m, a, k: 3, with_kwargs=True)
    with pytest.raises(RuntimeError, match="forward pre-hook must return None or a tuple"):
        layer(torch.ones(1, 2))


def test_backward_hooks_see_and_replace_gradients():
    layer, seen = nn.Linear(2, 1, bias=False), []
    layer.register_full_backward_pre_hook(lambda m, go: (go[0] * 3,))
    layer.register_full_backward_hook(lambda m, gi, go: seen.append(go[0]) or (gi[0] * 10,))
    x = torch.ones(1, 2, requires_grad=True)
    layer(x).sum().backward()
    assert seen[0].tolist() == [[3.0]]
    assert torch.allclose(x.grad, 30 * layer.weight)
    with pytest.raises(RuntimeError, match="Cannot use both regular backward hooks and full"):
        layer.register_backward_hook(lambda *a: None)


def test_global_forward_hook():
    from lampion.nn.modules.module import register_module_forward_hook

    seen = []
    with register_module_forward_hook(lambda m, a, out: seen.append(type(m).__name__)):
        Block()(torch.ones(1, 3))
    Block()(torch.ones(1, 3))
    assert seen == ["Linear", "ReLU", "Block"]


def test_missing_forward():
    with pytest.raises(NotImplementedError, match='missing the required "forward" function'):
        nn.Module()(1)


def test_unexpected_arguments():
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'x'"):
        nn.Module(x=1)


def test_an_error_names_the_layer_and_its_operands():
    model = Net()
    with pytest.raises(RuntimeError) as caught:
        model(torch.ones(4, 5))
    text = str(caught.value)
    assert text.startswith("mat1 and mat2 shapes cannot be multiplied (4x5 and 3x3)")
    assert "in model.blocks.0.first (Linear(in_features=3, out_features=3, bias=True))" in text
    assert "input: float32[4, 5]" in text


def test_the_users_own_errors_stay_as_they_are():
    class Picky(nn.Module):
        def forward(self, x):
            raise ValueError("no thanks")

    with pytest.raises(ValueError) as caught:
        nn.Sequential(Picky())(1)
    assert str(caught.value) == "no thanks"


def test_repr():
    assert repr(nn.Sequential(nn.Linear(1, 2), nn.ReLU())) == (
        "Sequential(\n"
        "  (0): Linear(in_features=1, out_features=2, bias=True)\n"
        "  (1): ReLU()\n"
        ")"
    )


def test_meta_modules_can_be_filled_later():
    layer = nn.Linear(3, 4, device="meta")
    assert layer.weight.is_meta
    with pytest.raises(NotImplementedError, match=r"to_empty\(\)"):
        layer.to("cpu")
    layer.to_empty(device="cpu")
    layer.reset_parameters()
    assert layer(torch.ones(1, 3)).shape == (1, 4)


def test_lazy_linear_takes_its_size_from_the_first_input():
    layer = nn.LazyLinear(4)
    with pytest.raises(RuntimeError, match="uninitialized parameter"):
        layer.weight.shape
    layer(torch.ones(2, 7))
    assert type(layer) is nn.Linear and layer.weight.shape == (4, 7)


def test_functional_call_leaves_the_module_alone():
    from lampion.nn.utils.stateless import functional_call

    layer = nn.Linear(2, 1, bias=False)
    before = layer.weight
    out = functional_call(layer, {"weight": torch.ones(1, 2)}, torch.ones(1, 2))
    assert out.tolist() == [[2.0]] and layer.weight is before


def test_positional_state_dict_arguments_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        assert list(nn.Linear(1, 1, bias=False).state_dict({}, "p.")) == ["p.weight"]
