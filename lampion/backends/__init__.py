"""`torch.backends`: switches of PyTorch's libraries. Here they are remembered and change nothing:
results are deterministic and in full precision in any case."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

__all__ = ["cudnn", "cuda", "mps", "mkl", "mkldnn", "openmp", "cpu", "opt_einsum"]


def _module(name: str, doc: str, **values: Any) -> ModuleType:
    """A small namespace that is also importable as `torch.backends.name`."""
    module = ModuleType(f"{__name__}.{name}", doc)
    module.__dict__.update(values)
    sys.modules[module.__name__] = module
    return module


def _no() -> bool:
    """Not available."""
    return False


def _yes() -> bool:
    """Available."""
    return True


class _Flags:
    """Switches that can be set for a `with` block."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None


class _Precision:
    """`torch.backends.cuda.matmul`: remembered switches."""

    allow_tf32 = False
    fp32_precision = "ieee"
    allow_fp16_reduced_precision_reduction = True
    allow_bf16_reduced_precision_reduction = True
    allow_fp16_accumulation = False


def _enable(enabled: bool) -> None:
    """Accepted: there is one implementation of attention."""


cudnn = _module("cudnn", "Switches of cuDNN: remembered.", enabled=True, benchmark=False,
                deterministic=False, allow_tf32=True, benchmark_limit=10, is_available=_no,
                version=lambda: None, flags=_Flags, fp32_precision="ieee", conv=_Precision(),
                rnn=_Precision())
cuda = _module("cuda", "Switches of CUDA's libraries: remembered.", matmul=_Precision(),
               is_built=_no, preferred_linalg_library=lambda backend=None: "default",
               enable_flash_sdp=_enable, enable_mem_efficient_sdp=_enable, enable_math_sdp=_enable,
               enable_cudnn_sdp=_enable, flash_sdp_enabled=_no, mem_efficient_sdp_enabled=_no,
               math_sdp_enabled=_yes, cudnn_sdp_enabled=_no, sdp_kernel=_Flags)
mps = _module("mps", "Apple's GPUs: not supported yet.", is_available=_no, is_built=_no)
mkl = _module("mkl", "Intel's library: not used.", is_available=_no)
mkldnn = _module("mkldnn", "oneDNN: not used.", is_available=_no, enabled=False, flags=_Flags,
                 allow_tf32=False, fp32_precision="ieee")
openmp = _module("openmp", "OpenMP: not used.", is_available=_no)
cpu = _module("cpu", "The processor.", get_cpu_capability=lambda: "DEFAULT")
opt_einsum = _module("opt_einsum", "Order of einsum's products: from the left.", is_available=_no,
                     enabled=False, strategy=None)
