"""Writing the zip files: same content, same bytes.

Names are sorted, times and permissions fixed, one deflate level. The shell prelude stands before the zip;
the offsets in the zip count from the start of the file, as zipimport and unzip expect. What the compressor
makes of the same content depends on the zlib of the Python that builds; with the same zlib two builds are
identical.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# The earliest time that a zip entry can carry; any fixed one would do.
_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_FILE_MODE = 0o100644
_LEVEL = 6
_LOCAL_HEADER_BYTES = 30  # APPNOTE.TXT 4.3.7, without the name
_LIBRARY = re.compile(r"\.(so|dylib|pyd|dll)(\.[0-9.]+)?$")
_BUNDLED = re.compile(r"^([^/]+)\.(libs|dylibs)/")


class BuildFailure(Exception):
    """The build stops; the message is one line that says why."""


class Part(NamedTuple):
    """How much of a file one top-level package takes, compressed."""

    name: str
    size_bytes: int


def write_archive(
    path: Path,
    prelude: bytes,
    files: Mapping[str, bytes],
    facts: Mapping[str, Any],
    lazy: Collection[str] = (),
) -> list[Part]:
    """Write an executable zip file; return what takes how much of it, largest first.

    The last entry is `startup.json`: `facts`, and under `libraries` where each native library lies in the
    file, so that the start-up code can inflate it piece by piece without ever holding it in memory.
    `lazy` are packages whose libraries a process loads for itself, when it needs them.
    """
    buffer = io.BytesIO()
    buffer.write(prelude)
    sizes: dict[str, int] = {}
    table = library_table(files, lazy)
    with zipfile.ZipFile(buffer, "w") as archive:

        def add(name: str, content: bytes) -> zipfile.ZipInfo:
            entry = zipfile.ZipInfo(name, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = _UNIX
            entry.external_attr = _FILE_MODE << 16
            archive.writestr(entry, content, compresslevel=_LEVEL)
            top = name.split("/", maxsplit=1)[0]
            sizes[top] = sizes.get(top, 0) + entry.compress_size
            return entry

        for name in sorted(files):
            entry = add(name, files[name])
            if name in table:
                # Entries carry neither extra fields nor data descriptors: the header has a fixed length.
                table[name]["offset"] = entry.header_offset + _LOCAL_HEADER_BYTES + len(name.encode())
                table[name]["size"] = entry.compress_size
        add("startup.json", json.dumps({**facts, "libraries": table}, sort_keys=True).encode())
    write_whole(path, buffer.getvalue(), mode=0o755)
    return sorted((Part(*item) for item in sizes.items()), key=lambda part: (-part.size_bytes, part.name))


def write_whole(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file at once: who runs or fetches it meanwhile gets the old bytes or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.chmod(mode)
    fresh.replace(path)


def library_table(files: Mapping[str, bytes], lazy: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Describe the native libraries for the start-up code: SHA-256, and what must lie beside them.

    A wheel keeps the libraries that its extension modules link to in `NAME.libs/`; the linker looks for them
    by their place relative to the module.
    """
    bundled: dict[str, list[str]] = {}
    for name in sorted(files):
        match = _BUNDLED.match(name)
        if match and _LIBRARY.search(name):
            bundled.setdefault(match.group(1), []).append(name)
    table: dict[str, dict[str, Any]] = {}
    for name in sorted(files):
        if not _LIBRARY.search(name):
            continue
        table[name] = {"sha256": sha256(files[name])}
        needs = [] if _BUNDLED.match(name) else bundled.get(name.split("/", maxsplit=1)[0], [])
        if needs:
            table[name]["needs"] = needs
        if name.split("/", maxsplit=1)[0] in lazy:
            table[name]["lazy"] = True
    return table


def sha256(content: bytes) -> str:
    """Return the SHA-256 of these bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def digest_of(items: Iterable[tuple[str, bytes]]) -> str:
    """Return one SHA-256 over named contents; neither names nor contents can run into one another."""
    total = hashlib.sha256()
    for name, content in sorted(items):
        total.update(f"{len(name.encode())}:{name}:{len(content)}:".encode())
        total.update(content)
    return total.hexdigest()
