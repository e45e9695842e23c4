"""PyTorch's public namespace, assembled from the rooms below; nothing is defined here.

>>> import lampion as torch
>>> torch.ones(2) + 1
tensor([2., 2.])
"""

from __future__ import annotations

import math as _math
from typing import Any

from . import ops as _ops
from .autograd.modes import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from .ops.forms import can_cast
from .ops.promotion import result_type
from .tensor.devices import device, get_default_device, set_default_device
from .tensor.dtype import (
    ALIASES,
    DTYPES,
    dtype,
    finfo,
    get_default_dtype,
    iinfo,
    promote_types,
    set_default_dtype,
)
from .tensor.formats import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    layout,
    memory_format,
    preserve_format,
    strided,
)
from .tensor.size import Size
from .tensor.tensor import Tensor

globals().update(_ops.PUBLIC["torch"])
globals().update(DTYPES)
globals().update(ALIASES)
inf, nan, pi, e, newaxis = _math.inf, _math.nan, _math.pi, _math.e, None
