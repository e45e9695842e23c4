"""Switches for determinism."""

from __future__ import annotations

from ..debug.knobs import knobs

__all__ = ["use_deterministic_algorithms", "are_deterministic_algorithms_enabled",
           "is_deterministic_algorithms_warn_only_enabled", "set_float32_matmul_precision",
           "get_float32_matmul_precision"]

fill_uninitialized_memory = True
_PRECISIONS = ("highest", "high", "medium")


class _Choice:
    deterministic = False
    warn_only = False
    precision = "highest"


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Every run gives the same bits, the first one included.

    Operators are deterministic anyway, for any number of threads. But while a kernel is made for
    the first time on a machine its operator runs on NumPy, which may round differently: with
    `mode` the first call waits for its kernel instead.
    """
    _Choice.deterministic, _Choice.warn_only = bool(mode), warn_only
    if knobs.kernels != "off":
        knobs.kernels = "sync" if mode else "auto"


def are_deterministic_algorithms_enabled() -> bool:
    """What was last chosen."""
    return _Choice.deterministic


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """What was last chosen."""
    return _Choice.warn_only


def set_float32_matmul_precision(precision: str) -> None:
    """Accepted: float32 products are always computed in float32."""
    if precision not in _PRECISIONS:
        raise RuntimeError(f"float32_matmul_precision must be one of {', '.join(_PRECISIONS)}; "
                           f"received {precision!r}")
    _Choice.precision = precision


def get_float32_matmul_precision() -> str:
    """What was last chosen."""
    return _Choice.precision
