"""Versions: of the PyTorch API that lampion follows, and of lampion itself."""

from __future__ import annotations

from typing import Any

__all__ = ["__version__", "lampion_version", "cuda", "hip", "debug", "git_version", "xpu",
           "TorchVersion"]

lampion_version = "0.1.0"


class TorchVersion(str):
    """A version string that compares as a version."""

    __slots__ = ()

    def _parts(self) -> tuple[int, ...]:
        return tuple(int(p) for p in str(self).partition("+")[0].split(".") if p.isdigit())

    def _other(self, other: Any) -> tuple[int, ...]:
        return other if isinstance(other, tuple) else TorchVersion(str(other))._parts()

    def __lt__(self, other: Any) -> bool:
        return self._parts() < self._other(other)

    def __le__(self, other: Any) -> bool:
        return self._parts() <= self._other(other)

    def __gt__(self, other: Any) -> bool:
        return self._parts() > self._other(other)

    def __ge__(self, other: Any) -> bool:
        return self._parts() >= self._other(other)

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) or self._parts() == self._other(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


__version__ = TorchVersion("2.13.0+lampion")
cuda = hip = xpu = None
debug = False
git_version = "unknown"
