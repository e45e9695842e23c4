"""`DataParallel`: on the CPU there is one device, so it passes its input through."""

from __future__ import annotations

from typing import Any

from ..modules.module import Module

__all__ = ["DataParallel", "data_parallel"]


class DataParallel(Module):
    """Calls `module`; its parameters are found under the prefix `module.`.

    Only the CPU is there to spread over: `device_ids` must be empty or None.
    """

    def __init__(self, module: Module, device_ids: Any = None, output_device: Any = None,
                 dim: int = 0) -> None:
        super().__init__()
        _refuse_devices(device_ids)
        self.module = module
        self.device_ids: list[Any] = []
        self.dim = dim

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The module's output."""
        return self.module(*inputs, **kwargs)


def _refuse_devices(device_ids: Any) -> None:
    if device_ids:
        raise RuntimeError(
            f"DataParallel: device_ids={list(device_ids)} given, but no accelerator is available; "
            "expected None or an empty list"
        )


def data_parallel(module: Module, inputs: Any, device_ids: Any = None, output_device: Any = None,
                  dim: int = 0, module_kwargs: dict[str, Any] | None = None) -> Any:
    """Call `module` on `inputs` (a tuple, or one value)."""
    _refuse_devices(device_ids)
    args = inputs if isinstance(inputs, tuple) else (inputs,) if inputs is not None else ()
    return module(*args, **(module_kwargs or {}))
