"""Launch streams: what is noted, what runs, with which memory."""

from __future__ import annotations

import numpy as np
import pytest

from lampion.codegen import service
from lampion.codegen.gemm import gemm
from lampion.codegen.ir import Kernel
from lampion.codegen.stream import Recording, RecordingError
from lampion.codegen.types import F32
from lampion.runtime import memory

pytestmark = pytest.mark.usefixtures("kernels_at_once")
SINGLE = np.dtype(np.float32)


@pytest.fixture(scope="module")
def scaled():
    """out = x * factor, on all threads."""
    k = Kernel("scaled")
    out, x, factor = k.array("out", F32), k.array("x", F32), k.number("factor", F32)
    with k.parallel(x.size(0)) as (i, _):
        k.store(out.ptr, i * out.stride(0), k.load(x.ptr, i * x.stride(0)) * factor)
    return service.make(k)


def times(kernel, x, factor):
    out = memory.empty(x.shape, x.dtype)
    kernel(out, x, factor)
    return out


def test_launches_are_noted_and_run_with_other_arrays(scaled):
    a = np.arange(5, dtype=np.float32)
    with Recording() as r:
        x = r.input(a)
        y = times(scaled, times(scaled, x, 2.0), r.number(3.0))
        stream = r.finish([y])
    assert [launch.name for launch in stream.launches] == ["scaled", "scaled"]
    assert stream([a], [3.0])[0].tolist() == [0, 6, 12, 18, 24]
    assert stream([a + 1], [0.5])[0].tolist() == [1, 2, 3, 4, 5]


def test_a_number_may_not_be_read(scaled):
    with Recording() as r:
        number = r.number(1.0)
        assert number != 1.0
        with pytest.raises(RecordingError):
            float(number)
        with pytest.raises(RecordingError):
            np.ones(2) * number
        with pytest.raises(TypeError):
            np.multiply(np.ones(2), number)


def test_values_that_do_not_exist_yet_may_not_be_read():
    with Recording() as r:
        x = r.input(np.ones((3, 2), np.float32))
        x.sum()
        with pytest.raises(RecordingError, match=r"input 0 float32\[3, 2\]"):
            r.finish([])


def test_views_and_layouts(scaled):
    a = np.arange(24, dtype=np.float32).reshape(4, 6)
    with Recording() as r:
        x = r.input(a[::-1, 1::2])
        y = times(scaled, x[1], 2.0)
        stream = r.finish([y[::-1], y, x[:2]])
    part = a[::-1, 1::2]
    turned, plain, given = stream([part])
    assert turned.tolist() == (part[1] * 2).tolist()[::-1]
    assert plain.tolist() == (part[1] * 2).tolist()
    assert given.tolist() == part[:2].tolist() and np.shares_memory(given, a)
    with pytest.raises(ValueError, match="input 0"):
        stream([a[:, 1::2]])


def test_products_run_as_without_recording():
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((70, 300), (300, 90)))
    expected = np.empty((70, 90), np.float32)
    assert gemm(expected, a, b)
    with Recording() as r:
        out = memory.empty((70, 90), SINGLE)
        assert gemm(out, r.input(a), r.input(b))
        stream = r.finish([out])
    assert stream([a, b])[0].tobytes() == expected.tobytes()
