"""Learning rate schedules against figures recorded from PyTorch 2.13."""

import pytest

import lampion as torch
from lampion import optim
from lampion.optim import lr_scheduler as ls
from lampion.optim.swa_utils import SWALR

EPOCHS = 12


def sequence(o):
    parts = [ls.ConstantLR(o), ls.ExponentialLR(o, 0.9), ls.CosineAnnealingLR(o, 5)]
    return ls.SequentialLR(o, parts, [3, 6])


def chain(o):
    return ls.ChainedScheduler([ls.ConstantLR(o), ls.ExponentialLR(o, 0.9)])


SCHEDULES = {
    "lambda": lambda o: ls.LambdaLR(o, lambda e: 0.9**e),
    "multiplicative": lambda o: ls.MultiplicativeLR(o, lambda e: 0.9 + e / 100),
    "step": lambda o: ls.StepLR(o, 3),
    "multi step": lambda o: ls.MultiStepLR(o, [2, 2, 4]),
    "constant": lambda o: ls.ConstantLR(o),
    "linear": lambda o: ls.LinearLR(o),
    "exponential": lambda o: ls.ExponentialLR(o, 0.9),
    "polynomial": lambda o: ls.PolynomialLR(o, 6, 2.0),
    "cosine": lambda o: ls.CosineAnnealingLR(o, 5, 0.1),
    "restarts": lambda o: ls.CosineAnnealingWarmRestarts(o, 3, 2),
    "cyclic": lambda o: ls.CyclicLR(o, 0.1, 1.0, 3, 2, mode="triangular2"),
    "cyclic range": lambda o: ls.CyclicLR(o, 0.1, 1.0, 3, mode="exp_range", gamma=0.9),
    "one cycle": lambda o: ls.OneCycleLR(o, 1.0, 20),
    "three phases": lambda o: ls.OneCycleLR(o, 1.0, epochs=4, steps_per_epoch=5, three_phase=True,
                                            anneal_strategy="linear"),
    "sequential": sequence,
    "chained": chain,
    "swa": lambda o: SWALR(o, 0.05, 5),
}  # fmt: skip


def optimizer(lr=1.0, kind="SGD"):
    options = {"momentum": 0.9} if kind == "SGD" else {}
    return getattr(optim, kind)([torch.ones(1, requires_grad=True)], lr=lr, **options)


def rates(scheduler, o, epochs):
    out = []
    for _ in range(epochs):
        o.step()
        scheduler.step()
        out.append(float(scheduler.get_last_lr()[0]))
        assert float(o.param_groups[0]["lr"]) == out[-1]
    return out


RECORDED = {
    "lambda": [
        0.9, 0.81, 0.729, 0.6561, 0.59049, 0.531441,
        0.4782969, 0.43046721, 0.387420489, 0.3486784401, 0.31381059609, 0.282429536481,
    ],
    "multiplicative": [
        0.91, 0.8372, 0.778596, 0.73188024, 0.695286228, 0.66747477888,
        0.647450535514, 0.634501524803, 0.628156509555, 0.628156509555, 0.634438074651,
        0.647126836144,
    ],
    "step": [
        1.0, 1.0, 0.1, 0.1, 0.1, 0.01,
        0.01, 0.01, 0.001, 0.001, 0.001, 0.0001,
    ],
    "multi step": [
        1.0, 0.01, 0.01, 0.001, 0.001, 0.001,
        0.001, 0.001, 0.001, 0.001, 0.001, 0.001,
    ],
    "constant": [
        0.333333333333, 0.333333333333, 0.333333333333, 0.333333333333, 1.0, 1.0,
        1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
    ],
    "linear": [
        0.466666666667, 0.6, 0.733333333333, 0.866666666667, 1.0, 1.0,
        1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
    ],
    "exponential": [
        0.9, 0.81, 0.729, 0.6561, 0.59049, 0.531441,
        0.4782969, 0.43046721, 0.387420489, 0.3486784401, 0.31381059609, 0.282429536481,
    ],
    "polynomial": [
        0.694444444444, 0.444444444444, 0.25, 0.111111111111, 0.0277777777778, 0.0,
        0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    ],
    "cosine": [
        0.914057647469, 0.689057647469, 0.410942352531, 0.185942352531, 0.1, 0.185942352531,
        0.410942352531, 0.689057647469, 0.914057647469, 1.0, 0.914057647469, 0.689057647469,
    ],
    "restarts": [
        0.75, 0.25, 1.0, 0.933012701892, 0.75, 0.5,
        0.25, 0.0669872981078, 1.0, 0.982962913145, 0.933012701892, 0.853553390593,
    ],
    "cyclic": [
        0.4, 0.7, 1.0, 0.55, 0.1, 0.25,
        0.4, 0.55, 0.325, 0.1, 0.175, 0.25,
    ],
    "cyclic range": [
        0.37, 0.586, 0.7561, 0.49366, 0.277147, 0.1,
        0.24348907, 0.358280326, 0.4486784401, 0.30920706406, 0.194143178827, 0.1,
    ],
    "one cycle": [
        0.1316718427, 0.3716718427, 0.6683281573, 0.9083281573, 1.0, 0.987464006235,
        0.950484632013, 0.890916177571, 0.81174565395, 0.716943001791, 0.611262021936, 0.500002,
    ],
    "three phases": [
        0.232, 0.424, 0.616, 0.808, 1.0, 0.808,
        0.616, 0.424, 0.232, 0.04, 0.035556, 0.031112,
    ],
    "sequential": [
        0.333333333333, 0.333333333333, 1.0, 0.9, 0.81, 1.0,
        0.904508497187, 0.654508497187, 0.345491502813, 0.0954915028125, 0.0, 0.0954915028125,
    ],
    "chained": [
        0.3, 0.27, 0.243, 0.2187, 0.59049, 0.531441,
        0.4782969, 0.43046721, 0.387420489, 0.3486784401, 0.31381059609, 0.282429536481,
    ],
    "swa": [
        0.909283072328, 0.671783072328, 0.378216927672, 0.140716927672, 0.05, 0.05,
        0.05, 0.05, 0.05, 0.05, 0.05, 0.05,
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_recorded_rates(name):
    o = optimizer()
    assert rates(SCHEDULES[name](o), o, EPOCHS) == pytest.approx(RECORDED[name], rel=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_resuming(name):
    o = optimizer()
    scheduler = SCHEDULES[name](o)
    rates(scheduler, o, 5)
    again = optimizer()
    resumed = SCHEDULES[name](again)
    resumed.load_state_dict(scheduler.state_dict())
    again.load_state_dict(o.state_dict())
    assert rates(resumed, again, 7) == rates(scheduler, o, 7)
    assert "optimizer" not in scheduler.state_dict()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_rate_that_is_a_tensor_keeps_its_identity(name):
    lr = torch.tensor(1.0, dtype=torch.float64)
    o = optimizer(lr)
    got = rates(SCHEDULES[name](o), o, EPOCHS)
    assert got == pytest.approx(RECORDED[name], rel=1e-6)
    assert o.param_groups[0]["lr"] is lr


@pytest.mark.parametrize("name", ["cyclic", "one cycle"])
def test_momentum_moves_against_the_rate(name):
    o = optimizer(kind="Adam")
    scheduler = SCHEDULES[name](o)
    first = o.param_groups[0]["betas"][0]
    rates(scheduler, o, 2)
    assert o.param_groups[0]["betas"][0] < first


def test_plateau():
    o = optimizer()
    scheduler = ls.ReduceLROnPlateau(o, patience=1, cooldown=1, factor=0.5, min_lr=0.2)
    seen = []
    for metric in (1.0, 0.9, 0.9, 0.9, 0.9, 0.9, torch.tensor(0.9), 0.9, 0.9, 0.9):
        scheduler.step(metric)
        seen.append(o.param_groups[0]["lr"])
    assert seen == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2]
    again = ls.ReduceLROnPlateau(optimizer())
    again.load_state_dict(scheduler.state_dict())
    assert again.best == 0.9 and again.patience == 1
    best = ls.ReduceLROnPlateau(optimizer(), mode="max", threshold_mode="abs", patience=0)
    best.step(1.0)
    best.step(1.00001)
    assert best.get_last_lr() == [pytest.approx(0.1)]


def test_the_order_of_calls():
    o = optimizer()
    scheduler = ls.StepLR(o, 1)
    with pytest.warns(UserWarning, match=r"Detected call of `lr_scheduler.step\(\)` before"):
        scheduler.step()
    o = optimizer()
    scheduler = ls.StepLR(o, 1)
    o.step = lambda: None
    with pytest.warns(UserWarning, match=r"`optimizer.step\(\)` has been overridden"):
        scheduler.step()
    with pytest.warns(UserWarning, match="please use `get_last_lr"):
        scheduler.get_lr()
    with pytest.warns(UserWarning, match="The epoch parameter in"):
        scheduler.step(3)


def test_resuming_by_last_epoch():
    with pytest.raises(KeyError, match="param 'initial_lr' is not specified"):
        ls.StepLR(optimizer(), 1, last_epoch=2)
    o = optimizer()
    o.param_groups[0]["initial_lr"] = 1.0
    assert ls.LambdaLR(o, lambda e: 0.5**e, last_epoch=1).get_last_lr() == [0.25]


class Half:
    def __init__(self):
        self.calls = 0

    def __call__(self, epoch):
        self.calls += 1
        return 0.5


def test_functions_are_not_saved_but_objects_are():
    scheduler = ls.LambdaLR(optimizer(), Half())
    assert scheduler.state_dict()["lr_lambdas"] == [{"calls": 1}]
    assert ls.LambdaLR(optimizer(), lambda e: 1).state_dict()["lr_lambdas"] == [None]


def sgd():
    return optimizer()


@pytest.mark.parametrize(("make", "error", "text"), [
    (lambda: ls.StepLR(3, 1), TypeError, "int is not an Optimizer"),
    (lambda: ls.LambdaLR(sgd(), [Half(), Half()]), ValueError, "Expected 1 lr_lambdas, but got 2"),
    (lambda: ls.ConstantLR(sgd(), factor=2), ValueError, "between 0 and 1"),
    (lambda: ls.LinearLR(sgd(), start_factor=0), ValueError, "greater than 0"),
    (lambda: ls.LinearLR(sgd(), end_factor=2), ValueError, "between 0 and 1"),
    (lambda: ls.SequentialLR(sgd(), [], [1]), ValueError, "at least one scheduler"),
    (lambda: ls.SequentialLR(sgd(), [ls.ConstantLR(sgd())], []), ValueError, "same optimizer"),
    (lambda: ls.ChainedScheduler([]), ValueError, "at least one scheduler"),
    (lambda: ls.CosineAnnealingWarmRestarts(sgd(), 0), ValueError, "positive integer T_0"),
    (lambda: ls.CosineAnnealingWarmRestarts(sgd(), 1, 0), ValueError, "integer T_mult >= 1"),
    (lambda: ls.CosineAnnealingWarmRestarts(sgd(), 1).step(-1), ValueError, "non-negative epoch"),
    (lambda: ls.CyclicLR(sgd(), 0.1, 0.2, mode="x"), ValueError, "mode is invalid"),
    (lambda: ls.CyclicLR(optim.Adagrad([torch.ones(1)]), 0.1, 0.2), ValueError, "cycle_momentum"),
    (lambda: ls.CyclicLR(sgd(), [0.1, 0.2], 0.2), ValueError, "base_lr must have the same length"),
    (lambda: ls.OneCycleLR(sgd(), 1.0), ValueError, "You must define either total_steps"),
    (lambda: ls.OneCycleLR(sgd(), 1.0, 0), ValueError, "positive integer total_steps"),
    (lambda: ls.OneCycleLR(sgd(), 1.0, 9, pct_start=2), ValueError, "between 0 and 1 pct_start"),
    (lambda: ls.OneCycleLR(sgd(), 1.0, 9, anneal_strategy="x"), ValueError, "must be one of 'cos'"),
    (lambda: ls.ReduceLROnPlateau(sgd(), factor=1.0), ValueError, "Factor should be < 1.0"),
    (lambda: ls.ReduceLROnPlateau(sgd(), mode="x"), ValueError, "mode x is unknown!"),
    (lambda: ls.ReduceLROnPlateau(sgd(), min_lr=[1, 2]), ValueError, "expected 1 min_lrs, got 2"),
    (lambda: SWALR(sgd(), 0.1, -1), ValueError, "anneal_epochs must be equal or greater"),
])  # fmt: skip
def test_errors(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_one_cycle_ends():
    o = optimizer()
    scheduler = ls.OneCycleLR(o, 1.0, 2)
    rates(scheduler, o, 2)
    with pytest.raises(ValueError, match="Tried to step 3 times"):
        scheduler.step()
