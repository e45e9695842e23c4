"""What tests of kernels share."""

from __future__ import annotations

from lampion.codegen.target import host

# The instruction sets that this machine can run, by its own.
RUNNABLE = {"sse": ["sse"], "avx2": ["sse", "avx2"], "avx512": ["sse", "avx2", "avx512"],
            "neon": ["neon"]}[host().name]
