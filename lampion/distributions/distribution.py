"""The base class of distributions."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..autograd import no_grad
from ..ops.abstract import all_true
from ..tensor import Size, Tensor
from . import constraints
from .utils import lazy_property

__all__ = ["Distribution"]


class Distribution:
    """A distribution with a batch of parameters; `event_shape` is the shape of one draw.

    A subclass lists its parameters in `arg_constraints`; with `validate_args` (the default) they
    and the values given to `log_prob` are checked.
    """

    has_rsample: Any = False
    has_enumerate_support: Any = False
    arg_constraints: Any = {}
    _held: tuple[str, ...] = ()  # tensors beside those of `arg_constraints` that expand
    _validate_args = __debug__

    def __init__(self, batch_shape: Any = (), event_shape: Any = (),
                 validate_args: bool | None = None) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if self._validate_args:
            self._check_parameters()

    def _check_parameters(self) -> None:
        for name, constraint in self.arg_constraints.items():
            derived = isinstance(getattr(type(self), name, None), lazy_property)
            if constraints.is_dependent(constraint) or (name not in vars(self) and derived):
                continue
            value = getattr(self, name)
            if not all_true(constraint.check(value)):
                raise ValueError(
                    f"Expected parameter {name} ({type(value).__name__} of shape "
                    f"{tuple(value.shape)}) of distribution {self!r} to satisfy the constraint "
                    f"{constraint!r}, but found invalid values:\n{_shown(value)}")

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions check their arguments when not told."""
        Distribution._validate_args = bool(value)

    # --- what it is -----------------------------------------------------------------------------

    @property
    def batch_shape(self) -> Size:
        """The shape of the parameters."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one draw."""
        return self._event_shape

    @property
    def support(self) -> Any:
        """The region of possible values."""
        raise NotImplementedError(self._lacks("support"))

    @property
    def mean(self) -> Tensor:
        """The mean."""
        raise NotImplementedError(self._lacks("mean"))

    @property
    def mode(self) -> Tensor:
        """The most probable value."""
        raise NotImplementedError(self._lacks("mode"))

    @property
    def variance(self) -> Tensor:
        """The variance."""
        raise NotImplementedError(self._lacks("variance"))

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return self.variance.sqrt()

    def _lacks(self, what: str) -> str:
        return f"{type(self).__name__} does not define {what}"

    # --- drawing --------------------------------------------------------------------------------

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, outside the recorded history; `sample_shape` stands before the batch."""
        with no_grad():
            return self.rsample(sample_shape)

    def sample_n(self, n: int) -> Tensor:
        """`n` draws."""
        return self.sample((n,))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws that gradients flow through to the parameters."""
        raise NotImplementedError(self._lacks("rsample: use sample()"))

    # --- probabilities --------------------------------------------------------------------------

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density or probability at `value`."""
        raise NotImplementedError(self._lacks("log_prob"))

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of a value up to `value`."""
        raise NotImplementedError(self._lacks("cdf"))

    def icdf(self, value: Tensor) -> Tensor:
        """The value up to which the probability is `value`."""
        raise NotImplementedError(self._lacks("icdf"))

    def entropy(self) -> Tensor:
        """The entropy, in nats."""
        raise NotImplementedError(self._lacks("entropy"))

    def perplexity(self) -> Tensor:
        """The exponential of the entropy."""
        return ops.exp(self.entropy())

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All possible values, along a first dimension."""
        raise NotImplementedError(self._lacks("enumerate_support"))

    # --- for subclasses -------------------------------------------------------------------------

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with its parameters broadcast to `batch_shape`."""
        new = type(self).__new__(type(self)) if _instance is None else _instance
        for name in (*self.arg_constraints, *self._held):
            if name in vars(self):
                value = getattr(self, name)
                event = value.shape[len(self._batch_shape):]
                setattr(new, name, value.expand((*batch_shape, *event)))
        new._validate_args = False
        Distribution.__init__(new, batch_shape, self._event_shape)
        new._validate_args = self._validate_args
        self._expanded(new, batch_shape)
        return new

    def _expanded(self, new: Any, batch_shape: Any) -> None:
        """What else an expanded distribution holds; subclasses fill it in."""

    def _extended_shape(self, sample_shape: Any = ()) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def _checked(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return value

    def _validate_sample(self, value: Any) -> None:
        if not self._validate_args:
            return
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor")
        wanted = (*self._batch_shape, *self._event_shape)
        for n, m in zip(reversed(value.shape), reversed(wanted)):
            if n != 1 and m != 1 and n != m:
                raise ValueError("Value is not broadcastable with batch_shape+event_shape: "
                                 f"{value.shape} vs {Size(wanted)}.")
        support = self.support
        if constraints.is_dependent(support):
            return
        if not all_true(support.check(value)):
            raise ValueError(
                f"Expected value argument ({type(value).__name__} of shape {tuple(value.shape)}) "
                f"to be within the support ({support!r}) of the distribution {self!r}, but found "
                f"invalid values:\n{_shown(value)}")

    def __repr__(self) -> str:
        names = [name for name in self.arg_constraints if name in vars(self)]
        values = ", ".join(f"{n}: {_brief(getattr(self, n))}" for n in names)
        return f"{type(self).__name__}({values})"


def _brief(value: Tensor) -> Any:
    return value.item() if value.numel() == 1 else value.shape


def _shown(value: Tensor) -> Any:
    return value.item() if value.dim() == 0 else value.detach()
