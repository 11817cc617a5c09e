"""A second machine for classic BPF, to hold programs against: it knows all that tcpdump makes use of.

Source: https://www.kernel.org/doc/html/latest/networking/filter.html; bpf(4) of the BSDs.
"""

from collections.abc import Sequence

AD_PROTOCOL = 0xFFFFF000
Code = tuple[int, int, int, int]
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET = range(7)
_SIZES = {0: 4, 0x08: 2, 0x10: 1}


class _TooShort(Exception):
    """A load behind the packet's end: the packet is rejected."""


class _Machine:
    def __init__(self, packet: bytes, protocol: int) -> None:
        self.packet = packet
        self.protocol = protocol
        self.a = self.x = 0
        self.memory = [0] * 16

    def load(self, code: int, k: int) -> int:
        """Return what an instruction of the two kinds of loads loads."""
        mode = code & 0xE0
        plain = {0: k, 0x60: self.memory[k & 15], 0x80: len(self.packet)}
        if mode in plain:
            return plain[mode]
        if code == 0x20 and k == AD_PROTOCOL:
            return self.protocol
        if mode == 0xA0:
            return (self._bytes(k, 1) & 15) * 4
        return self._bytes(k + (self.x if mode == 0x40 else 0), _SIZES[code & 0x18])

    def _bytes(self, begin: int, size: int) -> int:
        if begin + size > len(self.packet):
            raise _TooShort
        return int.from_bytes(self.packet[begin : begin + size], "big")

    def holds(self, code: int, k: int) -> bool:
        """Tell whether the condition of a jump holds."""
        operand = self.x if code & 8 else k
        return {
            0x10: self.a == operand,
            0x20: self.a > operand,
            0x30: self.a >= operand,
            0x40: bool(self.a & operand),
        }[code & 0xF0]

    def step(self, code: int, k: int) -> None:
        """Do what neither jumps nor returns."""
        kind = code & 7
        if kind == _LD:
            self.a = self.load(code, k)
        elif kind == _LDX:
            self.x = self.load(code, k)
        elif kind in (_ST, _STX):
            self.memory[k] = self.a if kind == _ST else self.x
        elif kind == _ALU:
            self.a = _alu(code & 0xF0, self.a, self.x if code & 8 else k)
        elif code & 0xF8:
            self.a = self.x
        else:
            self.x = self.a


def run_bpf(program: Sequence[Code], packet: bytes, protocol: int = 0) -> int:
    """Return how many bytes of a packet a program accepts; 0 for a load behind its end."""
    machine = _Machine(packet, protocol)
    at = 0
    while True:
        code, jt, jf, k = program[at]
        at += 1
        if code & 7 == _RET:
            return machine.a if code & 0x18 == 0x10 else k
        if code & 7 == _JMP:
            at += k if not code & 0xF0 else jt if machine.holds(code, k) else jf
            continue
        try:
            machine.step(code, k)
        except _TooShort:
            return 0


def _alu(operation: int, a: int, b: int) -> int:
    results = {
        0x00: a + b, 0x10: a - b, 0x20: a * b, 0x40: a | b, 0x50: a & b, 0x60: a << (b & 31),
        0x70: a >> (b & 31), 0x80: -a, 0xA0: a ^ b,
    }  # fmt: skip
    return results[operation] & 0xFFFFFFFF
