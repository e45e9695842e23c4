"""PyTorch's public namespace, assembled from the rooms below; nothing is defined here.

>>> import lampion as torch
>>> torch.ones(2) + 1
tensor([2., 2.])
"""

from __future__ import annotations

import math as _math
from importlib import import_module as _import_module
from typing import Any

from . import autograd as autograd
from . import ops as _ops
from .autograd.modes import enable_grad as enable_grad
from .autograd.modes import inference_mode as inference_mode
from .autograd.modes import is_grad_enabled as is_grad_enabled
from .autograd.modes import is_inference_mode_enabled as is_inference_mode_enabled
from .autograd.modes import no_grad as no_grad
from .autograd.modes import set_grad_enabled as set_grad_enabled
from .ops.forms import can_cast as can_cast
from .ops.promotion import result_type as result_type
from .tensor import formats as _formats
from .tensor.devices import device as device
from .tensor.devices import get_default_device as get_default_device
from .tensor.devices import set_default_device as set_default_device
from .tensor.dtype import ALIASES as _ALIASES
from .tensor.dtype import DTYPES as _DTYPES
from .tensor.dtype import dtype as dtype
from .tensor.dtype import finfo as finfo
from .tensor.dtype import get_default_dtype as get_default_dtype
from .tensor.dtype import iinfo as iinfo
from .tensor.dtype import promote_types as promote_types
from .tensor.dtype import set_default_dtype as set_default_dtype
from .tensor.printing import set_printoptions as set_printoptions
from .tensor.size import Size as Size
from .tensor.tensor import Tensor as Tensor
from .version import __version__ as __version__

globals().update(_ops.PUBLIC["torch"])
globals().update(_DTYPES)
globals().update(_ALIASES)
globals().update({n: v for n, v in vars(_formats).items() if isinstance(v, _formats._Constant)})
memory_format, layout = _formats.memory_format, _formats.layout
inf, nan, pi, e, newaxis = _math.inf, _math.nan, _math.pi, _math.e, None

# Rooms that a program may never enter are loaded when it does.
_ROOMS = frozenset((
    "accelerator", "amp", "backends", "compiler", "cpu", "cuda", "distributed", "distributions",
    "export",
    "fft", "func", "functional", "fx", "hub", "jit", "library", "linalg", "mps",
    "multiprocessing", "nested", "nn", "onnx", "optim", "overrides", "profiler", "quasirandom",
    "random", "return_types", "serialization", "signal", "sparse", "special", "storage",
    "testing", "types", "utils", "version", "xpu", "_utils", "_tensor", "_dynamo", "_inductor",
    "torch_version"))
_NAMES = {"save": "serialization", "load": "serialization", "autocast": "amp",
          "GradScaler": "amp", "compile": "compiler", "vmap": "func", "Generator": "random",
          "typename": "utils.describe", "set_num_threads": "utils.threads",
          "get_num_threads": "utils.threads", "set_num_interop_threads": "utils.threads",
          "get_num_interop_threads": "utils.threads",
          "UntypedStorage": "storage", "TypedStorage": "storage",
          **{f"{kind}Storage": "storage" for kind in (
              "Float", "Double", "Half", "BFloat16", "Byte", "Char", "Short", "Int", "Long",
              "Bool", "ComplexFloat", "ComplexDouble")},
          "use_deterministic_algorithms": "utils.deterministic",
          "are_deterministic_algorithms_enabled": "utils.deterministic",
          "is_deterministic_algorithms_warn_only_enabled": "utils.deterministic",
          "set_float32_matmul_precision": "utils.deterministic",
          "get_float32_matmul_precision": "utils.deterministic",
          "is_anomaly_enabled": "autograd.anomaly_mode",
          "is_anomaly_check_nan_enabled": "autograd.anomaly_mode",
          **dict.fromkeys(("AcceleratorError", "OutOfMemoryError", "get_device_module"),
                          "utils.devices"),
          **dict.fromkeys(("_check", "_check_index", "_check_value", "_check_type", "_assert",
                           "_check_not_implemented", "_check_is_size"), "utils.checks"),
          "is_autocast_enabled": "amp", "get_autocast_dtype": "amp",
          "get_autocast_gpu_dtype": "amp", "get_autocast_cpu_dtype": "amp",
          "is_autocast_cpu_enabled": "amp", "is_autocast_cache_enabled": "amp",
          "set_autocast_enabled": "amp", "clear_autocast_cache": "amp"}


def __getattr__(name: str) -> Any:
    if name.startswith("_foreach_"):
        value = getattr(_import_module(f"{__name__}.utils.foreach"), name)
    elif name in _NAMES:
        value = getattr(_import_module(f"{__name__}.{_NAMES[name]}"), name)
    elif name in _ROOMS:
        try:
            value = _import_module(f"{__name__}.{name}")
        except ImportError as error:
            if error.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"lampion has no torch.{name} yet") from None
    else:
        raise AttributeError(f"lampion has no torch.{name} yet")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({n for n in globals() if not n.startswith("_")} | _ROOMS | _NAMES.keys())
