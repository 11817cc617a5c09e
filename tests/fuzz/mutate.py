"""Makes hostile bytes of seeds: bytes flipped, cut, doubled, moved, and pieces that parsers stumble over."""

from random import Random

_PIECES = (
    *(
        b"[",
        b"{",
        b'"',
        b"\\u0000",
        b"\\ud800",
        b"\x00",
        b"\xff",
        b"\r",
        b"\n\n",
        b"'",
        b"--",
        b"NaN",
        b"1e999",
    ),
    *(
        b"-1",
        b"9" * 30,
        b"[" * 300,
        b"\x80" * 8,
        b"\xff\xff\xff\xff",
        b"..",
        b"/",
        b"=",
        b"%",
        b"\xe2\x80\xae",
    ),
)
_MOST = 6


def mutate(seed: bytes, random: Random) -> bytes:
    """Return a seed with a few changes; the same `random` gives the same bytes."""
    data = bytearray(seed)
    for _ in range(random.randint(1, _MOST)):
        at, length = random.randint(0, len(data)), random.randint(1, 16)
        match random.randrange(5):
            case 0:
                data[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[max(0, at - length) : at]
            case 3:
                data[at:at] = random.choice(_PIECES)
            case _:
                data = data[:at] if random.random() < 0.1 else data + data[:at]
    return bytes(data)
