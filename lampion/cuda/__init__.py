"""`torch.cuda`: there is no CUDA device yet. Questions are answered, work is an honest error."""

from __future__ import annotations

from typing import Any

from . import amp

__all__ = ["amp", "is_available", "device_count", "manual_seed", "manual_seed_all"]


def is_available() -> bool:
    """Whether tensors can be placed on a CUDA device: no."""
    return False


def is_initialized() -> bool:
    """Whether CUDA has been started: no."""
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether the device computes in bfloat16: there is none."""
    return False


def device_count() -> int:
    """The number of CUDA devices: none."""
    return 0


def _absent(name: str) -> AssertionError:
    return AssertionError(f"Torch not compiled with CUDA enabled: torch.cuda.{name}() needs a CUDA "
                          "device, lampion has only cpu (and meta) yet. Guard the call with "
                          "torch.cuda.is_available().")


def _needs_device(name: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise _absent(name)
    call.__name__ = call.__qualname__ = name
    call.__doc__ = "An error: there is no CUDA device."
    return call


for _name in ("init", "synchronize", "current_device", "set_device", "get_device_properties",
              "get_device_capability", "get_device_name", "current_stream", "default_stream",
              "stream", "set_stream", "mem_get_info", "memory_summary", "memory_snapshot",
              "set_per_process_memory_fraction", "get_rng_state", "set_rng_state",
              "get_rng_state_all", "set_rng_state_all", "current_blas_handle", "graph",
              "make_graphed_callables", "ipc_collect", "utilization", "temperature"):
    globals()[_name] = _needs_device(_name)


def manual_seed(seed: int) -> None:
    """Accepted without a device, as in PyTorch: the seed would count once CUDA starts."""


manual_seed_all = manual_seed


def seed() -> None:
    """Nothing to seed without a device."""


seed_all = seed


def _nothing() -> None:
    """Nothing to do without a device."""


def _zero(device: Any = None) -> int:
    """No memory is in use on a device that is not there."""
    return 0


empty_cache = _nothing
memory_allocated = max_memory_allocated = memory_reserved = max_memory_reserved = _zero
memory_cached = max_memory_cached = _zero
reset_peak_memory_stats = reset_max_memory_allocated = _zero
reset_max_memory_cached = reset_accumulated_memory_stats = _zero


def memory_stats(device: Any = None) -> dict[str, Any]:
    """No statistics without a device."""
    return {}


def get_arch_list() -> list[str]:
    """Architectures that kernels were built for: none."""
    return []


class device:
    """Selects a device inside a `with` block; without CUDA only None and -1 are possible."""

    def __init__(self, device: Any) -> None:
        if device not in (None, -1):
            raise _absent("device")

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None


class _NeedsDevice:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise _absent(type(self).__name__)


class Stream(_NeedsDevice):
    """A queue of work on a device: an error, there is none."""


class Event(_NeedsDevice):
    """A mark in a queue of work: an error, there is none."""


class CUDAGraph(_NeedsDevice):
    """A recorded queue of work: an error, there is none."""


class OutOfMemoryError(RuntimeError):
    """A device has not enough memory."""
