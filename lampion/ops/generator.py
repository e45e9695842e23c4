"""Generators: seeds and states of the random streams that operators draw from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..autograd.modes import state
from ..runtime.random import Stream, default_stream
from ..tensor.devices import CPU
from ..tensor.devices import device as device_type
from ..tensor.tensor import Tensor, wrap
from .record import op, publish

__all__ = ["Generator", "default_generator", "fork_rng", "stream_of"]


class Generator:
    """A source of random numbers with a state of its own; PyTorch's CPU streams.

    >>> import lampion as torch
    >>> g = torch.Generator().manual_seed(0)
    >>> torch.rand(2, generator=g)
    tensor([0.4963, 0.7682])
    """

    __slots__ = ("__weakref__", "_stream")

    def __init__(self, device: Any = "cpu") -> None:
        where = device_type(device)
        if where.type != "cpu":
            raise RuntimeError(f"Cannot get a generator for {where}: lampion draws on the cpu; use "
                               "torch.Generator()")
        self._stream: Stream | None = None

    @property
    def stream(self) -> Stream:
        """The stream behind the generator, made when it is first needed."""
        if self is default_generator:
            return default_stream()  # a loader's thread has one of its own
        if self._stream is None:
            self._stream = Stream()
        return self._stream

    @property
    def device(self) -> device_type:
        """Where the numbers are drawn."""
        return CPU

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of `seed`, an integer in [-2**63, 2**64)."""
        if type(seed) is not int and not isinstance(seed, np.integer):
            raise RuntimeError(f"manual_seed expected a long, but got {type(seed).__name__}")
        self.stream.manual_seed(int(seed))
        return self

    def seed(self) -> int:
        """Seed from the operating system and return the seed."""
        return self.stream.seed()

    def initial_seed(self) -> int:
        """The seed last given."""
        return self.stream.initial_seed()

    def get_state(self) -> Tensor:
        """The state as a tensor of 5,056 bytes, in PyTorch's layout."""
        return wrap(self.stream.get_state())

    def set_state(self, new_state: Tensor) -> Generator:
        """Go on from a state that `get_state` gave, here or in PyTorch."""
        if not isinstance(new_state, Tensor):
            raise TypeError("expected a torch.ByteTensor, but got "
                            f"{type(new_state).__name__}: pass what get_state() returned")
        self.stream.set_state(new_state._a)
        return self

    def clone_state(self) -> Generator:
        """Another generator in the same state."""
        twin = Generator()
        twin._stream = self.stream.clone()
        return twin

    def get_offset(self) -> int:
        """Only generators of CUDA devices have an offset: RuntimeError."""
        raise RuntimeError("CPU Generator does not use offset")

    def set_offset(self, offset: int) -> None:
        """Only generators of CUDA devices have an offset: RuntimeError."""
        raise RuntimeError("CPU Generator does not use offset")

    def __reduce__(self) -> tuple[Any, ...]:
        return Generator, (self.device,), (self.initial_seed(), None, self.get_state())

    def __setstate__(self, state: tuple[int, None, Tensor]) -> None:
        self.set_state(state[2])


default_generator = Generator()
publish("torch", "Generator", Generator)
publish("torch", "default_generator", default_generator)


def stream_of(generator: Any, name: str) -> Stream:
    """The stream of a `generator=` argument; None means the default one."""
    if state.recorder is not None:
        raise state.recorder.draw(name)
    if generator is None:
        return default_generator.stream
    if not isinstance(generator, Generator):
        raise TypeError(f"{name}(): argument 'generator' must be torch.Generator, not "
                        f"{type(generator).__name__}")
    return generator.stream


@op("torch")
def manual_seed(seed: Any) -> Generator:
    """Seeds the default generator; integers in [-2**63, 2**64), negative ones wrap around.

    >>> import lampion as torch
    >>> _ = torch.manual_seed(0)
    >>> torch.randint(10, (3,))
    tensor([4, 9, 3])
    """
    return default_generator.manual_seed(int(seed))


@op("torch")
def seed() -> int:
    """Seeds the default generator from the operating system and returns the seed."""
    return default_generator.seed()


@op("torch")
def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


@op("torch")
def get_rng_state() -> Tensor:
    """The state of the default generator, a tensor of bytes."""
    return default_generator.get_state()


@op("torch")
def set_rng_state(new_state: Tensor) -> None:
    """Sets the state of the default generator."""
    default_generator.set_state(new_state)


@contextmanager
def fork_rng(devices: Iterable[Any] | None = None, enabled: bool = True, _caller: str = "fork_rng",
             _devices_kw: str = "devices", device_type: str | None = None) -> Iterator[None]:
    """Puts the default generator back, at the end of a `with` block, to where it was before.

    >>> import lampion as torch
    >>> _ = torch.manual_seed(0)
    >>> with torch.random.fork_rng():
    ...     _ = torch.rand(100)
    >>> torch.rand(1)
    tensor([0.4963])
    """
    if not enabled:
        yield
        return
    before = default_generator.get_state()
    try:
        yield
    finally:
        default_generator.set_state(before)
