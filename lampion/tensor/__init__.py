"""The tensor room: structure, memory, types, devices, printing. Operators live in `ops`."""

from .abstract import AbstractArray, AbstractOperand, contiguous_strides
from .devices import Device, device, get_default_device, set_default_device
from .dtype import (
    DTYPES,
    bfloat16,
    bool_,
    complex64,
    complex128,
    dtype,
    finfo,
    float8_e4m3fn,
    float8_e5m2,
    float16,
    float32,
    float64,
    from_numpy_dtype,
    get_default_dtype,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    set_default_dtype,
    uint8,
    uint16,
    uint32,
    uint64,
)
from .printing import get_printoptions, printoptions, set_printoptions
from .size import Size
from .storage import Storage
from .tensor import Tensor, share, storage_of, wrap

__all__ = [
    "AbstractArray", "AbstractOperand", "DTYPES", "Device", "Size", "Storage", "Tensor",
    "bfloat16", "bool_", "complex128", "complex64", "contiguous_strides", "device", "dtype",
    "finfo", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "from_numpy_dtype",
    "get_default_device", "get_default_dtype", "get_printoptions", "iinfo", "int16", "int32",
    "int64", "int8", "printoptions", "promote_types", "set_default_device", "set_default_dtype",
    "set_printoptions", "share", "storage_of", "uint16", "uint32", "uint64", "uint8", "wrap",
]
