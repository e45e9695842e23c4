"""Downloading weights: PyTorch's hub, without running code from elsewhere."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import IO, Any

from .serialization import load as _load
from .serialization.archive import replacing

__all__ = ["download_url_to_file", "get_dir", "load_state_dict_from_url", "set_dir"]

_HASH_IN_NAME = re.compile(r"-([a-f0-9]*)\.")
_CHUNK = 1 << 17
_dir: str | None = None


def _get_torch_home() -> str:
    """`$TORCH_HOME`, or ~/.cache/torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))


def get_dir() -> str:
    """Where downloads are kept: ``set_dir``'s, or ``$TORCH_HOME/hub``, or ~/.cache/torch/hub.

    >>> import lampion as torch
    >>> torch.hub.set_dir("weights")
    >>> torch.hub.get_dir()
    'weights'
    """
    if _dir is not None:
        return _dir
    return os.path.join(_get_torch_home(), "hub")


def set_dir(d: str | os.PathLike[str]) -> None:
    """Keep downloads in folder `d`."""
    global _dir
    _dir = os.path.expanduser(os.fspath(d))


def load_state_dict_from_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
    weights_only: bool = True,
) -> Any:
    """Download a checkpoint once, keep it, and ``torch.load`` it.

    Args:
        model_dir: where it is kept; ``get_dir()/checkpoints`` if not given.
        check_hash: the file's name ends in ``-<first digits of its SHA-256>`` before
            the extension; RuntimeError where the contents do not agree.
        file_name: its name there; the last part of `url` if not given.
    """
    from urllib.parse import urlparse

    folder = model_dir or os.path.join(get_dir(), "checkpoints")
    os.makedirs(folder, exist_ok=True)
    name = file_name or os.path.basename(urlparse(url).path)
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        sys.stderr.write(f'Downloading: "{url}" to {path}\n')
        found = _HASH_IN_NAME.search(name) if check_hash else None
        download_url_to_file(url, path, found.group(1) if found else None, progress)
    return _load(path, map_location, weights_only=weights_only)


def download_url_to_file(
    url: str, dst: str, hash_prefix: str | None = None, progress: bool = True
) -> None:
    """Write what is at `url` to the file `dst`, which appears only when it is complete.

    Raises RuntimeError where the SHA-256 does not begin with `hash_prefix`.
    """
    from hashlib import sha256
    from urllib.request import Request, urlopen

    digest = sha256()
    request = Request(url, headers={"User-Agent": "lampion.hub"})
    with urlopen(request) as source, replacing(os.path.abspath(os.path.expanduser(dst))) as target:
        length = source.headers.get("Content-Length")
        for chunk in _shown(source, int(length) if length else None, progress):
            target.write(chunk)
            digest.update(chunk)
        found = digest.hexdigest()
        if hash_prefix and not found.startswith(hash_prefix):
            raise RuntimeError(
                f'invalid hash value (expected "{hash_prefix}", got "{found}"): the download of '
                f"{url} is not what its name promises"
            )


def _shown(source: IO[bytes], total: int | None, progress: bool) -> Iterator[bytes]:
    """The source in chunks, with a progress bar where tqdm is installed."""
    bar = _bar(total) if progress else None
    try:
        while chunk := source.read(_CHUNK):
            yield chunk
            if bar is not None:
                bar.update(len(chunk))
    finally:
        if bar is not None:
            bar.close()


def _bar(total: int | None) -> Any:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024)


def __getattr__(name: str) -> Any:
    raise AttributeError(f"lampion has no torch.hub.{name} yet")
