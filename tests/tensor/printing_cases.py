"""Arrays and print options whose PyTorch text is recorded in ``recorded_prints.json``."""

import ml_dtypes
import numpy as np

NAN, INF = float("nan"), float("inf")
SHAPES = [(), (0,), (0, 3), (2, 0, 3), (1,), (3,), (30,), (2, 3), (4, 1), (2, 3, 4), (1, 2, 2, 3),
          (7, 7), (40, 30), (1001,), (12, 9, 11), (3, 400), (400, 3), (2, 3, 2, 100)]  # fmt: skip
FLOATS = [
    [0.0, 0.0], [-0.0, 0.0], [1.0, 2.0, -3.0], [0.5, 1.25, -3.75], [1e-5, 1.0], [1e-4, 0.05],
    [9.99e-5, 0.01], [1e8, 1.0], [1e8, 2e8], [1.0001e8, 2e8], [123456789.0, 1.0], [1000.0, 1.0],
    [1001.0, 1.0], [1000.5, 1.0], [999.5, 1.5], [NAN, 1.0], [NAN, INF, -INF], [NAN, 1.5, INF],
    [INF, 1e10], [NAN, 0.0], [-0.0, 1.5], [-0.0, 1e-6], [1e-38, 1e-39], [0.99999, 0.5],
    [0.00005, 0.1], [3.0, NAN, -INF, 0.0], [1e5, -1e5, 12.0], [100000.5], [2.0**24, 2.0**23],
    [1e30, 1e-30], [0.1, 0.2, 0.3] * 9, [12345.678, 0.5], [-1.5, 1e3, 7.25], [INF] * 3,
    [6e4, 2.0], [1e4, 20.0], [0.0, 1e-3, 1.0], [-1.0, -2.0, -30.0],
]  # fmt: skip
INTEGERS = [[0, 1], [1, -1, 100], [2**31 - 1, -5], list(range(50)), [-7] * 40, [2**62, 1]]
COMPLEX = [
    [1 + 2j, 3 - 4j], [0.5 + 1j, -1.25 - 0.5j], [1e-5 + 1j, 1.0], [complex(NAN, 1), 1j],
    [complex(0.0, -0.0), 1 + 1j], [complex(INF, -INF), 2j], [1e9 + 1j, 0.5j], [1.5 + 2.5j] * 30,
]  # fmt: skip
OPTIONS = [
    {"precision": 2}, {"precision": 8}, {"precision": 0}, {"threshold": 5}, {"edgeitems": 1},
    {"threshold": 5, "edgeitems": 1}, {"threshold": 5, "edgeitems": 0}, {"linewidth": 40},
    {"linewidth": 10}, {"linewidth": 120}, {"sci_mode": True}, {"sci_mode": False},
    {"profile": "short"}, {"profile": "full"}, {"profile": "short", "precision": 6},
    {"sci_mode": True, "precision": 1}, {"threshold": 0},
]  # fmt: skip
MIXED = [0.0, -1.5, 1e-6, 3e7, NAN, 2.0]


def noise(shape, scale=1.0):
    return np.array(np.random.RandomState(len(shape)).standard_normal(shape) * scale)


def arrays():
    """Name and array of each case."""
    for shape in SHAPES:
        yield f"noise{shape}", noise(shape).astype(np.float32)
        yield f"whole{shape}", np.array(np.round(noise(shape, 50)), np.float32)
        yield f"tiny{shape}", noise(shape, 1e-6)
        yield f"int{shape}", noise(shape, 300).astype(np.int64)
        yield f"bool{shape}", np.array(noise(shape) > 0)
        yield f"complex{shape}", np.array(noise(shape) + 1j * noise(shape, 20), np.complex64)
    for values in FLOATS:
        with np.errstate(over="ignore"):
            for kind in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16):
                yield f"{np.dtype(kind)}{values}", np.array(values, np.float64).astype(kind)
        yield f"scalar{values}", np.array(values[0], np.float32)
    for values in INTEGERS:
        for kind in ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64"):
            yield f"{kind}{values[:5]}", np.array(values, np.int64).astype(kind)
    for values in COMPLEX:
        for kind in (np.complex64, np.complex128):
            yield f"{np.dtype(kind)}{values[:3]}", np.array(values, kind)
        yield f"complexscalar{values[:3]}", np.array(values[0], np.complex64)
    for kind in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2):
        yield f"{np.dtype(kind)}", np.array([0.5, 1.75, -3.0, 0.0], kind)
        yield f"{np.dtype(kind)}-table", np.arange(120, dtype=np.uint8).view(kind).reshape(4, 30)


def with_options():
    """Name, options and array of each case under print options."""
    for i, options in enumerate(OPTIONS):
        for shape in [(), (8,), (30,), (3, 9), (2, 9, 8), (0, 2)]:
            yield f"{i}-noise{shape}", options, noise(shape).astype(np.float32)
            yield f"{i}-int{shape}", options, noise(shape, 300).astype(np.int64)
        yield f"{i}-mixed", options, np.array(MIXED)
        yield f"{i}-whole", options, np.array([1.0, 2.0, -300.0])
        yield f"{i}-complex", options, np.array([1.5 + 2j, -3j, 1e-5 + 1e5j] * 4)
