"""`torch.distributed`: importable so that programs can ask; several processes are not supported
yet, and everything that needs them is an honest error."""

from __future__ import annotations

from typing import Any

__all__ = ["is_available", "is_initialized", "init_process_group", "get_rank", "get_world_size",
           "ReduceOp"]


def is_available() -> bool:
    """Whether several processes can work together: not yet."""
    return False


def is_initialized() -> bool:
    """Whether a process group exists: no."""
    return False


def is_torchelastic_launched() -> bool:
    """Whether an elastic launcher started this process: no."""
    return False


is_mpi_available = is_nccl_available = is_gloo_available = is_ucc_available = is_available


class ReduceOp:
    """How a reduction over processes combines values."""

    SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR, BXOR = (
        "SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR")


def _needs_group(name: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            f"torch.distributed.{name}() needs several processes, which lampion does not support "
            "yet. Guard the call with torch.distributed.is_available().")
    call.__name__ = call.__qualname__ = name
    call.__doc__ = "An error: there is no process group."
    return call


for _name in ("init_process_group", "destroy_process_group", "get_backend", "new_group",
              "all_reduce", "all_gather", "all_gather_object", "all_gather_into_tensor",
              "broadcast", "broadcast_object_list", "reduce", "reduce_scatter",
              "reduce_scatter_tensor", "scatter", "gather", "gather_object", "barrier",
              "monitored_barrier", "send", "recv", "isend", "irecv", "all_to_all",
              "all_to_all_single", "init_device_mesh"):
    globals()[_name] = _needs_group(_name)


def get_rank(group: Any = None) -> int:
    """The number of this process: an error without a group, as in PyTorch."""
    raise ValueError("Default process group has not been initialized, please make sure to call "
                     "init_process_group. lampion does not support several processes yet: guard "
                     "the call with torch.distributed.is_available().")


get_world_size = get_rank
