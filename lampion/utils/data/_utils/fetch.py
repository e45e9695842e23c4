"""From an index (or a batch of them) to collated data, in whichever worker asks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from ....tensor import Tensor
from ..dataset import TensorDataset
from .collate import default_collate

__all__ = ["IterableFetcher", "MapFetcher"]


class MapFetcher:
    """Reads a dataset by index."""

    def __init__(self, dataset: Any, auto_collation: bool, collate_fn: Callable[..., Any]) -> None:
        self.dataset = dataset
        self.collate_fn = collate_fn
        many = getattr(dataset, "__getitems__", None)
        self._many = many if auto_collation and callable(many) else None
        if not auto_collation:
            self._samples: Callable[[Any], Any] = self._one
        elif self._many:
            self._samples = self._many
        else:
            self._samples = self._list
        self._columns = auto_collation and _stacks_to_rows(dataset, collate_fn)

    def fetch(self, index: Any) -> Any:
        """The collated data at `index`; a list of indices when batching."""
        if self._columns:
            return _take_rows(self.dataset.tensors, index)
        return self.collate_fn(self._samples(index))

    def _one(self, index: Any) -> Any:
        return self.dataset[index]

    def _list(self, indices: Sequence[Any]) -> list[Any]:
        dataset = self.dataset
        return [dataset[i] for i in indices]


def _stacks_to_rows(dataset: Any, collate_fn: Callable[..., Any]) -> bool:
    """Whether stacking the samples is the same as indexing the tensors once."""
    return (
        collate_fn is default_collate
        and type(dataset) is TensorDataset
        and all(type(t) is Tensor and not t.requires_grad for t in dataset.tensors)
    )


def _take_rows(tensors: Sequence[Tensor], indices: Sequence[int]) -> list[Tensor]:
    rows = list(indices)
    return [t[rows] for t in tensors]


class IterableFetcher:
    """Reads the next samples of a stream; `ended` once it has given its last."""

    def __init__(
        self, dataset: Any, auto_collation: bool, collate_fn: Callable[..., Any], drop_last: bool
    ) -> None:
        self._iterator = iter(dataset)
        self._auto_collation = auto_collation
        self.collate_fn = collate_fn
        self._drop_last = drop_last
        self.ended = False

    def fetch(self, index: Any) -> Any:
        """The next ``len(index)`` samples collated; StopIteration at the end."""
        return self.collate_fn(self._take(index))

    def skip(self, index: Any) -> None:
        """Read and drop what one `fetch` would use."""
        self._take(index)

    def _take(self, index: Any) -> Any:
        if not self._auto_collation:
            return next(self._iterator)
        if self.ended:
            raise StopIteration
        samples = list(itertools.islice(self._iterator, len(index)))
        self.ended = len(samples) < len(index)
        if not samples or (self.ended and self._drop_last):
            raise StopIteration
        return samples


Fetcher = MapFetcher | IterableFetcher
