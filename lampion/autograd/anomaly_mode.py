"""Anomaly detection: backward failures name the forward line; NaN gradients are errors."""

from __future__ import annotations

from typing import Any

from .modes import WATCHED, state

__all__ = ["detect_anomaly", "set_detect_anomaly", "is_anomaly_enabled",
           "is_anomaly_check_nan_enabled"]


def is_anomaly_enabled() -> bool:
    """Whether anomaly detection is on in this thread."""
    return state.anomaly


def is_anomaly_check_nan_enabled() -> bool:
    """Whether anomaly detection also looks for NaN gradients."""
    return state.anomaly_check_nan


def _set(on: bool, check_nan: bool) -> None:
    WATCHED[0] += on - state.anomaly
    state.anomaly, state.anomaly_check_nan = on, check_nan


class set_detect_anomaly:
    """Turns anomaly detection on or off, at once; as a context manager, until its end."""

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self.previous = (state.anomaly, state.anomaly_check_nan)
        _set(bool(mode), check_nan)

    def __enter__(self) -> Any:
        return None

    def __exit__(self, *exc: object) -> None:
        _set(*self.previous)


class detect_anomaly:
    """Inside, every operation notes where it ran and backward checks for NaN."""

    def __init__(self, check_nan: bool = True) -> None:
        self.check_nan = check_nan

    def __enter__(self) -> None:
        self.previous = (state.anomaly, state.anomaly_check_nan)
        _set(True, self.check_nan)

    def __exit__(self, *exc: object) -> None:
        _set(*self.previous)
