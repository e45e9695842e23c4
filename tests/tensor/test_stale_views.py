"""Views that are made after their base got a history through a write."""

import pytest

import lampion as torch


@pytest.mark.parametrize("view", [
    lambda v: v.view(2), lambda v: v.reshape(1, 2), lambda v: v[0], lambda v: v[0:1],
    lambda v: v[None], lambda v: v.t(), lambda v: v.unsqueeze(0), lambda v: v[..., -1]])
def test_a_view_of_a_view_sees_what_was_written_to_the_base(view):
    base, factor = torch.ones(4), torch.full((4,), 3.0, requires_grad=True)
    part = base[:2]
    base.mul_(factor)
    found = view(part)
    assert found.requires_grad
    found.sum().backward()
    assert factor.grad[0].item() in (0.0, 1.0) and factor.grad.sum().item() == found.numel()
