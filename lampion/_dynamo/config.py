"""Settings of PyTorch's compiler that programs make; here they have nothing to set."""

cache_size_limit = recompile_limit = 64
accumulated_cache_size_limit = accumulated_recompile_limit = 256
suppress_errors = False
verbose = False
capture_scalar_outputs = False
capture_dynamic_output_shape_ops = False
assume_static_by_default = automatic_dynamic_shapes = False
optimize_ddp = True
compiled_autograd = False
