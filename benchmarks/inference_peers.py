"""Peers of inference.py beside PyTorch itself: torch.compile and onnxruntime.

Both get PyTorch's model, the same number of threads and warm calls; what is missing is said once.
onnxruntime needs the packages onnx and onnxscript too, for PyTorch to export the model.
"""

from __future__ import annotations

import io
import shutil
import warnings
from typing import Any

from step_workloads import Compile


def peers(torch: Any, threads: int, with_compile: bool) -> dict[str, Compile]:
    """The compiler of each peer that can run here; it is given the `forward` of a module."""
    found: dict[str, Compile] = {}
    if with_compile and not (shutil.which("g++") or shutil.which("clang++")):
        print("torch.compile is skipped: it needs a C++ compiler")
    elif with_compile:
        found["torch compiled"] = lambda fn: torch.compile(fn)
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        print(f"onnxruntime is skipped: {error}")
    else:
        found["onnxruntime"] = lambda fn: Onnx(torch, onnxruntime, fn.__self__, threads)
    return found


class Onnx:
    """A module that is exported at its first call and run by onnxruntime from then on.

    Buffers that the module writes (caches of keys and values) go in and come out as values that
    stay in onnxruntime's memory: ONNX has no writes in place.
    """

    def __init__(self, torch: Any, runtime: Any, model: Any, threads: int) -> None:
        self.torch, self.runtime, self.model, self.threads = torch, runtime, model, threads
        self.state: list[Any] = []
        self.session: Any = None

    def __call__(self, *args: Any) -> Any:
        if self.session is None:
            self.prepare(args)
        names = [i.name for i in self.session.get_inputs()]
        binding = self.session.io_binding()
        for name, a in zip(names, args):
            binding.bind_cpu_input(name, a.numpy())
        for name, value in zip(names[len(args):], self.state):
            binding.bind_ortvalue_input(name, value)
        for output in self.session.get_outputs():
            binding.bind_output(output.name, "cpu")
        self.session.run_with_iobinding(binding)
        result, *self.state = binding.get_outputs()
        return self.torch.from_numpy(result.numpy())

    def prepare(self, args: tuple[Any, ...]) -> None:
        written = {n: b for n, b in self.model.named_buffers() if n.endswith(("keys", "values"))}
        model = _functional(self.torch, self.model, list(written)) if written else self.model
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = self.torch.onnx.export(model, (*args, *written.values()), dynamo=True,
                                             verbose=False)
            program.save(buffer)
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        self.session = self.runtime.InferenceSession(buffer.getvalue(), options,
                                                     providers=["CPUExecutionProvider"])
        self.state = [self.runtime.OrtValue.ortvalue_from_numpy(b.numpy().copy())
                      for b in written.values()]


def _functional(torch: Any, model: Any, names: list[str]) -> Any:
    """The model as a module that takes its written buffers and returns them."""
    class Functional(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, token: Any, at: Any, *buffers: Any) -> Any:
            copies = {n: b.clone() for n, b in zip(names, buffers)}
            result = torch.func.functional_call(self.model, copies, (token, at))
            return result, *copies.values()
    return Functional()
