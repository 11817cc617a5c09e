"""The SSH keys that stand in a file, whatever its format: which, on which line, with which options.

Sources: sshd(8), AUTHORIZED_KEYS FILE FORMAT; RFC 4716; `agent.platform.ssh_private` for private keys.
"""

import base64
import binascii
from typing import Iterator, List, NamedTuple, Optional, Tuple, Union

from agent.platform.ssh_blobs import ALGORITHMS, PublicKey, parse_public
from agent.platform.ssh_private import parse_pem, parse_putty

# Lines that may hold a key: for a search by content, so that not every file is taken apart.
MARKS = (
    r"^-----BEGIN ([A-Z]+ )?PRIVATE KEY-----|^---- BEGIN SSH2 PUBLIC KEY ----|^PuTTY-User-Key-File-"
    r"|(^|[ \t])(ssh-(rsa|dss|ed25519|ed448)|ecdsa-sha2-nistp[0-9]+|sk-[a-z0-9-]+)"
    r"(-cert-v01)?(@openssh\.com)?[ \t]+AAAA"
)
_MOST_OPTIONS = 64
_MOST_COMMENT = 256
_MOST_LINE = 1 << 16
_SSH2_BEGIN, _SSH2_END = b"---- BEGIN SSH2 PUBLIC KEY ----", b"---- END SSH2 PUBLIC KEY ----"


class FoundKey(NamedTuple):
    """A key in a file.

    `kind` is private, public, authorized or certificate. `options` are names; `origins` the patterns of the
    option from. What can not be told is None.
    """

    kind: str
    format: str
    public: Optional[PublicKey]
    line: Optional[int] = None
    is_encrypted: Optional[bool] = None
    comment: bytes = b""
    options: Tuple[bytes, ...] = ()
    origins: Tuple[bytes, ...] = ()
    has_command: bool = False


def parse_keys(data: bytes, name: bytes) -> Tuple[List[FoundKey], int]:
    """Return the keys of a file called so, and how many things that look like keys were not understood."""
    if data.startswith(b"PuTTY-User-Key-File-"):
        try:
            putty = parse_putty(data)
        except (ValueError, binascii.Error):
            return [], 1
        key = FoundKey("private", putty.format, putty.public, None, putty.is_encrypted, putty.comment)
        return [key], 0
    privates, broken = parse_pem(data)
    found = [FoundKey("private", one.format, one.public, is_encrypted=one.is_encrypted) for one in privates]
    for block in data.replace(b"\r\n", b"\n").split(_SSH2_BEGIN)[1:]:
        ssh2 = _parse_ssh2(block.partition(_SSH2_END)[0])
        found += [ssh2] if ssh2 is not None else []
        broken += ssh2 is None
    is_authorized = name.startswith(b"authorized_keys")
    for number, line in enumerate(data.split(b"\n"), 1):
        parsed = _parse_line(line.strip(), is_authorized=is_authorized)
        if isinstance(parsed, FoundKey):
            found.append(parsed._replace(line=number))
        else:
            broken += parsed
    return found, broken


def _parse_ssh2(block: bytes) -> Optional[FoundKey]:
    comment, lines, is_header = b"", [], False
    for line in block.strip(b"\n").split(b"\n"):
        if is_header or b":" in line:
            # A header goes on behind a backslash.
            is_header = line.endswith(b"\\")
            if line.lower().startswith(b"comment:"):
                comment = line[8:].strip().strip(b'"')
        else:
            lines.append(line)
    try:
        public = parse_public(base64.b64decode(b"".join(lines), validate=True))
    except (ValueError, binascii.Error):
        return None
    return FoundKey("public", "rfc4716", public, comment=comment[:_MOST_COMMENT])


def _parse_line(line: bytes, *, is_authorized: bool) -> Union[FoundKey, int]:
    """Return the key of a line; else 1 where it looks like one, 0 where it does not."""
    if not line or line.startswith(b"#") or len(line) > _MOST_LINE:
        return 0
    options: Tuple[bytes, ...] = ()
    rest = line
    if line.split(None, 1)[0] not in ALGORITHMS:
        end = _end_of_options(line)
        options, rest = tuple(_split_options(line[:end])), line[end:].strip()
        if not rest or rest.split(None, 1)[0] not in ALGORITHMS:
            return 1 if is_authorized else 0
    words = rest.split(None, 2)
    if len(words) < 2:  # noqa: PLR2004  (a kind and a key)
        return 1 if is_authorized else 0
    try:
        public = parse_public(base64.b64decode(words[1], validate=True))
    except (ValueError, binascii.Error):
        return 1
    if public.algorithm != words[0]:
        return 1
    names, origins = _names_and_origins(options)
    kind = (
        "certificate"
        if public.certificate is not None
        else "authorized"
        if is_authorized or options
        else "public"
    )
    return FoundKey(
        kind,
        "openssh",
        public,
        comment=words[2][:_MOST_COMMENT] if len(words) > 2 else b"",  # noqa: PLR2004  (what stands behind the key)
        options=names[:_MOST_OPTIONS],
        origins=origins[:_MOST_OPTIONS],
        has_command=b"command" in names,
    )


def _end_of_options(line: bytes) -> int:
    """Return where the options end: at the first blank that stands in no quotes."""
    is_quoted = False
    at = 0
    while at < len(line):
        letter = line[at : at + 1]
        if letter == b"\\" and line[at + 1 : at + 2] == b'"':
            at += 1
        elif letter == b'"':
            is_quoted = not is_quoted
        elif letter in (b" ", b"\t") and not is_quoted:
            break
        at += 1
    return at


def _split_options(text: bytes) -> Iterator[bytes]:
    """Yield options, split at commas that stand in no quotes."""
    part, is_quoted, at = bytearray(), False, 0
    while at < len(text):
        letter = text[at : at + 1]
        if letter == b"\\" and text[at + 1 : at + 2] == b'"':
            part += b'\\"'
            at += 2
            continue
        if letter == b'"':
            is_quoted = not is_quoted
        if letter == b"," and not is_quoted:
            yield bytes(part)
            part.clear()
        else:
            part += letter
        at += 1
    if part:
        yield bytes(part)


def _names_and_origins(options: Tuple[bytes, ...]) -> Tuple[Tuple[bytes, ...], Tuple[bytes, ...]]:
    names: List[bytes] = []
    origins: List[bytes] = []
    for option in options:
        name, _, value = option.partition(b"=")
        # Of environment="NAME=value" and command="..." the name is all that is told.
        names.append(name.lower()[:64])
        if name.lower() == b"from":
            origins += [origin[:_MOST_COMMENT] for origin in value.strip(b'"').split(b",") if origin]
    return tuple(names), tuple(origins)
