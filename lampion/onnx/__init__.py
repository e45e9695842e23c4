"""torch.onnx: models as ONNX files, through the `onnx` library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

from ..autograd import no_grad
from ..capture import capture
from ..nn import Module

__all__ = ["ONNXProgram", "OnnxExporterError", "export", "is_in_onnx_export"]

_exporting = False


class OnnxExporterError(RuntimeError):
    """A model that cannot be written as ONNX."""


class ONNXProgram:
    """An exported model: `model_proto` is the library's object."""

    def __init__(self, model_proto: Any) -> None:
        self.model_proto = model_proto

    def save(self, destination: str | PathLike[str]) -> None:
        """Writes the model to a file."""
        import onnx

        onnx.save_model(self.model_proto, destination)


def is_in_onnx_export() -> bool:
    """Whether a model is being exported now."""
    return _exporting


def export(
    model: Any, args: Any = (), f: Any = None, *, kwargs: dict[str, Any] | None = None,
    verbose: bool | None = None, input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None, opset_version: int | None = None,
    dynamo: bool = True, export_params: bool = True, do_constant_folding: bool = True,
    training: Any = None, keep_initializers_as_inputs: bool = False,
    dynamic_axes: Any = None, dynamic_shapes: Any = None, **options: Any,
) -> ONNXProgram:
    """Runs `model` once on `args`, in evaluation mode, and writes what it does as ONNX to `f`.

    Sizes are those of `args`: `dynamic_axes` and `dynamic_shapes` raise NotImplementedError.
    Needs the `onnx` library. An operator without a translation raises OnnxExporterError by name.
    """
    if dynamic_axes or dynamic_shapes:
        raise NotImplementedError("lampion has no torch.onnx.export with dynamic sizes yet: export "
                                  "once for each size, or leave dynamic_axes / dynamic_shapes out")
    try:
        from .writer import Writer
    except ImportError:
        raise OnnxExporterError("torch.onnx.export needs the onnx library: pip install onnx"
                                ) from None
    given = args if isinstance(args, tuple) else (args,)

    def call(*values: Any) -> Any:
        return model(*values, **(kwargs or {}))

    with _evaluating(model), no_grad():
        program = capture(call, *given, state=[model] if isinstance(model, Module) else [])
    proto = Writer(program, opset_version or 18).model(input_names, output_names)
    result = ONNXProgram(proto)
    if isinstance(f, (str, PathLike)):
        result.save(f)
    elif f is not None:
        f.write(proto.SerializeToString())
    return result


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode for the time of an export."""
    global _exporting
    modules = [m for m in model.modules() if m.training] if isinstance(model, Module) else []
    _exporting = True
    try:
        for m in modules:
            m.training = False
        yield
    finally:
        _exporting = False
        for m in modules:
            m.training = True
