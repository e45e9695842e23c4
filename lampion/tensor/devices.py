"""Devices: where a tensor's storage lives. Today `cpu` and `meta` (shapes without data)."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["Device", "device", "get_default_device", "set_default_device"]

TYPES = ("cpu", "cuda", "ipu", "xpu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve", "fpga",
         "maia", "xla", "lazy", "vulkan", "mps", "meta", "hpu", "mtia", "privateuseone")
PRESENT = ("cpu", "meta")


class device:
    """A device type with an optional index, as in `torch.device("cpu")`.

    Any of PyTorch's device names can be written down; only `cpu` and `meta` can hold tensors.
    Used as a context manager it is the default device of factory functions.
    """

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: str | int | device, index: int | None = None) -> None:
        if isinstance(type, device):
            self.type, self.index = type.type, type.index
            return
        if isinstance(type, int):
            self.type, self.index = "cuda", type
            return
        if not isinstance(type, str):
            raise TypeError("device(): argument 'type' must be str, int or torch.device, not "
                            f"{type.__class__.__name__}")
        name, colon, number = type.partition(":")
        if name not in TYPES:
            raise RuntimeError(
                f"Expected one of {', '.join(TYPES)} device type at start of device string: {type}")
        if colon:
            if index is not None:
                raise RuntimeError("type (string) must not include an index because index was "
                                   f"passed explicitly: {type}")
            if not number.isdigit() or (len(number) > 1 and number[0] == "0"):
                raise RuntimeError(f"Invalid device string: '{type}'")
            index = int(number)
        self.type, self.index = name, index

    def __repr__(self) -> str:
        tail = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{tail})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, device) and self.type == other.type
                and self.index == other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __reduce__(self) -> tuple[Any, ...]:
        return device, ((self.type,) if self.index is None else (self.type, self.index))

    def __enter__(self) -> device:
        found = resolve(self)
        _default.previous = (*_default.previous, _default.device)
        _default.device = found
        return self

    def __exit__(self, *exc: object) -> None:
        *rest, _default.device = _default.previous
        _default.previous = tuple(rest)

    def __call__(self, fn: Any) -> Any:
        """As a decorator: the function runs with this default device."""
        from functools import wraps

        @wraps(fn)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with device(self):
                return fn(*args, **kwargs)
        return inside


Device = device | str | int | None
CPU = device("cpu")
META = device("meta")


class _DefaultDevice(threading.local):
    device: device = CPU
    previous: tuple[Any, ...] = ()  # of the contexts around


_default = _DefaultDevice()


def get_default_device() -> device:
    """The device on which factory functions place tensors."""
    return _default.device


def set_default_device(device: Device) -> None:
    """Sets the device on which factory functions place tensors (None: cpu)."""
    _default.device = CPU if device is None else resolve(device)


def resolve(where: Device) -> device:
    """The device meant by a `device=` argument; an error if it cannot hold tensors here."""
    if where is None:
        return _default.device
    found = where if isinstance(where, device) else device(where)
    if found.type not in PRESENT:
        raise absent(found)
    return CPU if found.type == "cpu" else META


def absent(found: device) -> Exception:
    """The error for a device that this machine or this version of lampion does not have."""
    if found.type == "cuda":
        return AssertionError("Torch not compiled with CUDA enabled: lampion runs on cpu (and "
                              f"meta); received device '{found}'. Use device='cpu'.")
    return RuntimeError(f"device '{found}' is not available: lampion runs on cpu (and meta). "
                        "Use device='cpu'.")
