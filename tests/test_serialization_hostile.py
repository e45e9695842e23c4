"""torch.load on damaged and hostile files: clear errors, nothing run, no crash."""

import io
import os
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest

import lampion as torch

P2 = b"\x80\x02"
REFUSED = (pickle.UnpicklingError, RuntimeError, EOFError)


def archive(pkl, storages=()):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        z.writestr("archive/data.pkl", pkl)
        for key, data in enumerate(storages):
            z.writestr(f"archive/data/{key}", data)
        z.writestr("archive/version", b"3\n")
    return file.getvalue()


def load(data, **kwargs):
    return torch.load(io.BytesIO(data), **kwargs)


class Call:
    def __init__(self, function, *args):
        self.parts = function, args

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("call", [
    Call(os.system, "echo ran"), Call(eval, "1"), Call(exec, "1"), Call(getattr, "x", "upper"),
    Call(__import__, "os"), Call(open, "x"), [Call(os.system, "x")], {"k": (Call(eval, "1"),)},
    Call(np.load, "x"), Call(torch.load, "x"), Call(list, (1,)), Call(bytearray, 10**12),
])  # fmt: skip
def test_calls_are_refused(call, protocol):
    with pytest.raises(pickle.UnpicklingError):
        load(archive(pickle.dumps(call, protocol)))


def test_calls_become_records_and_do_not_run(tmp_path):
    target = tmp_path / "made"
    with pytest.warns(UserWarning, match="inert records"):
        back = load(archive(pickle.dumps(Call(os.mkdir, str(target)))), weights_only=False)
    assert repr(back).startswith("<unknown ") and back.args == (str(target),)
    assert not target.exists()


LONG = (1 << 60).to_bytes(8, "little")
STREAMS = {
    "empty": b"",
    "no stop": P2 + b"N",
    "stack underflow": P2 + b"R.",
    "tuple underflow": P2 + b"N\x86.",
    "marks left": P2 + b"((.",
    "mark as value": P2 + b"(\x85.",
    "mark in the memo": P2 + b"(q\0.",
    "no such memo": P2 + b"h\x07.",
    "unknown opcode": P2 + b"\xfe.",
    "protocol 9": b"\x80\x09N.",
    "extension": P2 + b"\x82\x01.",
    "huge bytes": b"\x80\x04\x8e" + LONG + b".",
    "huge text": b"\x80\x04\x8d" + LONG + b".",
    "huge bytearray": b"\x80\x05\x96" + LONG + b".",
    "huge long": P2 + b"\x8b\xff\xff\xff\xff.",
    "huge digits": P2 + b"I" + b"9" * 100_000 + b"\n.",
    "bad float": P2 + b"Fx\n.",
    "bad utf-8": P2 + b"X\x01\0\0\0\xff.",
    "list as key": P2 + b"}]Ns.",
    "deep tuple as key": P2 + b"})" + b"\x85" * 1_000_000 + b"Ns.",
    "exponential key": P2 + b"}K\x01" + b"2\x86" * 60 + b"Ns.",
    "exponential set": b"\x80\x04\x8f(K\x01" + b"2\x86" * 60 + b"\x90.",
    "exponential frozenset": b"\x80\x04(K\x01" + b"2\x86" * 60 + b"\x91.",
    "odd items": P2 + b"}(NNNu.",
    "append to a number": P2 + b"K\x01Na.",
    "state of a number": P2 + b"K\x01}b.",
    "state of a class": P2 + b"ctorch.nn.parameter\nParameter\n}X\x01\0\0\0fK\x01sb.",
    "state of a dtype": P2 + b"ctorch\nfloat32\n}b.",
    "call of a class": P2 + b"ctorch\nTensor\n)R.",
    "new of a class": P2 + b"ctorch.nn.parameter\nParameter\n)\x81.",
    "dotted name": P2 + b"ctorch\nserialization.os.system\n(X\x01\0\0\0xtR.",
    "name with a path": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R.",
    "storage of junk": P2 + b"K\x01Q.",
    "size of text": P2 + b"ctorch\nSize\nX\x01\0\0\0x\x85R.",
}


@pytest.mark.parametrize("name", STREAMS)
def test_damaged_streams(name):
    with pytest.raises(pickle.UnpicklingError):
        load(archive(STREAMS[name]))


def integer(n):
    return b"\x8a\x09" + n.to_bytes(9, "little", signed=True)


def tensor_file(size, stride, offset=0, numel=4, data=bytes(16), key="0", kind="FloatStorage"):
    def numbers(values):
        return b"(" + b"".join(map(integer, values)) + b"t"

    name = key.encode()
    pid = (b"(X\x07\0\0\0storage" + f"ctorch\n{kind}\n".encode() + b"X"
           + struct.pack("<I", len(name)) + name + b"X\x03\0\0\0cpu" + integer(numel) + b"tQ")
    body = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + integer(offset) + numbers(size)
    return archive(P2 + body + numbers(stride) + b"\x89}tR.", [data])


def test_the_tensor_file_is_right_when_it_does_not_lie():
    assert load(tensor_file([2, 2], [2, 1])).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("lie", [
    {"size": [2, 3], "stride": [3, 1]}, {"size": [1], "stride": [1], "offset": 4},
    {"size": [1], "stride": [1], "offset": -1}, {"size": [2], "stride": [-1], "offset": 1},
    {"size": [-1], "stride": [1]}, {"size": [1 << 61], "stride": [0]},
    {"size": [1 << 40, 1 << 40], "stride": [0, 0]}, {"size": [2], "stride": [1 << 61]},
    {"size": [2], "stride": [(1 << 63) + 1]}, {"size": [4], "stride": [1], "numel": 1 << 40},
    {"size": [4], "stride": [1], "numel": -4}, {"size": [4], "stride": [1], "numel": 5},
    {"size": [4], "stride": [1, 1]}, {"size": [1] * 65, "stride": [0] * 65},
    {"size": [1], "stride": [1], "key": "../../etc/passwd"},
    {"size": [1], "stride": [1], "key": "7"},
    {"size": [1], "stride": [1], "kind": "UntypedStorage"},
    {"size": [1], "stride": [1], "kind": "Size"},
])  # fmt: skip
def test_tensors_that_lie(lie):
    with pytest.raises(REFUSED):
        load(tensor_file(**lie))


@pytest.mark.parametrize("array", [
    np.array([object()], dtype=object), np.zeros(2, dtype=[("a", "i4")]),
    np.array(["2020"], dtype="M8[Y]"),
])  # fmt: skip
def test_arrays_that_are_no_numbers(array):
    with pytest.raises(pickle.UnpicklingError):
        load(archive(pickle.dumps(array, 2)))


def good_file():
    file = io.BytesIO()
    torch.save({"a": torch.arange(100.0), "b": [1, "x"], "n": np.arange(3)}, file)
    return file.getvalue()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_files_cut_short(share):
    data = good_file()
    with pytest.raises(REFUSED):
        load(data[: int(len(data) * share)])


def test_a_wrong_checksum():
    data = bytearray(good_file())
    at = bytes(data).index(torch.arange(100.0).numpy().tobytes())
    data[at + 5] ^= 1
    with pytest.raises(RuntimeError, match="its checksum is wrong"):
        load(bytes(data))


def test_files_of_other_kinds():
    with pytest.raises(EOFError, match="Ran out of input"):
        load(b"")
    with pytest.raises(pickle.UnpicklingError, match="the file is no checkpoint"):
        load(b"\x89PNG....")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        z.writestr("a/constants.pkl", b"")
    with pytest.raises(RuntimeError, match="TorchScript"):
        load(file.getvalue())
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("a/data.pkl", b"N" * 1000)
    with pytest.raises(RuntimeError, match="compressed or encrypted"):
        load(file.getvalue())


def corrupted(data, rng):
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("weights_only", [True, False])
def test_random_damage_to_the_file(weights_only):
    rng, data, refused = random.Random(0), good_file(), 0
    for _ in range(300):
        try:
            load(corrupted(data, rng), weights_only=weights_only)
        except REFUSED:
            refused += 1
    assert refused > 100


def test_random_damage_to_the_pickle():
    rng, data, refused = random.Random(1), good_file(), 0
    reader = zipfile.ZipFile(io.BytesIO(data))
    body, storage = reader.read("archive/data.pkl"), reader.read("archive/data/0")
    for _ in range(500):
        try:
            load(archive(corrupted(body, rng), [storage]))
        except REFUSED:
            refused += 1
    assert refused > 250


OLD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."


@pytest.mark.parametrize("rest", [
    b"", P2 + b"N.", P2 + b"N." + P2 + b"].x"[:0] + P2 + b"K\x01.",
    P2 + b"cos\nsystem\nX\x01\0\0\0x\x85R.",
    P2 + b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"
    + integer(1 << 50) + b"NtQ.",
])  # fmt: skip
def test_old_files_that_are_damaged(rest):
    with pytest.raises(REFUSED):
        load(OLD + rest)
