"""From fused groups of operators to kernels: loop-level IR, schedules, templates, LLVM emission."""
