"""`autocast`: matrix products and convolutions in a reduced type, sensitive functions in float32.

The switch is read by the operator records (`ops.record.Leaf`), which know their own class.
"""

from __future__ import annotations

from typing import Any

from ..autograd.modes import decorate
from ..ops import autocast as rules
from ..tensor.dtype import bfloat16, dtype, float16

__all__ = ["autocast"]

_DEFAULTS = {"cpu": bfloat16, "cuda": float16, "mps": float16, "xpu": float16}


def is_autocast_available(device_type: str) -> bool:
    """Whether autocast works for a device type."""
    return device_type == "cpu"


class autocast:
    """Inside, matrix products and convolutions on `device_type` compute in `dtype`.

    >>> import lampion as torch
    >>> with torch.autocast("cpu", dtype=torch.bfloat16):
    ...     torch.mm(torch.ones(1, 2), torch.ones(2, 1)).dtype
    torch.bfloat16
    """

    def __init__(self, device_type: str, dtype: dtype | None = None, enabled: bool = True,
                 cache_enabled: bool | None = None) -> None:
        if not isinstance(device_type, str):
            raise ValueError("Expected `device_type` of type `str`, got: "
                             f"`{type(device_type).__name__}`")
        if device_type not in _DEFAULTS:
            raise RuntimeError(f"User specified an unsupported autocast device_type "
                               f"'{device_type}'")
        self.device, self.fast_dtype = device_type, dtype or _DEFAULTS[device_type]
        # A device that is not there has no operations to change.
        self._enabled = bool(enabled) and device_type == "cpu"

    def __enter__(self) -> autocast:
        self.previous = rules.switch.dtype
        if self.device == "cpu":
            rules.set_dtype(self.fast_dtype if self._enabled else None)
        return self

    def __exit__(self, *exc: object) -> None:
        rules.set_dtype(self.previous)

    def __call__(self, fn: Any) -> Any:
        return decorate(lambda: type(self)._again(self), fn)

    def _again(self) -> autocast:
        return autocast(self.device, self.fast_dtype, self._enabled)


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Whether autocast is on for a device type (default: cuda, as in PyTorch)."""
    return device_type == "cpu" and rules.switch.dtype is not None


def is_autocast_cpu_enabled() -> bool:
    """Whether autocast is on for the cpu."""
    return rules.switch.dtype is not None


def set_autocast_enabled(device_type: Any, enabled: bool = True) -> None:
    """Turns autocast on or off for a device type."""
    if device_type == "cpu":
        rules.set_dtype(bfloat16 if enabled else None)


def get_autocast_dtype(device_type: str) -> dtype:
    """The reduced type of a device."""
    return rules.switch.dtype or _DEFAULTS[device_type] if device_type == "cpu" else (
        _DEFAULTS[device_type])


def get_autocast_cpu_dtype() -> dtype:
    """The reduced type of the cpu."""
    return get_autocast_dtype("cpu")


def get_autocast_gpu_dtype() -> dtype:
    """The reduced type of CUDA devices."""
    return get_autocast_dtype("cuda")


def is_autocast_cache_enabled() -> bool:
    """Whether converted weights are kept: they are not."""
    return False


def clear_autocast_cache() -> None:
    """Nothing to clear: converted weights are not kept."""


def custom_fwd(fwd: Any = None, *, device_type: str = "cuda", cast_inputs: Any = None) -> Any:
    """Marks the forward of a custom function for autocast."""
    if fwd is None:
        return lambda fn: custom_fwd(fn, device_type=device_type, cast_inputs=cast_inputs)
    return fwd


def custom_bwd(bwd: Any = None, *, device_type: str = "cuda") -> Any:
    """Marks the backward of a custom function for autocast."""
    return (lambda fn: fn) if bwd is None else bwd
