"""The Gumbel distribution."""

from __future__ import annotations

import math
from typing import Any

from .. import ops
from ..tensor import Tensor, finfo
from . import constraints
from .transformed_distribution import TransformedDistribution
from .transforms import AffineTransform, ExpTransform
from .uniform import Uniform
from .utils import broadcast_all, euler_constant

__all__ = ["Gumbel"]


class Gumbel(TransformedDistribution):
    """The largest of many values, at `loc` with the scale `scale`."""

    arg_constraints: Any = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        info = finfo(self.loc.dtype)
        base = Uniform(ops.full_like(self.loc, info.tiny), ops.full_like(self.loc, 1 - info.eps),
                       validate_args=validate_args)
        super().__init__(base, _steps(self.loc, self.scale), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        new = super().expand(batch_shape, _instance=_instance)
        new.loc, new.scale = self.loc.expand(batch_shape), self.scale.expand(batch_shape)
        new.transforms = _steps(new.loc, new.scale)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        self._checked(value)
        y = (self.loc - value) / self.scale
        return (y - y.exp()) - self.scale.log()

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * euler_constant

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (math.pi / math.sqrt(6) * self.scale).pow(2)

    def entropy(self) -> Tensor:
        return self.scale.log() + (1 + euler_constant)


def _steps(loc: Tensor, scale: Tensor) -> list[Any]:
    """-log(-log(u)), moved and scaled."""
    return [ExpTransform().inv, AffineTransform(0, -ops.ones_like(scale)), ExpTransform().inv,
            AffineTransform(loc, -scale)]
