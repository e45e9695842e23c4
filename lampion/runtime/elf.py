"""Relocatable ELF64 objects as LLVM writes them: checked headers, sections, symbols, relocations.

Every offset, size and index is checked against the file before use: an object may come from a
cache on disk, and what it says decides what is written into executable memory.
Source of the format: System V Application Binary Interface, chapters 4 and 5.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["AARCH64", "BadObject", "ObjectFile", "Relocation", "Section", "Symbol", "X86_64"]

X86_64, AARCH64 = 62, 183

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")

_PROGBITS, _SYMTAB, _RELA, _NOBITS, _REL, _UNWIND = 1, 2, 4, 8, 9, 0x70000001
_WRITE, _ALLOC, _EXEC, _TLS = 1, 2, 4, 0x400
_RESERVED, _ABSOLUTE = 0xFF00, 0xFFF1
_IDENT = b"\x7fELF\x02\x01\x01"  # 64 bits, little endian, version 1
_LARGEST = 1 << 26  # bytes of one section in memory; a kernel has some kilobytes
_LARGEST_ALIGNMENT = 4096


class BadObject(ValueError):
    """An object file that is damaged, or that asks for something the loader does not do."""


class Section(NamedTuple):
    """A section that takes memory when loaded; `data` is empty where it is only zeros."""

    number: int
    name: str
    data: bytes
    size: int
    alignment: int
    writable: bool
    executable: bool


class Symbol(NamedTuple):
    """A name of the object. `section` is 0 where it is external, None where it is absolute."""

    name: str
    section: int | None
    value: int
    is_global: bool
    is_function: bool


class Relocation(NamedTuple):
    """A place in `section` that depends on where `symbol` will be."""

    section: int
    offset: int
    kind: int
    symbol: int
    addend: int


class ObjectFile:
    """The parts of an object that matter to a loader; raises BadObject where one is malformed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._read_header()
        self.sections: dict[int, Section] = {}
        for index in range(len(self._headers)):
            self._read_section(index)
        self.symbols = self._read_symbols()
        self.relocations = self._read_relocations()

    def _read_header(self) -> None:
        data = self._data
        if len(data) < _HEADER.size or data[:7] != _IDENT:
            raise BadObject("not a 64-bit little-endian ELF file")
        fields = _HEADER.unpack_from(data)
        kind, self.machine, offset = fields[1], fields[2], fields[6]
        entry_size, count, self._names = fields[11], fields[12], fields[13]
        if kind != 1:
            raise BadObject(f"ELF file of type {kind}, expected a relocatable object")
        if self.machine not in (X86_64, AARCH64):
            raise BadObject(f"ELF machine {self.machine} is neither x86-64 nor AArch64")
        if entry_size != _SECTION.size or self._names >= count:
            raise BadObject("malformed section table")
        table = self._bytes(offset, count * _SECTION.size, "section table")
        self._headers = list(_SECTION.iter_unpack(table))
        self._strings: dict[int, bytes] = {}

    def _bytes(self, offset: int, size: int, what: str) -> bytes:
        if offset + size > len(self._data):
            raise BadObject(f"{what} reaches beyond the end of the file")
        return self._data[offset:offset + size]

    def _content(self, index: int) -> bytes:
        return self._bytes(self._headers[index][4], self._headers[index][5], f"section {index}")

    def _string(self, table: int, offset: int) -> str:
        if table not in self._strings:
            if table >= len(self._headers):
                raise BadObject(f"string table {table} does not exist")
            self._strings[table] = self._content(table)
        text = self._strings[table]
        end = text.find(b"\0", offset)
        if end < 0:
            raise BadObject("name reaches beyond its string table")
        return text[offset:end].decode("utf-8", "replace")

    def _read_section(self, index: int) -> None:
        name, kind, flags, _, _, size, _, _, alignment, _ = self._headers[index]
        if kind == _REL:
            raise BadObject("relocations without addends are not supported")
        if not flags & _ALLOC or kind == _UNWIND:
            return
        title = self._string(self._names, name)
        if title.startswith(".eh_frame") or not size:
            return  # nothing unwinds through a kernel
        if kind not in (_PROGBITS, _NOBITS) or flags & _TLS:
            raise BadObject(f"section {title} (type {kind}, flags {flags:#x}) is not supported")
        if size > _LARGEST or alignment > _LARGEST_ALIGNMENT or alignment & (alignment - 1):
            raise BadObject(f"section {title} has size {size}, alignment {alignment}")
        # Constant after relocation, whatever its flags say.
        writable = bool(flags & _WRITE) and not title.startswith(".data.rel.ro")
        content = b"" if kind == _NOBITS else self._content(index)
        self.sections[index] = Section(index, title, content, size, max(alignment, 1), writable,
                                       bool(flags & _EXEC))

    def _read_symbols(self) -> list[Symbol]:
        tables = [i for i, header in enumerate(self._headers) if header[1] == _SYMTAB]
        if len(tables) != 1:
            raise BadObject(f"{len(tables)} symbol tables, expected one")
        self._symbol_table = tables[0]
        content, strings = self._content(tables[0]), self._headers[tables[0]][6]
        if len(content) % _SYMBOL.size:
            raise BadObject("malformed symbol table")
        return [self._symbol(strings, *fields) for fields in _SYMBOL.iter_unpack(content)]

    def _symbol(self, strings: int, name: int, info: int, other: int, place: int, value: int,
                size: int) -> Symbol:
        title = self._string(strings, name)
        if place == _ABSOLUTE:
            return Symbol(title, None, value, False, False)
        if place >= len(self._headers) or place >= _RESERVED:
            raise BadObject(f"symbol {title!r} is in section {place}, which does not exist")
        if place in self.sections and value + size > self.sections[place].size:
            raise BadObject(f"symbol {title!r} reaches beyond its section")
        return Symbol(title, place, value, info >> 4 in (1, 2), info & 15 == 2)

    def _read_relocations(self) -> list[Relocation]:
        found: list[Relocation] = []
        for index, header in enumerate(self._headers):
            kind, link, target = header[1], header[6], header[7]
            if kind != _RELA or target not in self.sections:
                continue
            content = self._content(index)
            if link != self._symbol_table or len(content) % _RELOCATION.size:
                raise BadObject("malformed relocation table")
            for offset, info, addend in _RELOCATION.iter_unpack(content):
                if info >> 32 >= len(self.symbols):
                    raise BadObject(f"relocation against symbol {info >> 32}, which does not exist")
                found.append(Relocation(target, offset, info & 0xFFFFFFFF, info >> 32, addend))
        return found
