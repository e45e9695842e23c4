"""Sequences of different lengths: padding, packing, and back."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...tensor import Tensor, wrap

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]

_PackedBase = namedtuple(
    "_PackedBase", ["data", "batch_sizes", "sorted_indices", "unsorted_indices"]
)


class PackedSequence(_PackedBase):
    """Sequences without padding: `data` holds step after step, `batch_sizes[t]` rows of step t.

    Sequences are in decreasing order of length; `sorted_indices` and `unsorted_indices` lead
    there and back.
    """

    __slots__ = ()

    def __new__(
        cls,
        data: Tensor,
        batch_sizes: Any = None,
        sorted_indices: Any = None,
        unsorted_indices: Any = None,
    ) -> PackedSequence:
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        if batch_sizes is None:
            data, batch_sizes = data
        elif batch_sizes.device.type != "cpu":
            raise ValueError(
                "batch_sizes should always be on CPU. Instances of PackedSequence should never be "
                "created manually. They should be instantiated by functions like pack_sequence and "
                "pack_padded_sequences in nn.utils.rnn."
            )
        return super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """With `data` converted or moved."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        return type(self)(data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)

    def double(self) -> PackedSequence:
        """As float64."""
        return self.to(self.data.double().dtype)

    def float(self) -> PackedSequence:
        """As float32."""
        return self.to(self.data.float().dtype)

    def half(self) -> PackedSequence:
        """As float16."""
        return self.to(self.data.half().dtype)

    def long(self) -> PackedSequence:
        """As int64."""
        return self.to(self.data.long().dtype)

    def int(self) -> PackedSequence:
        """As int32."""
        return self.to(self.data.int().dtype)

    def short(self) -> PackedSequence:
        """As int16."""
        return self.to(self.data.short().dtype)

    def char(self) -> PackedSequence:
        """As int8."""
        return self.to(self.data.char().dtype)

    def byte(self) -> PackedSequence:
        """As uint8."""
        return self.to(self.data.byte().dtype)

    def cpu(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """On the CPU."""
        return self.to("cpu")

    def cuda(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """On a CUDA device; raises where there is none."""
        return self.to("cuda")

    def pin_memory(self) -> PackedSequence:
        """Itself: memory is not pinned here."""
        return self

    def is_pinned(self) -> bool:
        """Whether the memory is pinned."""
        return bool(self.data.is_pinned())

    @property
    def is_cuda(self) -> bool:
        """Whether the data are on a CUDA device."""
        return bool(self.data.is_cuda)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes another."""
    return None if permutation is None else permutation.argsort()


def _lengths(lengths: Any) -> np.ndarray[Any, Any]:
    values = lengths.tolist() if isinstance(lengths, Tensor) else list(lengths)
    return np.array(values, np.int64)


def _check_lengths(lengths: np.ndarray[Any, Any], steps: int, batch: int) -> None:
    if lengths.size == 0 or len(lengths) != batch:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(lengths)} "
            f"(batch_size={batch})"
        )
    if lengths.min() <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' "
            "that is <= 0"
        )
    if (np.diff(lengths) > 0).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You "
            "can pass `enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to "
            "sidestep this requirement if you do not need ONNX exportability."
        )
    if lengths[0] > steps:
        raise RuntimeError(f"Expected lengths of at most {steps} steps, but got {lengths[0]}")


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack padded sequences (T, N, *), or (N, T, *) with `batch_first`."""
    from ... import ops

    sizes = _lengths(lengths)
    order = None
    if not enforce_sorted:
        chosen = np.argsort(-sizes, kind="stable")
        sizes, order = sizes[chosen], wrap(chosen)
        input = input.index_select(0 if batch_first else 1, order)
    x = input.transpose(0, 1) if batch_first else input
    steps, batch = x.shape[:2]
    _check_lengths(sizes, steps, batch)
    batch_sizes = (sizes[None, :] > np.arange(sizes[0])[:, None]).sum(1)
    rows = np.concatenate([t * batch + np.arange(n) for t, n in enumerate(batch_sizes)])
    data = x.reshape(steps * batch, *x.shape[2:]).index_select(0, wrap(rows))
    return PackedSequence(data, ops.tensor(batch_sizes.tolist()), order)  # type: ignore[attr-defined]


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Padded sequences and their lengths from a PackedSequence."""
    sizes = np.array(sequence.batch_sizes.tolist(), np.int64)
    steps, batch = len(sizes), int(sizes[0])
    if total_length is not None:
        if total_length < steps:
            raise ValueError(
                "Expected total_length to be at least the length of the longest sequence in input, "
                f"but got total_length={total_length} and max sequence length being {steps}"
            )
        steps = total_length
    rows = np.concatenate([t * batch + np.arange(n) for t, n in enumerate(sizes)])
    tail = tuple(sequence.data.shape[1:])
    padded = sequence.data.new_full((steps * batch, *tail), padding_value)
    out = padded.index_copy(0, wrap(rows), sequence.data).view(steps, batch, *tail)
    lengths = wrap((np.arange(batch)[:, None] < sizes[None, :]).sum(1))
    if batch_first:
        out = out.transpose(0, 1)
    back = sequence.unsorted_indices
    if back is not None:
        out = out.index_select(0 if batch_first else 1, back)
        lengths = lengths[back]
    return out, lengths


def pad_sequence(
    sequences: Any,
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Sequences (L, *) of different lengths as one tensor (T, N, *).

    >>> import lampion as torch
    >>> torch.nn.utils.rnn.pad_sequence([torch.ones(2), torch.ones(1)], True).tolist()
    [[1.0, 1.0], [1.0, 0.0]]
    """
    if padding_side not in ("left", "right"):
        raise RuntimeError(
            f"padding_side should be either 'left' or 'right', but got {padding_side}"
        )
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            "pad_sequence: Expected iterable for input sequences, but got arg of type: "
            f"{type(sequences)}"
        )
    listed = list(sequences.unbind(0) if isinstance(sequences, Tensor) else sequences)
    if not listed:
        raise RuntimeError("received an empty list of sequences")
    tail = tuple(listed[0].shape[1:])
    for s in listed:
        if tuple(s.shape[1:]) != tail:
            raise RuntimeError(
                f"The size of tensor a ({tail}) must match the size of tensor b "
                f"({tuple(s.shape[1:])}) in pad_sequence(): sequences may differ in their first "
                "dimension only"
            )
    return _pad_rows(listed, tail, batch_first, padding_value, padding_side == "left")


def _pad_rows(
    sequences: list[Tensor], tail: tuple[int, ...], batch_first: bool, value: float, left: bool
) -> Tensor:
    from ... import ops

    longest = max(s.shape[0] for s in sequences)
    rows = []
    for s in sequences:
        missing = longest - s.shape[0]
        if missing:
            filler = s.new_full((missing, *tail), value)
            s = ops.cat((filler, s) if left else (s, filler))  # type: ignore[attr-defined]
        rows.append(s)
    return ops.stack(rows, 0 if batch_first else 1)  # type: ignore[attr-defined]


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False
) -> list[Tensor]:
    """The sequences of a padded tensor, cut to their lengths."""
    x = padded_sequences if batch_first else padded_sequences.transpose(0, 1)
    return [row[: int(n)] for row, n in zip(x, lengths, strict=True)]


def pack_sequence(sequences: Any, enforce_sorted: bool = True) -> PackedSequence:
    """Pack a list of sequences (L, *)."""
    lengths = [s.shape[0] for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The list of sequences of a PackedSequence."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
