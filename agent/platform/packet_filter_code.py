"""Compiles a packet filter to classic BPF, which the kernel runs on every packet before we see it.

Rules:

* Jumps only go forward, and a program has at most 4,096 instructions: the kernel refuses all else, and each
  program ends. Where a conditional jump cannot reach (255 instructions), it goes by way of a plain one.
* What a packet is too short for is no match, whatever the expression says: a load behind its end rejects it.
* Ports are not looked for in fragments but the first, nor behind extension headers of IPv6, as by tcpdump(8).

On a socket of kind SOCK_DGRAM a packet begins with its network header, whatever the interface is, and the
kernel tells its protocol (`COOKED`). `ETHERNET` is for packets that begin with the header of the link.

Sources: net/core/filter.c and include/uapi/linux/filter.h of Linux (SKF_AD_PROTOCOL);
https://www.kernel.org/doc/html/latest/networking/filter.html; RFC 791, 8200, 826.
"""

import struct
from typing import Dict, List, NamedTuple, Optional, Tuple

from agent.platform.packet_filter import (
    Both,
    Either,
    Expression,
    FilterError,
    Kind,
    Network,
    Not,
    Place,
    Ports,
)

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_FAR = 255
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
LD_W, LD_H, LD_B = 0x20, 0x28, 0x30  # BPF_LD | BPF_ABS
LD_H_IND = 0x48  # BPF_LD | BPF_H | BPF_IND
LDX_MSH = 0xB1  # BPF_LDX | BPF_B | BPF_MSH: 4 * (packet[k] & 15)
AND_K = 0x54
JA, JEQ, JGT, JGE, JSET = 0x05, 0x15, 0x25, 0x35, 0x45
RET_K = 0x06
_AD_PROTOCOL = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL

_IP, _IP6, _ARP, _RARP = 0x0800, 0x86DD, 0x0806, 0x8035
_ICMP, _TCP, _UDP, _FRAGMENT, _ICMP6, _SCTP = 1, 6, 17, 44, 58, 132
_NUMBERS: Dict[str, Tuple[int, ...]] = {"tcp": (_TCP,), "udp": (_UDP,), "": (_TCP, _UDP, _SCTP)}
# Places in the headers, from where these begin.
_IP_PROTOCOL, _IP_FRAGMENT, _IP_SOURCE, _IP_TARGET = 9, 6, 12, 16
_IP6_NEXT, _IP6_SOURCE, _IP6_TARGET, _IP6_HEADER = 6, 8, 24, 40
_ARP_SOURCE, _ARP_TARGET = 14, 24
_OFFSET_BITS = 0x1FFF
_WORD_BITS = 32


class Link(NamedTuple):
    """By which instruction a packet's protocol is read, and where its network header begins."""

    load_protocol: Tuple[int, int]
    base: int


COOKED = Link((LD_W, _AD_PROTOCOL), 0)
ETHERNET = Link((LD_H, 12), 14)


class Instruction(NamedTuple):
    """One instruction: how far to jump where its condition holds, and where not; its operand."""

    code: int
    jt: int
    jf: int
    k: int


class _Label:
    """A place in the program that is known when all is laid out."""

    def __init__(self) -> None:
        self.at: Optional[int] = None


class _Step(NamedTuple):
    code: int
    k: int
    # Of a conditional jump; both are None for what only goes on.
    where: Optional[_Label] = None
    otherwise: Optional[_Label] = None


def compile_filter(tree: Optional[Expression], accept_bytes: int, link: Link = COOKED) -> List[Instruction]:
    """Return the program that accepts so many bytes of a packet that an expression holds for.

    Raises:
        FilterError: it takes more instructions than the kernel takes.

    """
    made = _Maker(link)
    accept, reject = _Label(), _Label()
    if tree is not None:
        made.expression(tree, accept, reject)
    made.mark(accept)
    made.step(RET_K, accept_bytes)
    made.mark(reject)
    made.step(RET_K, 0)
    return made.laid_out()


def pack_program(program: List[Instruction]) -> bytes:
    """Return the program as the kernel takes it: an array of struct sock_filter."""
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


class _Maker:
    """Makes steps, with labels in between, then lays them out."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._steps: List[object] = []

    def mark(self, label: _Label) -> None:
        self._steps.append(label)

    def step(self, code: int, k: int) -> None:
        self._steps.append(_Step(code, k))

    def _jump(self, code: int, k: int, where: _Label, otherwise: _Label) -> None:
        self._steps.append(_Step(code, k, where, otherwise))

    def expression(self, tree: Expression, holds: _Label, fails: _Label) -> None:
        """Make the steps that lead to one of two labels."""
        if isinstance(tree, Not):
            self.expression(tree.inner, fails, holds)
        elif isinstance(tree, (Both, Either)):
            then = _Label()
            left = (then, fails) if isinstance(tree, Both) else (holds, then)
            self.expression(tree.left, *left)
            self.mark(then)
            self.expression(tree.right, holds, fails)
        elif isinstance(tree, Kind):
            self._kind(tree, holds, fails)
        elif isinstance(tree, Place):
            self._place(tree, holds, fails)
        else:
            self._ports(tree, holds, fails)

    def _if_protocol(self, number: int, holds: _Label, fails: _Label) -> None:
        self.step(*self._link.load_protocol)
        self._jump(JEQ, number, holds, fails)

    def _kind(self, tree: Kind, holds: _Label, fails: _Label) -> None:
        links = {"ip": _IP, "ip6": _IP6, "arp": _ARP}
        if tree.protocol in links:
            self._if_protocol(links[tree.protocol], holds, fails)
            return
        is_ip, not_ip, is_ip6 = _Label(), _Label(), _Label()
        if tree.protocol == "icmp":
            self._if_protocol(_IP, is_ip, fails)
            self._ip_number((_ICMP,), is_ip, holds, fails)
            return
        numbers = (_ICMP6,) if tree.protocol == "icmp6" else _NUMBERS[tree.protocol]
        if tree.protocol != "icmp6":
            self._if_protocol(_IP, is_ip, not_ip)
            self._ip_number(numbers, is_ip, holds, fails)
            self.mark(not_ip)
        self._if_protocol(_IP6, is_ip6, fails)
        self._ip6_number(numbers[0], is_ip6, holds, fails)

    def _ip_number(self, numbers: Tuple[int, ...], begin: _Label, holds: _Label, fails: _Label) -> None:
        self.mark(begin)
        self.step(LD_B, self._link.base + _IP_PROTOCOL)
        self._one_of(numbers, holds, fails)

    def _ip6_number(self, number: int, begin: _Label, holds: _Label, fails: _Label) -> None:
        """Also where it follows a header of fragments, as tcpdump has it."""
        other, fragment = _Label(), _Label()
        self.mark(begin)
        self.step(LD_B, self._link.base + _IP6_NEXT)
        self._jump(JEQ, number, holds, other)
        self.mark(other)
        self._jump(JEQ, _FRAGMENT, fragment, fails)
        self.mark(fragment)
        self.step(LD_B, self._link.base + _IP6_HEADER)
        self._jump(JEQ, number, holds, fails)

    def _one_of(self, numbers: Tuple[int, ...], holds: _Label, fails: _Label) -> None:
        for number in numbers[:-1]:
            other = _Label()
            self._jump(JEQ, number, holds, other)
            self.mark(other)
        self._jump(JEQ, numbers[-1], holds, fails)

    def _place(self, tree: Place, holds: _Label, fails: _Label) -> None:
        base = self._link.base
        ip, other = _Label(), _Label()
        if tree.network.version == 6:  # noqa: PLR2004  (of IPv6)
            self._if_protocol(_IP6, ip, fails)
            self.mark(ip)
            self._addresses(tree, (base + _IP6_SOURCE, base + _IP6_TARGET), holds, fails)
            return
        self._if_protocol(_IP, ip, fails if tree.is_ip_only else other)
        self.mark(ip)
        self._addresses(tree, (base + _IP_SOURCE, base + _IP_TARGET), holds, fails)
        if tree.is_ip_only:
            return
        arp, not_arp = _Label(), _Label()
        self.mark(other)
        self._if_protocol(_ARP, arp, not_arp)
        self.mark(not_arp)
        self._jump(JEQ, _RARP, arp, fails)
        self.mark(arp)
        self._addresses(tree, (base + _ARP_SOURCE, base + _ARP_TARGET), holds, fails)

    def _addresses(self, tree: Place, offsets: Tuple[int, int], holds: _Label, fails: _Label) -> None:
        """Look at the addresses of source and target, or at the one that is asked for."""
        source, target = offsets
        if tree.direction:
            self._address(tree.network, source if tree.direction == "src" else target, holds, fails)
            return
        other = _Label()
        self._address(tree.network, source, holds, other)
        self.mark(other)
        self._address(tree.network, target, holds, fails)

    def _address(self, network: Network, offset: int, holds: _Label, fails: _Label) -> None:
        value, mask = int(network.network_address), int(network.netmask)
        shifts = range(network.max_prefixlen - _WORD_BITS, -1, -_WORD_BITS)
        # Words of which no bit is asked for need no look; with none at all every address will do.
        words = [
            (place, value >> shift & 0xFFFFFFFF, mask >> shift & 0xFFFFFFFF)
            for place, shift in enumerate(shifts)
            if mask >> shift & 0xFFFFFFFF
        ]
        if not words:
            self.step(LD_B, offset)
            self._jump(JGE, 0, holds, fails)
        for number, (place, word, bits) in enumerate(words, 1):
            following = holds if number == len(words) else _Label()
            self.step(LD_W, offset + place * 4)
            if bits != 0xFFFFFFFF:  # noqa: PLR2004  (all bits)
                self.step(AND_K, bits)
            self._jump(JEQ, word, following, fails)
            if following is not holds:
                self.mark(following)

    def _ports(self, tree: Ports, holds: _Label, fails: _Label) -> None:
        base, numbers = self._link.base, _NUMBERS[tree.protocol]
        ip, not_ip, ip_carries, whole, ip6, ip6_carries = (_Label() for _ in range(6))
        self._if_protocol(_IP, ip, not_ip)
        self._ip_number(numbers, ip, ip_carries, fails)
        self.mark(ip_carries)
        self.step(LD_H, base + _IP_FRAGMENT)
        self._jump(JSET, _OFFSET_BITS, fails, whole)
        self.mark(whole)
        self.step(LDX_MSH, base)
        self._either_port(tree, LD_H_IND, base, holds, fails)
        self.mark(not_ip)
        self._if_protocol(_IP6, ip6, fails)
        self.mark(ip6)
        self.step(LD_B, base + _IP6_NEXT)
        self._one_of(numbers, ip6_carries, fails)
        self.mark(ip6_carries)
        self._either_port(tree, LD_H, base + _IP6_HEADER, holds, fails)

    def _either_port(self, tree: Ports, load: int, offset: int, holds: _Label, fails: _Label) -> None:
        if tree.direction != "dst":
            other = fails if tree.direction else _Label()
            self._port(tree, load, offset, holds, other)
            if tree.direction:
                return
            self.mark(other)
        self._port(tree, load, offset + 2, holds, fails)

    def _port(self, tree: Ports, load: int, offset: int, holds: _Label, fails: _Label) -> None:
        self.step(load, offset)
        if tree.low == tree.high:
            self._jump(JEQ, tree.low, holds, fails)
            return
        above = _Label()
        self._jump(JGE, tree.low, above, fails)
        self.mark(above)
        self._jump(JGT, tree.high, fails, holds)

    def laid_out(self) -> List[Instruction]:
        """Return the steps as instructions; jumps that reach too far go by way of plain ones."""
        far: Dict[int, bool] = {}
        while True:
            program, too_far = self._attempt(far)
            if not too_far:
                break
            # Each way makes the program longer, so that others may reach too far in turn.
            far.update(dict.fromkeys(too_far, True))
        if len(program) > MAX_INSTRUCTIONS:
            raise FilterError(f"it takes {len(program)} instructions, at most {MAX_INSTRUCTIONS}")
        return program

    def _attempt(self, far: Dict[int, bool]) -> Tuple[List[Instruction], List[int]]:
        at = 0
        for number, item in enumerate(self._steps):
            if isinstance(item, _Label):
                item.at = at
            else:
                at += 3 if far.get(number) else 1
        program: List[Instruction] = []
        too_far: List[int] = []
        for number, item in enumerate(self._steps):
            if not isinstance(item, _Step):
                continue
            here = len(program) + 1
            if item.where is None or item.otherwise is None:
                program.append(Instruction(item.code, 0, 0, item.k))
                continue
            jt, jf = ((label.at or 0) - here for label in (item.where, item.otherwise))
            if far.get(number):
                program.append(Instruction(item.code, 0, 1, item.k))
                program.append(Instruction(JA, 0, 0, jt - 1))
                program.append(Instruction(JA, 0, 0, jf - 2))
                continue
            if max(jt, jf) > _FAR:
                too_far.append(number)
                jt, jf = min(jt, _FAR), min(jf, _FAR)
            program.append(Instruction(item.code, jt, jf, item.k))
        return program, too_far
