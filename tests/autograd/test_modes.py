"""Gradient modes as contexts and decorators; detach and requires_grad."""

from __future__ import annotations

import threading

import pytest

import lampion as torch


def leaf() -> torch.Tensor:
    return torch.ones(2, requires_grad=True)


def test_no_grad_records_nothing():
    x = leaf()
    with torch.no_grad():
        y = x * 2
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
    assert not y.requires_grad and y.grad_fn is None and y.is_leaf


def test_enable_grad_inside_no_grad():
    x = leaf()
    with torch.no_grad(), torch.enable_grad():
        assert (x * 2).requires_grad


def test_set_grad_enabled_as_call_and_context():
    x = leaf()
    try:
        torch.set_grad_enabled(False)
        assert not (x * 2).requires_grad
    finally:
        torch.set_grad_enabled(True)
    with torch.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_mode_is_restored_after_an_exception():
    with pytest.raises(KeyError), torch.no_grad():
        raise KeyError
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("decorator", [torch.no_grad, torch.no_grad(), torch.inference_mode,
                                       torch.inference_mode(), torch.inference_mode(True),
                                       torch.autograd.no_grad()])
def test_decorated_function(decorator):
    @decorator
    def run(x):
        """Doubles."""
        return x * 2, torch.is_grad_enabled()

    y, enabled = run(leaf())
    assert not y.requires_grad and not enabled
    assert torch.is_grad_enabled()
    assert run.__name__ == "run" and run.__doc__ == "Doubles."


def test_set_grad_enabled_as_decorator_does_not_act_at_once():
    @torch.set_grad_enabled(False)
    def run():
        return torch.is_grad_enabled()

    assert torch.is_grad_enabled()
    assert run() is False


def test_decorated_function_may_call_itself():
    @torch.no_grad()
    def down(n):
        if n:
            down(n - 1)
        return torch.is_grad_enabled()

    assert down(3) is False
    assert torch.is_grad_enabled()


def test_decorated_generator_holds_the_mode_only_inside():
    @torch.no_grad()
    def states():
        for _ in range(3):
            yield torch.is_grad_enabled()

    for inside in states():
        assert inside is False
        assert torch.is_grad_enabled()


def test_decorated_generator_takes_values_and_exceptions():
    log = []

    @torch.no_grad()
    def echo():
        got = yield "start"
        log.append((got, torch.is_grad_enabled()))
        try:
            yield "next"
        except ValueError:
            log.append(("caught", torch.is_grad_enabled()))
        yield "end"
        return "result"

    steps = echo()
    assert next(steps) == "start"
    assert steps.send(5) == "next"
    assert steps.throw(ValueError()) == "end"
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value == "result"
    assert log == [(5, False), ("caught", False)]


def test_decorated_generator_is_closed():
    log = []

    @torch.no_grad()
    def endless():
        try:
            while True:
                yield 1
        finally:
            log.append(torch.is_grad_enabled())

    steps = endless()
    next(steps)
    steps.close()
    assert log == [False]


def test_method_decorated():
    class Model:
        @torch.no_grad()
        def predict(self, x):
            return x * 2

    assert not Model().predict(leaf()).requires_grad


def test_inference_mode():
    x = leaf()
    with torch.inference_mode():
        y = x * 2
        assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()
        assert y.is_inference() and torch.ones(1).is_inference()
    assert not x.is_inference()
    assert not torch.is_inference_mode_enabled()
    with torch.inference_mode(False):
        assert (x * 2).requires_grad


def test_inference_tensor_cannot_be_saved_for_backward():
    with torch.inference_mode():
        y = torch.ones(2)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        leaf() * y


def test_inference_tensor_cannot_require_grad():
    with torch.inference_mode():
        y = torch.ones(2)
    with pytest.raises(RuntimeError, match="inference tensor"):
        y.requires_grad_()


def test_inference_tensor_cannot_be_written_outside():
    with torch.inference_mode():
        y = torch.ones(2)
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor outside"):
        y.add_(1)
    z = y.clone()
    z.fill_(5)
    assert z.tolist() == [5.0, 5.0]


def test_modes_belong_to_a_thread():
    seen = []
    with torch.no_grad():
        thread = threading.Thread(target=lambda: seen.append(torch.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_factories_may_require_grad_under_no_grad():
    with torch.no_grad():
        x = torch.ones(2, requires_grad=True)
    assert x.requires_grad and x.is_leaf


def test_detach_shares_memory_and_version():
    x = leaf()
    d = x.detach()
    assert not d.requires_grad
    with torch.no_grad():
        d.add_(1)
    assert x.tolist() == [2.0, 2.0]
    assert x._version == d._version == 1


def test_write_through_detach_is_noticed():
    x = leaf()
    y = x.exp()
    z = (y * 1).sum()
    y.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_write_through_data_is_not_noticed():
    x = leaf()
    y = x * x
    x.data.fill_(5)
    y.sum().backward()
    assert x.grad.tolist() == [10.0, 10.0]


def test_detach_in_place():
    x = leaf()
    y = x * 2
    assert y.detach_() is y
    assert y.is_leaf and not y.requires_grad
    assert not (y * 3).requires_grad


def test_detach_in_place_of_a_view():
    x = leaf()
    view = (x * 2)[0]
    with pytest.raises(RuntimeError, match="Can't detach views in-place"):
        view.detach_()


def test_detach_keeps_the_hooks_of_the_original():
    x = leaf()
    y = x * 2
    y.register_hook(lambda g: g * 10)
    y.detach()
    y.sum().backward()
    assert x.grad.tolist() == [20.0, 20.0]


def test_requires_grad_of_integers():
    for make in (lambda: torch.ones(2, dtype=torch.int64).requires_grad_(),
                 lambda: torch.tensor([1], requires_grad=True),
                 lambda: torch.zeros(2, dtype=torch.bool, requires_grad=True)):
        with pytest.raises(RuntimeError, match=r"[Oo]nly Tensors of floating point"):
            make()


def test_requires_grad_of_a_computed_tensor_cannot_be_cleared():
    y = leaf() * 2
    y.requires_grad_()
    with pytest.raises(RuntimeError, match="leaf variables"):
        y.requires_grad_(False)
    with pytest.raises(RuntimeError, match="leaf variables"):
        y.requires_grad = False


def test_requires_grad_switched_off_on_a_leaf():
    x = leaf()
    x.requires_grad = False
    assert not (x * 2).requires_grad
    x.requires_grad = True
    assert (x * 2).requires_grad


def test_requires_grad_is_inherited_from_any_input():
    a, b = torch.ones(2), leaf()
    assert (a + b).requires_grad and torch.stack([a, b]).requires_grad
    assert not (a + a).requires_grad


def test_no_grad_as_bare_instance_is_reusable():
    mode = torch.no_grad()
    for _ in range(2):
        with mode:
            assert not torch.is_grad_enabled()
        assert torch.is_grad_enabled()
