"""Every optimizer against figures recorded from PyTorch 2.13, and the base class."""

import copy
import math
import pickle

import numpy as np
import pytest

import lampion as torch
from lampion import optim
from lampion.ops.optimize import _BLOCK, UPDATES

CASES = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9, "dampening": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"maximize": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"weight_decay": 0.1, "amsgrad": True}),
    ("Adam", {"maximize": True, "betas": (0.4, 0.9)}),
    ("AdamW", {"lr": 0.1}),
    ("Adamax", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"weight_decay": 0.1, "betas": (0.9, 0.99)}),
    ("Adagrad", {"weight_decay": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("Adadelta", {"weight_decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"momentum": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"centered": True, "momentum": 0.9}),
    ("Rprop", {}),
    ("ASGD", {"weight_decay": 0.1, "t0": 3}),
    ("Adafactor", {"weight_decay": 0.1}),
    ("Muon", {}),
]
START = [[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]]
STEPS = 8


def gradient(step):
    return [[math.sin(step + 3 * i + j) * (1 + i) for j in range(3)] for i in range(2)]


def run(name, options, dtype=torch.float64):
    p = torch.tensor(START, dtype=dtype, requires_grad=True)
    optimizer = getattr(optim, name)([p], **options)
    for step in range(STEPS):
        p.grad = torch.tensor(gradient(step), dtype=dtype)
        optimizer.step()
    return p, optimizer


RECORDED = {
    "SGD {}": [
        [0.49944626725, -1.001543091, 1.9988862615],
        [1.50067916008, 0.25296138051, -0.747479078645],
    ],
    "SGD {'momentum': 0.9, 'dampening': 0.1}": [
        [0.496262080153, -1.00523215508, 1.99808402894],
        [1.50632349583, 0.260665140875, -0.744798695417],
    ],
    "SGD {'momentum': 0.9, 'nesterov': True, 'weight_decay': 0.1}": [
        [0.494025151206, -1.00290101695, 1.9907237352],
        [1.50207246913, 0.261895568891, -0.740841803389],
    ],
    "SGD {'maximize': True, 'weight_decay': 0.1}": [
        [0.500153303703, -0.997657813282, 1.99951419274],
        [1.49812228019, 0.246840003362, -0.751920731881],
    ],
    "Adam {}": [
        [0.497574298888, -1.00317156123, 1.99850381712],
        [1.50122386518, 0.253317553392, -0.748192664835],
    ],
    "Adam {'weight_decay': 0.1, 'amsgrad': True}": [
        [0.496203812688, -1.00246373196, 1.99684964235],
        [1.50057428391, 0.253231761092, -0.747883518516],
    ],
    "Adam {'maximize': True, 'betas': (0.4, 0.9)}": [
        [0.500945792103, -0.998152923177, 2.00140546346],
        [1.50010859443, 0.248127035, -0.751517056438],
    ],
    "AdamW {'lr': 0.1}": [
        [0.254669989271, -1.30741042093, 1.83538712322],
        [1.6099990199, 0.577914509405, -0.564389264611],
    ],
    "Adamax {'weight_decay': 0.1}": [
        [0.493931549669, -1.00472853048, 1.99502424246],
        [1.50030986239, 0.255650106932, -0.746387218585],
    ],
    "NAdam {'weight_decay': 0.1}": [
        [0.495133813607, -1.00257884302, 1.99490933172],
        [1.49907933468, 0.253744202558, -0.746741066691],
    ],
    "NAdam {'weight_decay': 0.1, 'decoupled_weight_decay': True}": [
        [0.497017231857, -1.00218899059, 1.99433095855],
        [1.49763083237, 0.253488230488, -0.74604185066],
    ],
    "RAdam {'weight_decay': 0.1, 'betas': (0.9, 0.99)}": [
        [0.498035980567, -1.00193884173, 1.99793379259],
        [1.50206419193, 0.25488160178, -0.747043144136],
    ],
    "Adagrad {'weight_decay': 0.1, 'lr_decay': 0.1, 'initial_accumulator_value': 0.1}": [
        [0.488236641887, -1.00997165072, 1.98712392894],
        [1.50006983854, 0.263812903636, -0.740848676643],
    ],
    "Adadelta {'weight_decay': 0.1}": [
        [0.492527132414, -1.00358946066, 1.99148246374],
        [1.49742996559, 0.25565727654, -0.744433230924],
    ],
    "RMSprop {}": [
        [0.403457301267, -1.14380302927, 1.91804245031],
        [1.50073331938, 0.400896604231, -0.656490022374],
    ],
    "RMSprop {'momentum': 0.9, 'weight_decay': 0.1}": [
        [-0.640920780021, -1.51223061711, 1.46545139695],
        [1.48586003359, 0.948413463008, -0.388754287515],
    ],
    "RMSprop {'centered': True}": [
        [0.402218614624, -1.14516076523, 1.91748237621],
        [1.50127761295, 0.402381722392, -0.655801668501],
    ],
    "RMSprop {'centered': True, 'momentum': 0.9}": [
        [-0.0938293432584, -1.67960717416, 1.74201789437],
        [1.57166134933, 0.992852112207, -0.42867382882],
    ],
    "Rprop {}": [[0.47944, -1.02488, 1.98328], [1.4944, 0.27488, -0.73328]],
    "ASGD {'weight_decay': 0.1, 't0': 3}": [
        [0.490529454076, -1.00738862587, 1.97291321257],
        [1.4947198356, 0.277487696852, -0.718845687409],
    ],
    "Adafactor {'weight_decay': 0.1}": [
        [0.485464052204, -1.01318601815, 1.96935728018],
        [1.48441231797, 0.26822255457, -0.726948922715],
    ],
    "Muon {}": [
        [0.497733979003, -0.999913043404, 1.99950668664],
        [1.49874727515, 0.251174076063, -0.747865683002],
    ],
}


@pytest.mark.parametrize(("name", "options"), CASES)
def test_recorded_figures(name, options):
    p, _ = run(name, options)
    want = np.array(RECORDED[f"{name} {options}"])
    np.testing.assert_allclose(p.detach().numpy(), want, rtol=0.02 if name == "Muon" else 1e-9)


ELEMENTWISE = [case for case in CASES if case[0] not in ("Adafactor", "Muon")]


@pytest.mark.parametrize(("name", "options"), ELEMENTWISE)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_narrow_types_follow(name, options, dtype):
    wide, _ = run(name, options)
    p, _optimizer = run(name, options, getattr(torch, dtype))
    assert p.dtype is getattr(torch, dtype)
    tolerance = 1e-5 if dtype == "float32" else 0.08
    np.testing.assert_allclose(
        p.detach().double().numpy(), wide.detach().numpy(), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize(("name", "options"), ELEMENTWISE)
def test_layouts_and_blocks_do_not_matter(name, options):
    rng = np.random.default_rng(0)
    shape = (3, _BLOCK // 2 + 5)
    start, slopes = rng.standard_normal(shape), rng.standard_normal((3, *shape))
    ends = []
    for turned in (False, True):
        p = torch.tensor(start)
        p = p.t().contiguous().t() if turned else p
        p.requires_grad_(True)
        optimizer = getattr(optim, name)([p], **options)
        for slope in slopes:
            p.grad = torch.tensor(slope)
            optimizer.step()
        ends.append(p.detach().numpy())
    np.testing.assert_array_equal(*ends)
    part = torch.tensor(start[:1, :7], requires_grad=True)
    optimizer = getattr(optim, name)([part], **options)
    for slope in slopes:
        part.grad = torch.tensor(slope[:1, :7])
        optimizer.step()
    np.testing.assert_array_equal(part.detach().numpy(), ends[0][:1, :7])


@pytest.mark.parametrize(("name", "options"), ELEMENTWISE)
def test_complex_parameters_are_pairs_of_reals(name, options):
    rng = np.random.default_rng(1)
    start, slopes = rng.standard_normal((4, 2)), rng.standard_normal((3, 4, 2))
    real = torch.tensor(start, requires_grad=True)
    number = torch.tensor(start).contiguous()
    number = torch.view_as_complex(number).clone().requires_grad_(True)
    for p in (real, number):
        optimizer = getattr(optim, name)([p], **options)
        for slope in slopes:
            grad = torch.tensor(slope)
            p.grad = torch.view_as_complex(grad) if p.is_complex() else grad
            optimizer.step()
    got = torch.view_as_real(number.detach()).numpy()
    if name == "Adagrad":  # PyTorch fills both parts with the initial value
        np.testing.assert_allclose(got, real.detach().numpy())
    else:
        np.testing.assert_array_equal(got, real.detach().numpy())


@pytest.mark.parametrize(("name", "options"), ELEMENTWISE)
def test_differentiable_steps_agree(name, options):
    plain, _ = run(name, options)
    leaf = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    p = leaf.clone()
    optimizer = getattr(optim, name)([p], differentiable=True, **options)
    for step in range(STEPS):
        p.grad = torch.tensor(gradient(step), dtype=torch.float64)
        optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), plain.detach().numpy(), rtol=1e-12)
    p.sum().backward()
    assert leaf.grad is not None


def test_gradients_flow_into_the_learning_rate():
    lr = torch.tensor(0.1, requires_grad=True)
    p = torch.tensor([1.0, 2.0], requires_grad=True).clone()
    optimizer = optim.SGD([p], lr=lr, differentiable=True)
    p.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    p.sum().backward()
    assert lr.grad.item() == -7.0


@pytest.mark.parametrize(("name", "options"), CASES)
def test_state_survives_saving(name, options):
    whole, _ = run(name, options)
    half = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer = getattr(optim, name)([half], **options)
    for step in range(STEPS):
        if step == 4:
            state = copy.deepcopy(optimizer.state_dict())
            assert pickle.loads(pickle.dumps(optimizer)).param_groups[0]["lr"] is not None
            optimizer = getattr(optim, name)([half])
            optimizer.load_state_dict(state)
        half.grad = torch.tensor(gradient(step), dtype=torch.float64)
        optimizer.step()
    # Loading casts float32 scalars of the state to the parameter's dtype, as PyTorch does.
    np.testing.assert_allclose(half.detach().numpy(), whole.detach().numpy(), rtol=1e-7)


def test_records_name_their_state():
    assert UPDATES["adam"].state == ("exp_avg", "exp_avg_sq")
    assert all(update.name == name for name, update in UPDATES.items())


def weight(*shape):
    return torch.ones(*shape, requires_grad=True)


ERRORS = [
    (lambda: optim.SGD([]), ValueError, "optimizer got an empty parameter list"),
    (lambda: optim.SGD(weight(1)), TypeError, "iterable of Tensors or dicts"),
    (lambda: optim.SGD([1]), TypeError, "one of the params is int"),
    (lambda: optim.SGD([weight(1) * 2]), ValueError, "can't optimize a non-leaf Tensor"),
    (lambda: optim.SGD([{"params": {weight(1)}}]), TypeError, "ordered collections"),
    (lambda: optim.SGD([("a", weight(1)), weight(1)]), ValueError, "Some param names are missing"),
    (lambda: optim.SGD([weight(1)], lr=-1), ValueError, "Invalid learning rate: -1"),
    (lambda: optim.SGD([weight(1)], momentum=-1), ValueError, "Invalid momentum value"),
    (lambda: optim.SGD([weight(1)], nesterov=True), ValueError, "Nesterov momentum requires"),
    (lambda: optim.Adam([weight(1)], betas=(1, 0.9)), ValueError, "parameter at index 0: 1"),
    (lambda: optim.Adam([weight(1)], eps=-1), ValueError, "Invalid epsilon value"),
    (lambda: optim.Adam([weight(1)], lr=torch.ones(2)), ValueError, "Tensor lr must be 1-element"),
    (lambda: optim.Adam([weight(1)], lr=torch.ones(()), foreach=True), ValueError, "lr as a Tens"),
    (lambda: optim.Adam([weight(1)], betas=(torch.ones(()) * 0.9, 0.9)), ValueError, "both floats"),
    (lambda: optim.Adam([weight(1)], fused=True, foreach=True), RuntimeError, "`fused` and"),
    (lambda: optim.Adam([weight(1)], fused=True, differentiable=True), RuntimeError, "`fused` doe"),
    (lambda: optim.Adadelta([weight(1)], rho=2), ValueError, "Invalid rho value"),
    (lambda: optim.Adagrad([weight(1)], lr_decay=-1), ValueError, "Invalid lr_decay value"),
    (lambda: optim.NAdam([weight(1)], momentum_decay=-1), ValueError, "Invalid momentum_decay"),
    (lambda: optim.RMSprop([weight(1)], alpha=-1), ValueError, "Invalid alpha value"),
    (lambda: optim.Rprop([weight(1)], etas=(2, 0.5)), ValueError, "Invalid eta values: 2, 0.5"),
    (lambda: optim.Adafactor([weight(1)], d=0.5), ValueError, "Clipping threshold d"),
    (lambda: optim.Adafactor([weight(1)], beta2_decay=1), ValueError, "beta2_decay should be"),
    (lambda: optim.Muon([weight(1)]), ValueError, "Muon only supports 2D parameters"),
    (lambda: optim.Muon([weight(1, 1)], adjust_lr_fn="x"), ValueError, "x is not supported"),
    (lambda: optim.LBFGS([{"params": weight(1)}, {"params": weight(1)}]), ValueError, "per-param"),
]


@pytest.mark.parametrize(("make", "error", "text"), ERRORS)
def test_constructor_errors(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_sparse_adam_refuses_dense_gradients():
    p = weight(2)
    p.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match="does not support dense gradients"):
        optim.SparseAdam([p]).step()


def test_groups():
    a, b, c = weight(1), weight(2), weight(3)
    optimizer = optim.SGD([{"params": a}, {"params": [b], "lr": 0.5}], lr=0.1)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.5]
    optimizer.add_param_group({"params": c, "momentum": 0.9})
    assert [g["params"] for g in optimizer.state_dict()["param_groups"]] == [[0], [1], [2]]
    with pytest.raises(ValueError, match="some parameters appear in more than one"):
        optimizer.add_param_group({"params": [b]})
    with pytest.raises(TypeError, match="param_group must be a dict"):
        optimizer.add_param_group(3)
    with pytest.warns(UserWarning, match="duplicate parameters"):
        optim.SGD([a, a])


def test_names():
    optimizer = optim.SGD([("a", weight(1)), ("b", weight(1))])
    assert optimizer.param_groups[0]["param_names"] == ["a", "b"]
    with pytest.raises(ValueError, match="with/without names"):
        optimizer.add_param_group({"params": [weight(1)]})


def test_loading_checks_and_casts():
    p = weight(2)
    optimizer = optim.Adam([p])
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict({"state": {}, "param_groups": []})
    with pytest.raises(ValueError, match="doesn't match the size of optimizer's group"):
        optimizer.load_state_dict({"state": {}, "param_groups": [{"params": [0, 1]}]})
    saved = optimizer.state_dict()
    saved["state"] = {0: {"step": 3, "exp_avg": torch.ones(2, dtype=torch.float64),
                          "exp_avg_sq": torch.ones(2)}}  # fmt: skip
    saved["param_groups"][0].pop("amsgrad")
    optimizer.load_state_dict(saved)
    assert optimizer.state[p]["exp_avg"].dtype is torch.float32
    assert optimizer.state[p]["step"].item() == 3.0
    assert optimizer.param_groups[0]["amsgrad"] is False


def test_zero_grad():
    p = weight(2)
    optimizer = optim.SGD([p])
    p.grad = grad = torch.ones(2)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is grad and grad.tolist() == [0, 0]
    optimizer.zero_grad()
    assert p.grad is None


def test_hooks():
    calls = []
    p = weight(1)
    optimizer = optim.SGD([p], lr=1.0)
    p.grad = torch.ones(1)
    handles = [
        optimizer.register_step_pre_hook(lambda o, a, k: calls.append("pre")),
        optimizer.register_step_post_hook(lambda o, a, k: calls.append("post")),
        optim.optimizer.register_optimizer_step_pre_hook(lambda o, a, k: calls.append("all")),
        optim.optimizer.register_optimizer_step_post_hook(lambda o, a, k: calls.append("done")),
    ]
    optimizer.step()
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert calls == ["all", "pre", "post", "done"] and p.item() == -1
    optimizer.register_step_pre_hook(lambda o, a, k: 3)
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        optimizer.step()


def test_state_dict_hooks():
    optimizer = optim.SGD([weight(1)])
    optimizer.register_state_dict_post_hook(lambda o, s: {**s, "extra": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, s: {**s, "seen": True})
    seen = []
    optimizer.register_load_state_dict_post_hook(seen.append)
    optimizer.register_state_dict_pre_hook(seen.append)
    state = optimizer.state_dict()
    assert state["extra"] == 1
    optimizer.load_state_dict(state)
    assert seen == [optimizer, optimizer]


def test_closure_and_return_value():
    p = weight(1)
    optimizer = optim.Adam([p], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (p * 2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure).item() == 2.0
    assert optimizer.step() is None


def test_a_custom_optimizer():
    class Sign(optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})

        def step(self, closure=None):
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p -= group["lr"] * p.grad.sign()

    p = weight(2)
    optimizer = Sign([p], 0.5)
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    p.grad = torch.tensor([3.0, -1.0])
    optimizer.step()
    assert p.tolist() == [0.5, 1.5] and seen == [1]


def test_repr():
    assert repr(optim.SGD([weight(1)], lr=0.1)) == (
        "SGD (\nParameter Group 0\n    dampening: 0\n    differentiable: False\n"
        "    foreach: None\n    fused: None\n    lr: 0.1\n    maximize: False\n"
        "    momentum: 0\n    nesterov: False\n    weight_decay: 0\n)"
    )


def test_a_step_counts_as_a_write():
    p = weight(2)
    loss = (p * p).sum()
    p.grad = torch.ones(2)
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation[\s\S]*SGD\.step"):
        loss.backward()


@pytest.mark.parametrize("options", [
    {"lr": 0.5}, {"line_search_fn": "strong_wolfe"}, {"history_size": 2, "lr": 0.5},
])  # fmt: skip
def test_lbfgs_finds_the_minimum(options):
    p = torch.tensor([3.0, -2.0], dtype=torch.float64, requires_grad=True)
    optimizer = optim.LBFGS([p], max_iter=40, **options)

    def closure():
        optimizer.zero_grad()
        loss = (p[0] - 1) ** 2 + 10 * (p[1] - 2) ** 2 + (p[0] * p[1] - 2) ** 2
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    np.testing.assert_allclose(p.detach().numpy(), [1, 2], atol=1e-4)
