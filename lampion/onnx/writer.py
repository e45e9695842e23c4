"""A captured program as an ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from ..capture.program import Program
from ..graph.node import Node
from . import OnnxExporterError
from .rules import RULES

__all__ = ["Writer"]

_LEAST_OPSET = 18  # reductions take their axes as an input from here on


class Writer:
    """Turns the nodes of a program into ONNX nodes, one rule for each operator."""

    def __init__(self, program: Program, opset: int) -> None:
        if opset < _LEAST_OPSET:
            raise OnnxExporterError(f"opset_version must be at least {_LEAST_OPSET}, but got "
                                    f"{opset}")
        self.program, self.opset = program, opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.names: dict[str, str] = {}  # of values, by the node's digest
        self._count = 0

    # --- for the rules --------------------------------------------------------------------------

    def emit(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds an ONNX node; gives the name of its first output."""
        name = self._fresh()
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: Any) -> str:
        """A constant tensor."""
        name = self._fresh()
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def integers(self, values: Any) -> str:
        """A constant vector of sizes or axes."""
        return self.constant(list(values), np.int64)

    def cast(self, name: str, dtype: Any) -> str:
        """`name` in another element type."""
        return self.emit("Cast", name, to=_kind(dtype))

    def _fresh(self) -> str:
        self._count += 1
        return f"v{self._count}"

    # --- the model ------------------------------------------------------------------------------

    def model(self, input_names: Sequence[str] | None, output_names: Sequence[str] | None) -> Any:
        """The whole model, checked."""
        graph = self.program.graph
        if graph.writes:
            raise OnnxExporterError("the model changes its tensors when it runs: "
                                    f"{len(graph.writes)} writes cannot be exported")
        inputs = self._inputs(list(input_names or ()))
        for node in graph.nodes():
            if node.kind != "input":
                self.names[node.digest] = self._translate(node)
        outputs = self._outputs(list(output_names or ()))
        made = helper.make_graph(self.nodes, graph.name, inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(made, opset_imports=opsets, producer_name="lampion")
        checker.check_model(model)
        return model

    def _inputs(self, wanted: list[str]) -> list[Any]:
        infos, program = [], self.program
        for i, (node, label) in enumerate(zip(program.graph.inputs, program.graph.names)):
            name = wanted[i] if i < min(len(wanted), program.n_args) else label
            self.names[node.digest] = name
            if i < program.n_args:
                infos.append(_info(name, node))
            else:
                array = program.state[i - program.n_args].detach().numpy()
                self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return infos

    def _outputs(self, wanted: list[str]) -> list[Any]:
        infos = []
        for i, node in enumerate(self.program.graph.outputs):
            name = wanted[i] if i < len(wanted) else f"output{i}"
            self.nodes.append(helper.make_node("Identity", [self.names[node.digest]], [name]))
            infos.append(_info(name, node))
        return infos

    def _translate(self, node: Node) -> str:
        if node.kind == "result":
            if node.attrs[0] != 0:
                raise OnnxExporterError(f"result {node.attrs[0]} of {_operator(node.args[0])} has "
                                        "no translation to ONNX yet")
            return self.names[node.args[0].digest]  # type: ignore[union-attr]
        rule = RULES.get(node.op.name)
        if rule is None:
            raise OnnxExporterError(f"lampion has no translation of the operator {node.op.name} to "
                                    "ONNX yet")
        attributes = dict(zip(node.op.params[node.op.n_tensors:], node.attrs))
        return rule(self, node, [self._operand(a, node) for a in node.args], **attributes)

    def _operand(self, value: Any, node: Node) -> Any:
        """The name of an operand; numbers become constants of the tensors' type."""
        if value is None:
            return ""
        if isinstance(value, Node):
            return self.names[value.digest]
        kinds = [a.dtype for a in node.args if isinstance(a, Node) and a.dtype != np.bool_]
        return self.constant(value, kinds[0] if kinds else node.dtype)


def _operator(node: Any) -> str:
    return node.op.name if node is not None else "an input"


def _kind(dtype: Any) -> int:
    """ONNX's number of an element type."""
    name = np.dtype(dtype).name
    if name == "bfloat16":
        return int(TensorProto.BFLOAT16)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _info(name: str, node: Node) -> Any:
    return helper.make_tensor_value_info(name, _kind(node.dtype), list(node.shape))
