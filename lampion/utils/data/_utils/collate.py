"""From a list of samples to a batch of tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from .... import ops
from ....tensor import Tensor, float64

__all__ = ["collate", "default_collate", "default_collate_fn_map", "default_convert"]

CollateMap = dict[type | tuple[type, ...], Callable[..., Any]]
_TEXT_KINDS = "SUO"  # NumPy's kinds without a tensor dtype: bytes, text, objects


def default_convert(data: Any) -> Any:
    """Turn the NumPy arrays inside `data` into tensors; leave everything else.

    >>> import lampion as torch, numpy as np
    >>> torch.utils.data.default_convert([np.ones(1), "a"])
    [tensor([1.], dtype=torch.float64), 'a']
    """
    if isinstance(data, Tensor):
        return data
    if isinstance(data, (np.ndarray, np.generic)):
        return data if data.dtype.kind in _TEXT_KINDS else ops.as_tensor(data)
    if isinstance(data, Mapping):
        return _same_mapping(data, {k: default_convert(v) for k, v in data.items()})
    if isinstance(data, tuple):
        return _same_tuple(data, [default_convert(v) for v in data])
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return _same_sequence(data, [default_convert(v) for v in data])
    return data


def default_collate(batch: Sequence[Any]) -> Any:
    """Stack samples into a batch: tensors, arrays and numbers become one tensor each.

    Strings stay a list; mappings, named tuples, tuples and lists are collated member
    by member. Raises TypeError for other types, RuntimeError for unequal shapes or
    lengths.

    >>> import lampion as torch
    >>> torch.utils.data.default_collate([(1, "a"), (2, "b")])
    [tensor([1, 2]), ('a', 'b')]
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)


def collate(batch: Sequence[Any], *, collate_fn_map: CollateMap | None = None) -> Any:
    """Like ``default_collate`` with an own function per element type.

    A function takes ``(batch, *, collate_fn_map=None)``. The exact type is looked up
    first, then the first entry that the element is an instance of.
    """
    element = batch[0]
    function = _function_for(element, collate_fn_map)
    if function is not None:
        return function(batch, collate_fn_map=collate_fn_map)
    if isinstance(element, Mapping):
        values = {k: collate([s[k] for s in batch], collate_fn_map=collate_fn_map) for k in element}
        return _same_mapping(element, values)
    if isinstance(element, Sequence) and not isinstance(element, (str, bytes)):
        return _collate_sequence(batch, element, collate_fn_map)
    raise TypeError(_unknown(type(element)))


def _function_for(element: Any, table: CollateMap | None) -> Callable[..., Any] | None:
    if not table:
        return None
    if type(element) in table:
        return table[type(element)]
    return next((f for kind, f in table.items() if isinstance(element, kind)), None)


def _collate_sequence(batch: Sequence[Any], element: Any, table: CollateMap | None) -> Any:
    if any(len(sample) != len(element) for sample in batch):
        sizes = sorted({len(sample) for sample in batch})
        raise RuntimeError(
            f"each element in list of batch should be of equal size, but their lengths are {sizes}"
        )
    columns = [collate(column, collate_fn_map=table) for column in zip(*batch)]
    if isinstance(element, tuple) and not hasattr(element, "_fields"):
        return columns  # PyTorch gives a list for plain tuples
    same = _same_tuple if isinstance(element, tuple) else _same_sequence
    return same(element, columns)


def _same_mapping(like: Any, values: dict[Any, Any]) -> Any:
    """`values` in a mapping of `like`'s type, a dict where that type cannot be made."""
    try:
        if isinstance(like, MutableMapping):
            clone = copy.copy(like)  # keeps attributes such as a default factory
            clone.update(values)
            return clone
        return type(like)(values)  # type: ignore[call-arg]
    except TypeError:
        return values


def _same_tuple(like: Any, values: list[Any]) -> Any:
    return type(like)(*values) if hasattr(like, "_fields") else values


def _same_sequence(like: Any, values: list[Any]) -> Any:
    """`values` in a sequence of `like`'s type, a list where that type cannot be made."""
    try:
        if isinstance(like, MutableSequence):
            clone = copy.copy(like)
            clone[:] = values
            return clone
        return values if isinstance(like, range) else type(like)(values)  # type: ignore[call-arg]
    except TypeError:
        return values


def _unknown(kind: object) -> str:
    return (
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
        f"found {kind}; return one of these from the dataset or pass your own collate_fn"
    )


def collate_tensor_fn(batch: Sequence[Tensor], *, collate_fn_map: Any = None) -> Tensor:
    """Stack tensors along a new first dimension."""
    return ops.stack(list(batch), 0)


def collate_numpy_array_fn(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Tensor:
    """Stack NumPy arrays into one tensor; TypeError for text and objects."""
    if batch[0].dtype.kind in _TEXT_KINDS:
        raise TypeError(_unknown(batch[0].dtype))
    return collate([ops.as_tensor(a) for a in batch], collate_fn_map=collate_fn_map)


def collate_numpy_scalar_fn(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Tensor:
    """NumPy scalars as a tensor of their dtype."""
    return ops.as_tensor(np.asarray(batch))


def collate_float_fn(batch: Sequence[float], *, collate_fn_map: Any = None) -> Tensor:
    """Python floats as a float64 tensor."""
    return ops.tensor(batch, dtype=float64)


def collate_int_fn(batch: Sequence[int], *, collate_fn_map: Any = None) -> Tensor:
    """Python integers or booleans as a tensor."""
    return ops.tensor(batch)


def collate_str_fn(batch: Sequence[Any], *, collate_fn_map: Any = None) -> Sequence[Any]:
    """Strings and bytes stay as they are."""
    return batch


default_collate_fn_map: CollateMap = {
    Tensor: collate_tensor_fn,
    np.ndarray: collate_numpy_array_fn,
    (np.bool_, np.number, np.object_): collate_numpy_scalar_fn,
    float: collate_float_fn,
    int: collate_int_fn,
    str: collate_str_fn,
    bytes: collate_str_fn,
}
