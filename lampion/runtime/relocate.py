"""Relocations: how an address is written into an instruction or a word, for x86-64 and AArch64.

Sources: System V ABI, AMD64 supplement, table 4.9; ELF for the Arm 64-bit Architecture, 5.7.
In the comments S is the symbol's address, A the addend, P the place, G the symbol's slot in the
table of addresses, Page(x) x without its low 12 bits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from .elf import AARCH64, X86_64, BadObject

__all__ = ["JUMPS", "KINDS", "SLOTS", "STUB", "stub"]

# Writes a value at an offset of the image; the value and the place are addresses.
Writer = Callable[[bytearray, int, int, int], None]


def _fits(value: int, bits: int, what: str) -> int:
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise BadObject(f"{what}: {value:#x} does not fit {bits} bits")
    return value


def _word64(image: bytearray, at: int, value: int, place: int) -> None:
    """S + A"""
    struct.pack_into("<Q", image, at, value & 0xFFFFFFFFFFFFFFFF)


def _relative64(image: bytearray, at: int, value: int, place: int) -> None:
    """S + A - P"""
    struct.pack_into("<Q", image, at, (value - place) & 0xFFFFFFFFFFFFFFFF)


def _relative32(image: bytearray, at: int, value: int, place: int) -> None:
    """S + A - P"""
    struct.pack_into("<i", image, at, _fits(value - place, 32, "32-bit distance"))


def _signed32(image: bytearray, at: int, value: int, place: int) -> None:
    """S + A, where the program expects addresses below 2 GiB"""
    struct.pack_into("<i", image, at, _fits(value, 32, "32-bit address"))


def _unsigned32(image: bytearray, at: int, value: int, place: int) -> None:
    if value >> 32:
        raise BadObject(f"32-bit address: {value:#x} does not fit")
    struct.pack_into("<I", image, at, value)


def _patch(image: bytearray, at: int, mask: int, bits: int) -> None:
    """Puts `bits` into the masked field of the instruction at `at`."""
    old, = struct.unpack_from("<I", image, at)
    struct.pack_into("<I", image, at, old & ~mask | bits)


def _branch(width: int, shift: int) -> Writer:
    """S + A - P in words, in a field of `width` bits"""
    mask = (1 << width) - 1

    def write(image: bytearray, at: int, value: int, place: int) -> None:
        distance = _fits(value - place, width + 2, "branch")
        if distance & 3:
            raise BadObject("branch to an address that is not a multiple of 4")
        _patch(image, at, mask << shift, (distance >> 2 & mask) << shift)

    return write


def _split_immediate(image: bytearray, at: int, value: int) -> None:
    """The 21-bit immediate of adr and adrp: two low bits at 29, the others at 5."""
    _fits(value, 21, "adr immediate")
    _patch(image, at, 3 << 29 | 0x7FFFF << 5, (value & 3) << 29 | (value >> 2 & 0x7FFFF) << 5)


def _page(image: bytearray, at: int, value: int, place: int) -> None:
    """Page(S + A) - Page(P)"""
    _split_immediate(image, at, (value >> 12) - (place >> 12))


def _near(image: bytearray, at: int, value: int, place: int) -> None:
    """S + A - P"""
    _split_immediate(image, at, value - place)


def _low12(scale: int) -> Writer:
    """The low 12 bits of S + A, in units of the access: 1 << `scale` bytes"""

    def write(image: bytearray, at: int, value: int, place: int) -> None:
        low = value & 0xFFF
        if low & (1 << scale) - 1:
            raise BadObject(f"address {value:#x} is not aligned to {1 << scale} bytes")
        _patch(image, at, 0xFFF << 10, low >> scale << 10)

    return write


# Machine -> relocation number -> (bytes it changes, writer).
KINDS: dict[int, dict[int, tuple[int, Writer]]] = {
    X86_64: {
        1: (8, _word64),         # R_X86_64_64
        2: (4, _relative32),     # R_X86_64_PC32
        4: (4, _relative32),     # R_X86_64_PLT32
        9: (4, _relative32),     # R_X86_64_GOTPCREL
        10: (4, _unsigned32),    # R_X86_64_32
        11: (4, _signed32),      # R_X86_64_32S
        24: (8, _relative64),    # R_X86_64_PC64
        41: (4, _relative32),    # R_X86_64_GOTPCRELX
        42: (4, _relative32),    # R_X86_64_REX_GOTPCRELX
    },
    AARCH64: {
        257: (8, _word64),       # R_AARCH64_ABS64
        260: (8, _relative64),   # R_AARCH64_PREL64
        261: (4, _relative32),   # R_AARCH64_PREL32
        273: (4, _branch(19, 5)),  # R_AARCH64_LD_PREL_LO19
        274: (4, _near),         # R_AARCH64_ADR_PREL_LO21
        275: (4, _page),         # R_AARCH64_ADR_PREL_PG_HI21
        277: (4, _low12(0)),     # R_AARCH64_ADD_ABS_LO12_NC
        278: (4, _low12(0)),     # R_AARCH64_LDST8_ABS_LO12_NC
        279: (4, _branch(14, 5)),  # R_AARCH64_TSTBR14
        280: (4, _branch(19, 5)),  # R_AARCH64_CONDBR19
        282: (4, _branch(26, 0)),  # R_AARCH64_JUMP26
        283: (4, _branch(26, 0)),  # R_AARCH64_CALL26
        284: (4, _low12(1)),     # R_AARCH64_LDST16_ABS_LO12_NC
        285: (4, _low12(2)),     # R_AARCH64_LDST32_ABS_LO12_NC
        286: (4, _low12(3)),     # R_AARCH64_LDST64_ABS_LO12_NC
        299: (4, _low12(4)),     # R_AARCH64_LDST128_ABS_LO12_NC
        311: (4, _page),         # R_AARCH64_ADR_GOT_PAGE
        312: (4, _low12(3)),     # R_AARCH64_LD64_GOT_LO12_NC
    },
}
# Those that mean the symbol's slot in the table of addresses, and those that may go by a stub.
SLOTS = {X86_64: {9, 41, 42}, AARCH64: {311, 312}}
JUMPS = {X86_64: {4}, AARCH64: {282, 283}}
STUB = 16  # bytes


def stub(machine: int, place: int, slot: int) -> bytes:
    """A jump at `place` to the address that lies in `slot`: kernels reach far functions by it."""
    if machine == X86_64:  # jmp *slot(%rip); int3 after it
        return b"\xff\x25" + struct.pack("<i", slot - place - 6) + b"\xcc" * 10
    # adrp x16, slot; ldr x17, [x16, low(slot)]; br x17; brk #0
    image = bytearray(struct.pack("<IIII", 0x90000010, 0xF9400211, 0xD61F0220, 0xD4200000))
    _page(image, 0, slot, place)
    _low12(3)(image, 4, slot, place)
    return bytes(image)
