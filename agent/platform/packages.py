"""What is known of an installed package and of the files that it should have, whatever system it belongs to.

Each `agent.platform.packages_*` reads the databases of one family as data: no tool of the endpoint is run, so
that one that was tampered with cannot lie, the databases of an image or container are read in the same way,
and nothing is locked or written.
"""

from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from agent.scan.texts import path_text

# Of what an answer says of one package; longer is cut.
_MOST_CHARACTERS = 512


class Package(NamedTuple):
    """An installed package.

    `key` is what its own system needs to find its manifest again. `installed_s` are seconds since 1970,
    `path` is where it was found, for systems without one database.
    """

    type: str
    name: str
    version: str
    arch: Optional[str] = None
    source: Optional[str] = None
    state: Optional[str] = None
    installed_s: Optional[int] = None
    size_bytes: Optional[int] = None
    revision: Optional[str] = None
    path: Optional[bytes] = None
    key: bytes = b""


class Expected(NamedTuple):
    """What a file of a package should be, as far as the manifest says; None is not said.

    `kind` is `file`, `directory` or `link`; `digest` in hexadecimal by hashlib's `algorithm`. `is_config`
    files are meant to be changed; `may_miss` ones need not be there.
    """

    path: bytes
    kind: Optional[str] = None
    algorithm: str = ""
    digest: Optional[str] = None
    size_bytes: Optional[int] = None
    mode: Optional[int] = None
    user: Optional[str] = None
    group: Optional[str] = None
    target: Optional[bytes] = None
    mtime_s: Optional[int] = None
    is_config: bool = False
    may_miss: bool = False


def field_text(value: bytes) -> str:
    """Return a field of a database as text: bounded, what is not UTF-8 escaped."""
    return path_text(value[: 4 * _MOST_CHARACTERS])[:_MOST_CHARACTERS]


def number(value: Optional[bytes]) -> Optional[int]:
    """Return a field that should be a number; None where it is none."""
    text = (value or b"").strip()
    return int(text) if text.isdigit() and len(text) < 20 else None  # noqa: PLR2004  (below 2^63)


def stanzas(data: bytes) -> Iterator[Dict[bytes, bytes]]:
    """Yield the paragraphs of a control file (deb822(5)): fields by their name in lower case.

    Continuation lines are joined with line ends. What is no field is left out.
    """
    for block in data.replace(b"\r\n", b"\n").split(b"\n\n"):
        fields: Dict[bytes, List[bytes]] = {}
        current: Optional[List[bytes]] = None
        for line in block.split(b"\n"):
            if line[:1] in (b" ", b"\t"):
                if current is not None:
                    current.append(line.strip())
                continue
            name, colon, value = line.partition(b":")
            current = fields.setdefault(name.lower(), []) if colon else None
            if current is not None:
                current.append(value.strip())
        if fields:
            yield {name: b"\n".join(lines) for name, lines in fields.items()}


def name_and_version(fields: Dict[bytes, bytes]) -> Optional[Tuple[str, str]]:
    """Return what a paragraph calls the package and its version; None where it lacks one of them."""
    name = fields.get(b"package") or fields.get(b"name")
    version = fields.get(b"version")
    return (field_text(name), field_text(version)) if name and version else None
