"""`DistributedDataParallel`: not there yet, and says so."""

from __future__ import annotations

from typing import Any

from ..modules.module import Module

__all__ = ["DistributedDataParallel"]


class DistributedDataParallel(Module):
    """Data parallel training over processes; raises, as lampion has no process groups yet."""

    def __init__(self, module: Module, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        raise NotImplementedError(
            "lampion has no torch.nn.parallel.DistributedDataParallel yet: it needs process "
            "groups. In one process, call the module itself"
        )
