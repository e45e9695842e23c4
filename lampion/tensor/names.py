"""PyTorch's legacy names of tensor types, such as `torch.FloatTensor`."""

from __future__ import annotations

from typing import Any

TYPE_NAMES = {"float32": "Float", "float64": "Double", "float16": "Half", "bfloat16": "BFloat16",
              "uint8": "Byte", "int8": "Char", "int16": "Short", "int32": "Int", "int64": "Long",
              "bool": "Bool", "complex64": "ComplexFloat", "complex128": "ComplexDouble",
              "uint16": "UInt16", "uint32": "UInt32", "uint64": "UInt64",
              "float8_e4m3fn": "Float8_e4m3fn", "float8_e5m2": "Float8_e5m2",
              "float8_e4m3fnuz": "Float8_e4m3fnuz", "float8_e5m2fnuz": "Float8_e5m2fnuz"}


def scalar_type(dtype: Any) -> str:
    """The name that error messages use for a dtype: `Float`, `Long`, ..."""
    return TYPE_NAMES[dtype.name]


C_NAMES = {"float32": "float", "float64": "double", "float16": "c10::Half",
           "bfloat16": "c10::BFloat16", "complex64": "c10::complex<float>",
           "complex128": "c10::complex<double>", "uint8": "unsigned char", "int8": "signed char",
           "int16": "short", "int32": "int", "int64": "long", "bool": "bool"}


def c_name(dtype: Any) -> str:
    """The C++ type, which errors of matrix products name."""
    return C_NAMES.get(dtype.name, dtype.name)


def type_name(tensor: Any) -> str:
    """`torch.FloatTensor` and so on."""
    return f"torch.{TYPE_NAMES[tensor._dtype.name]}Tensor"
