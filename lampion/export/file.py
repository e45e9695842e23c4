"""Files of exported programs: a zip of the graph as text, its signature as JSON, and weights.

graph.txt can be read (and is), signature.json says how arguments and results are nested, and
weights.safetensors is what its name says. Nothing in a file is executed. Members are stored as
they are, so a file cannot grow in reading.
"""

from __future__ import annotations

import json
import zipfile
from os import PathLike
from typing import Any

import numpy as np

from ..nn import Parameter
from ..tensor import Tensor
from ..tensor.dtype import DTYPES
from ..tensor.tensor import wrap
from .errors import ExportError
from .program import ExportedProgram
from .structure import well_formed

__all__ = ["load", "save"]

_VERSION = 1
_MEMBERS = ("graph.txt", "signature.json", "weights.safetensors")
_NAMES = {"bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32",
          "int64": "I64", "uint16": "U16", "uint32": "U32", "uint64": "U64", "float16": "F16",
          "bfloat16": "BF16", "float32": "F32", "float64": "F64", "complex64": "C64",
          "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
_DTYPES = {v: k for k, v in _NAMES.items()}


def _library() -> Any:
    try:
        import safetensors
    except ImportError:
        raise ExportError("files of exported programs need the safetensors library: "
                          "pip install 'lampion[safetensors]'") from None
    return safetensors


def save(ep: ExportedProgram, f: str | PathLike[str]) -> None:
    """Writes a program to a file (a zip that other tools can open, too).

    >>> import lampion as torch, tempfile, os
    >>> program = torch.export(torch.nn.Linear(3, 2), (torch.ones(4, 3),))
    >>> path = os.path.join(tempfile.mkdtemp(), "linear.zip")
    >>> torch.export.save(program, path)
    >>> torch.equal(torch.export.load(path)(torch.ones(1, 3)), program(torch.ones(1, 3)))
    True
    """
    weights = _serialized(ep.weights)
    signature = {
        "version": _VERSION, "inputs": ep.inputs, "outputs": ep.outputs, "names": ep.names,
        "sizes": [[n, *ep.ranges[n], ep.examples[n]] for n in ep.ranges], "growing": ep.growing,
        "weights": [[n, isinstance(t, Parameter)] for n, t in ep.weights.items()],
        "fixed_because": ep.fixed_because}
    contents = (ep.text.encode(), json.dumps(signature, indent=1).encode(), weights)
    with zipfile.ZipFile(f, "w", zipfile.ZIP_STORED) as archive:
        for name, data in zip(_MEMBERS, contents, strict=True):
            archive.writestr(zipfile.ZipInfo(name), data)  # of no date: equal programs, equal files


def _serialized(weights: dict[str, Tensor]) -> bytes:
    _library()
    from safetensors.numpy import save

    for name, t in weights.items():
        if t.dtype.name not in _NAMES:
            raise ExportError(f"weight {name}: safetensors has no element type {t.dtype.name}")
    return save({n: np.ascontiguousarray(t._a).reshape(t._a.shape) for n, t in weights.items()})


def load(f: str | PathLike[str]) -> ExportedProgram:
    """The program in a file that `save` wrote; nothing in the file is executed.

    ExportError, which says what is wrong, for any other file.
    """
    try:
        graph, signature, weights = _members(f)
        return _program(graph.decode(), json.loads(signature), _deserialized(weights))
    except (zipfile.BadZipFile, UnicodeDecodeError, json.JSONDecodeError, RecursionError,
            ExportError, NotImplementedError, EOFError) as error:
        if "safetensors library" in str(error):
            raise
        raise ExportError(f"{f} is no exported program that can be used: {error}") from None


def _members(f: str | PathLike[str]) -> list[bytes]:
    with zipfile.ZipFile(f) as archive:
        infos = {i.filename: i for i in archive.infolist()}
        missing = [n for n in _MEMBERS if n not in infos]
        if missing:
            other = " (a file of PyTorch's torch.export, which is of another kind)" if any(
                n.endswith("archive_format") for n in infos) else ""
            raise ExportError(f"it holds no {missing[0]}{other}")
        if any(infos[n].compress_type != zipfile.ZIP_STORED for n in _MEMBERS):
            raise ExportError("its members are compressed")
        return [archive.read(n) for n in _MEMBERS]


def _deserialized(data: bytes) -> dict[str, Tensor]:
    library = _library()
    try:
        entries = library.deserialize(data)
    except library.SafetensorError as error:
        raise ExportError(f"weights.safetensors: {error}") from None
    found: dict[str, Tensor] = {}
    for name, entry in entries:
        if entry["dtype"] not in _DTYPES:
            raise ExportError(f"weight {name} is of the unknown type {entry['dtype']}")
        kind = DTYPES[_DTYPES[entry["dtype"]]]
        found[name] = wrap(np.frombuffer(bytearray(entry["data"]), kind.np).reshape(
            entry["shape"]), kind)
    return found


def _program(text: str, signature: Any, weights: dict[str, Tensor]) -> ExportedProgram:
    problem = _problem(signature)
    if problem:
        raise ExportError(f"signature.json: {problem}")
    listed: dict[str, Tensor] = {}
    for name, is_parameter in signature["weights"]:
        if name not in weights:
            raise ExportError(f"weights.safetensors holds no {name!r}")
        listed[name] = Parameter(weights[name], requires_grad=False) if (
            is_parameter) else weights[name]
    sizes = signature["sizes"]
    made = ExportedProgram(
        text, listed, signature["growing"], signature["inputs"], signature["outputs"],
        signature["names"], {n: (low, high) for n, low, high, _ in sizes},
        {n: example for n, *_, example in sizes})
    made.fixed_because = signature["fixed_because"]
    return made


def _problem(signature: Any) -> str:
    """What is wrong with a signature; empty if nothing."""
    if not isinstance(signature, dict) or signature.get("version") != _VERSION:
        return f"expected version {_VERSION}"
    found: list[Any] = [signature.get(k) for k in ("names", "sizes", "inputs")]
    names, sizes, inputs = found
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        return "names is a list of texts"
    if not isinstance(signature.get("weights"), list) or not all(
            isinstance(w, list) and len(w) == 2 and isinstance(w[0], str)
            and isinstance(w[1], bool) for w in signature["weights"]):
        return "a weight is a name, and whether it is a parameter"
    if not isinstance(sizes, list) or not all(_is_size(s) for s in sizes):
        return "a size is a name, two bounds and an example"
    growing = signature.get("growing")
    if not isinstance(growing, dict) or not set(growing.values()) <= {"fill", "crop"}:
        return "what grows is filled or cropped"
    if not isinstance(signature.get("fixed_because"), str):
        return "fixed_because is a text"
    if not well_formed(inputs, len(names)) or _tensors(inputs) != list(range(len(names))) or (
            [*inputs] != ["tuple"] or [*map(list, inputs["tuple"])] != [["tuple"], ["dict"]]):
        return "inputs are no structure of arguments"
    return "" if well_formed(signature.get("outputs"), 1 << 30) else "outputs are no structure"


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and isinstance(value[0], str) and all(
        type(v) is int and v >= 0 for v in (value[1], value[3])) and (
        value[2] is None or type(value[2]) is int)


def _tensors(structure: Any) -> list[int]:
    (kind, what), = structure.items()
    if kind == "tensor":
        return [what]
    if kind == "dict":
        return [i for _, v in what for i in _tensors(v)]
    return [i for v in what for i in _tensors(v)] if kind in ("tuple", "list") else []
