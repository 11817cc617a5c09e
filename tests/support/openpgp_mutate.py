"""Strategies that change good OpenPGP data: octets, packets, lengths, subpackets."""

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from protocol.openpgp_packets import SIGNATURE, Packet, Refusal, parse_signature, split_packets
from tests.support.openpgp_forge import old_packet, packet

Draw = st.DataObject
_LAST_OLD_TAG = 15
_NEW = 5  # octets of length in a new header


def mutate(data: st.DataObject, original: bytes, foreign: Sequence[bytes]) -> bytes:
    """Draw `original` with one to three changes; `foreign` are packets that may be put into it."""
    changed = original
    for _ in range(data.draw(st.integers(1, 3), label="changes")):
        try:
            packets = split_packets(changed, 100)
        except Refusal:
            packets = []
        kinds = [*_OF_OCTETS, *(_OF_PACKETS if packets else [])]
        change = data.draw(st.sampled_from(kinds), label="change")
        changed = change(data, changed, packets, foreign)
    return changed


def _flip(data: Draw, octets: bytes, _packets: list[Packet], _foreign: Sequence[bytes]) -> bytes:
    if not octets:
        return octets
    at = data.draw(st.integers(0, len(octets) - 1), label="octet")
    return octets[:at] + bytes([octets[at] ^ data.draw(st.integers(1, 255), label="bits")]) + octets[at + 1 :]


def _cut(data: Draw, octets: bytes, _packets: list[Packet], _foreign: Sequence[bytes]) -> bytes:
    start = data.draw(st.integers(0, len(octets)), label="from")
    return octets[:start] + octets[data.draw(st.integers(start, len(octets)), label="to") :]


def _insert(data: Draw, octets: bytes, _packets: list[Packet], foreign: Sequence[bytes]) -> bytes:
    """Put something anywhere, packet boundary or not."""
    at = data.draw(st.integers(0, len(octets)), label="at")
    new = data.draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(foreign)), label="new")
    return octets[:at] + new + octets[at:]


def _append(data: Draw, octets: bytes, _packets: list[Packet], foreign: Sequence[bytes]) -> bytes:
    return octets + data.draw(st.sampled_from(foreign), label="appended")


def _reorder(data: Draw, _octets: bytes, packets: list[Packet], _foreign: Sequence[bytes]) -> bytes:
    return _joined(data.draw(st.permutations(packets), label="order"))


def _remove(data: Draw, _octets: bytes, packets: list[Packet], _foreign: Sequence[bytes]) -> bytes:
    at = data.draw(st.integers(0, len(packets) - 1), label="removed")
    return _joined(packets[:at] + packets[at + 1 :])


def _repeat(data: Draw, _octets: bytes, packets: list[Packet], _foreign: Sequence[bytes]) -> bytes:
    again = data.draw(st.sampled_from(packets), label="repeated")
    at = data.draw(st.integers(0, len(packets)), label="at")
    return _joined([*packets[:at], again, *packets[at:]])


def _splice(data: Draw, _octets: bytes, packets: list[Packet], foreign: Sequence[bytes]) -> bytes:
    """Put a foreign packet between two."""
    at = data.draw(st.integers(0, len(packets)), label="at")
    new = data.draw(st.sampled_from(foreign), label="foreign")
    return _joined(packets[:at]) + new + _joined(packets[at:])


def _exchange_bodies(data: Draw, _octets: bytes, packets: list[Packet], foreign: Sequence[bytes]) -> bytes:
    """Give a packet the body of a foreign one, under its own tag."""
    at = data.draw(st.integers(0, len(packets) - 1), label="at")
    [new] = split_packets(data.draw(st.sampled_from(foreign), label="foreign"), 1)
    return _joined([*packets[:at], packets[at]._replace(body=new.body), *packets[at + 1 :]])


def _change_length(data: Draw, _octets: bytes, packets: list[Packet], _foreign: Sequence[bytes]) -> bytes:
    """Write one header anew: another form of it, or a length that is not the body's."""
    at = data.draw(st.integers(0, len(packets) - 1), label="at")
    tag, body = packets[at]
    claimed = max(0, len(body) + data.draw(st.sampled_from([0, 0, -1, 1, -2, 256, 65536]), label="longer by"))
    old = [size for size in (1, 2, 4) if claimed < 256**size]
    size = data.draw(st.sampled_from([_NEW, *([0, *old] if tag <= _LAST_OLD_TAG else [])]), label="octets")
    if size == _NEW:
        header = packet(tag, b"")[:2] + claimed.to_bytes(4, "big")
    else:
        header = old_packet(tag, b"", size)[:1] + (claimed.to_bytes(size, "big") if size else b"")
    return _joined(packets[:at]) + header + body + _joined(packets[at + 1 :])


def _move_subpacket(data: Draw, _octets: bytes, packets: list[Packet], _foreign: Sequence[bytes]) -> bytes:
    """Move, copy, remove or mark as critical one subpacket of one signature."""
    signed = [at for at, packet in enumerate(packets) if _is_version_4(packet)]
    if not signed:
        return _joined(packets)
    at = data.draw(st.sampled_from(signed), label="signature")
    try:
        parsed = parse_signature(packets[at].body)
        areas = (_subpackets(parsed.hashed_area), _subpackets(parsed.unhashed_area))
    except Refusal:
        return _joined(packets)
    places = [(area, index) for area in (0, 1) for index in range(len(areas[area]))]
    if not places:
        return _joined(packets)
    area, index = data.draw(st.sampled_from(places), label="subpacket")
    what = data.draw(st.sampled_from(["move", "copy", "remove", "criticality"]), label="what")
    chosen = areas[area][index]
    if what != "copy":
        del areas[area][index]
    if what == "criticality":
        areas[area].insert(index, _with_criticality(chosen))
    elif what != "remove":
        areas[1 - area].insert(data.draw(st.integers(0, len(areas[1 - area])), label="to"), chosen)
    hashed, unhashed = (b"".join(parts) for parts in areas)
    body = b"%b%b%b%b%b%b%b" % (
        parsed.hashed_part[:4],
        len(hashed).to_bytes(2, "big"),
        hashed,
        len(unhashed).to_bytes(2, "big"),
        unhashed,
        parsed.digest_start,
        parsed.values,
    )
    return _joined([*packets[:at], packets[at]._replace(body=body), *packets[at + 1 :]])


def _is_version_4(candidate: Packet) -> bool:
    return candidate.tag == SIGNATURE and candidate.body[:1] == b"\x04"


def _length_octets(area: bytes) -> tuple[int, int]:
    """Return octets of, and value of, the length of a subpacket."""
    if area[0] < 192:
        return 1, area[0]
    if area[0] < 255:
        return 2, ((area[0] - 192) << 8) + int.from_bytes(area[1:2], "big") + 192
    return 5, int.from_bytes(area[1:5], "big")


def _subpackets(area: bytes) -> list[bytes]:
    """Split an area without judging it."""
    whole = []
    while area:
        octets, length = _length_octets(area)
        whole.append(area[: octets + length])
        area = area[octets + length :]
    return whole


def _with_criticality(subpacket: bytes) -> bytes:
    at, _ = _length_octets(subpacket)
    return subpacket[:at] + bytes(octet ^ 0x80 for octet in subpacket[at : at + 1]) + subpacket[at + 1 :]


def _joined(packets: Sequence[Packet]) -> bytes:
    return b"".join(packet(tag, body) for tag, body in packets)


Change = Callable[[Draw, bytes, list[Packet], Sequence[bytes]], bytes]
_OF_OCTETS: list[Change] = [_flip, _cut, _insert, _append]
_OF_PACKETS: list[Change] = [
    _reorder,
    _remove,
    _repeat,
    _splice,
    _exchange_bodies,
    _change_length,
    _move_subpacket,
]
