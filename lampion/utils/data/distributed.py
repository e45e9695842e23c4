"""DistributedSampler: each process reads its own part of a dataset."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sized
from typing import Any

from ... import ops
from .sampler import Sampler

__all__ = ["DistributedSampler"]


class DistributedSampler(Sampler[int]):
    """Every `num_replicas`-th index from `rank` on, in an order all replicas share.

    The order depends on ``seed + epoch``: call ``set_epoch`` before each epoch. All
    replicas get equally many indices; some come twice unless `drop_last`.

    Args:
        num_replicas, rank: taken from the process group if not given.

    >>> import lampion as torch
    >>> part = torch.utils.data.DistributedSampler(range(6), num_replicas=2, rank=1, shuffle=False)
    >>> list(part)
    [1, 3, 5]
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        num_replicas = _world_size() if num_replicas is None else num_replicas
        rank = _world_rank() if rank is None else rank
        if rank >= num_replicas or rank < 0:
            raise ValueError(
                f"Invalid rank {rank}, rank should be in the interval [0, {num_replicas - 1}]"
            )
        self.dataset = dataset
        self.num_replicas = num_replicas
        self.rank = rank
        self.epoch = 0
        self.drop_last = drop_last
        self.num_samples = self._share(len(dataset))
        self.total_size = self.num_samples * num_replicas
        self.shuffle = shuffle
        self.seed = seed

    def _share(self, n: int) -> int:
        return n // self.num_replicas if self.drop_last else math.ceil(n / self.num_replicas)

    def __iter__(self) -> Iterator[int]:
        everyone = itertools.islice(itertools.cycle(self._order()), self.total_size)
        return itertools.islice(everyone, self.rank, None, self.num_replicas)

    def _order(self) -> list[int]:
        n = len(self.dataset)
        if not self.shuffle:
            return list(range(n))
        generator = ops.Generator()
        generator.manual_seed(self.seed + self.epoch)
        order: list[int] = ops.randperm(n, generator=generator).tolist()
        return order

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.epoch = epoch


def _process_group() -> Any:
    """The distributed package with a process group that has been initialized."""
    from importlib import import_module

    try:
        distributed = import_module("...distributed", __package__)
    except ModuleNotFoundError:
        raise RuntimeError("Requires distributed package to be available") from None
    if not distributed.is_available():
        raise RuntimeError("Requires distributed package to be available")
    return distributed


def _world_size() -> int:
    return int(_process_group().get_world_size())


def _world_rank() -> int:
    return int(_process_group().get_rank())
