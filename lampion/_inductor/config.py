"""Settings of PyTorch's code generator that programs make; here they have nothing to set."""

from types import SimpleNamespace

coordinate_descent_tuning = False
epilogue_fusion = True
fx_graph_cache = True
freezing = False
max_autotune = False
shape_padding = False
compile_threads = 1
cpp = SimpleNamespace(threads=-1, simdlen=None)
triton = SimpleNamespace(unique_kernel_names=True, cudagraphs=False, cudagraph_trees=True)
