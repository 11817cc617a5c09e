"""The property that every filter, `!`, `mismatch`, `matchall` and any-of means the same everywhere.

Held against an oracle that knows nothing of plans, walks and readings: it looks at each file by itself.
"""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.search import FILTER_FIELDS
from tests.agent.scan.runs import grow, paths, run

ALTERNATIVES = ("owner", "group", "type", "magic", "sha256", "md5")
MAGICS = {"elf": b"\x7fELF", "script": b"#!", "png": b"\x89PNG\r\n\x1a\n"}
TYPES = {
    "file": stat.S_ISREG,
    "directory": stat.S_ISDIR,
    "link": stat.S_ISLNK,
    "fifo": stat.S_ISFIFO,
}
CONTENTS = [b"", b"alpha\n", b"\x7fELF alpha\nbeta\n", b"#!/bin/sh\nbeta\n", b"\x89PNG\r\n\x1a\n\xff\xfe"]
DIGESTS = [hashlib.sha256(content).hexdigest() for content in CONTENTS]


class Seen(NamedTuple):
    """One entry as the oracle sees it; `content` is None where nothing is read."""

    name: str
    status: os.stat_result
    content: bytes | None


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("semantics")
    for directory in ("a", "a/b"):
        grow(root / directory, {f"f{number}": content for number, content in enumerate(CONTENTS)})
    (root / "a/link1").symlink_to("f1")
    (root / "a/to-directory").symlink_to("b")
    os.mkfifo(root / "a/b/fifo")
    for number, path in enumerate(sorted(root.rglob("f[0-9]"))):
        path.chmod((0o644, 0o4755, 0o600)[number % 3])
        os.utime(path, ns=(0, 10**18))
        if os.geteuid() == 0:
            os.chown(path, 60_001 * (number % 2), 60_002 * (number % 3 == 0))
            # Giving a file away takes its setuid bit.
            path.chmod((0o644, 0o4755, 0o600)[number % 3])
    return root


def entries(root: Path, *, is_typed: bool) -> Iterator[tuple[str, Seen]]:
    if is_typed:
        yield ".", Seen(root.name, root.lstat(), None)
    for path in root.rglob("*"):
        status = path.lstat() if is_typed or not path.exists() else path.stat()
        is_file = stat.S_ISREG(status.st_mode)
        if is_typed or is_file:
            content = path.read_bytes() if is_file else None
            yield str(path.relative_to(root)), Seen(path.name, status, content)


def in_content(test: Callable[[bytes], bool]) -> Callable[[Seen], bool | None]:
    return lambda seen: None if seen.content is None else test(seen.content)


def size_truth(value: str) -> Callable[[Seen], bool]:
    size = int(value.lstrip("<>"))
    compare = {"<": lambda found: found <= size, ">": lambda found: found >= size}
    return lambda seen: bool(compare.get(value[0], lambda found: found == size)(seen.status.st_size))


TRUTHS: dict[str, Callable[[Any], Callable[[Seen], bool | None]]] = {
    "name": lambda value: lambda seen: re.search(value, seen.name) is not None,
    "size": size_truth,
    "mode": lambda _: lambda seen: bool(seen.status.st_mode & stat.S_ISUID),
    "mtime": lambda value: lambda seen: (seen.status.st_mtime_ns == 10**18) is (value[0] == ">"),
    "owner": lambda values: lambda seen: str(seen.status.st_uid) in values,
    "group": lambda values: lambda seen: str(seen.status.st_gid) in values,
    "type": lambda values: lambda seen: any(TYPES[value](seen.status.st_mode) for value in values),
    "content": lambda value: in_content(
        lambda content: any(re.search(value.encode(), line) for line in content.splitlines())
    ),
    "bytes": lambda value: in_content(lambda content: bytes.fromhex(value) in content),
    "magic": lambda values: in_content(
        lambda content: any(content.startswith(MAGICS[value]) for value in values)
    ),
    "sha256": lambda values: in_content(lambda content: hashlib.sha256(content).hexdigest() in values),
    "md5": lambda values: in_content(
        lambda content: hashlib.md5(content, usedforsecurity=False).hexdigest() in values
    ),
}


def expected(root: Path, filters: dict[str, list[str]], mismatch: list[str], *, matchall: bool) -> set[str]:
    checks: list[tuple[bool, Callable[[Seen], bool | None]]] = []
    for name, values in filters.items():
        is_turned = name in mismatch
        plain = [value for value in values if not value.startswith("!")]
        groups = [plain] if name in ALTERNATIVES and plain else plain
        checks += [(not is_turned, TRUTHS[name](group)) for group in groups]
        for value in values:
            if value.startswith("!"):
                inner = value[1:]
                checks.append((is_turned, TRUTHS[name]([inner] if name in ALTERNATIVES else inner)))
    judge = all if matchall else any
    return {
        path
        for path, seen in entries(root, is_typed="type" in filters)
        if judge(truth(seen) is wanted for wanted, truth in checks)
    }


def some(*values: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True)


FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "name": some("1", "!1", "^f", "k"),
        "size": some("<6", ">6", "0", "6"),
        "mode": some("^u", "!^u"),
        "mtime": some(">1d", "<1d"),
        "owner": some("0", "60001", "!0", "!60001"),
        "group": some("0", "60002", "!60002"),
        "type": some("file", "directory", "link", "fifo", "!file", "!link"),
        "content": some("alpha", "!alpha", "^beta$", "ELF"),
        "bytes": some("616c", "!616c", "fffe", "0a23", "!00"),
        "magic": some("elf", "script", "png", "!elf", "!png"),
        "sha256": st.lists(st.sampled_from(DIGESTS), min_size=1, max_size=3, unique=True),
        "md5": st.just([hashlib.md5(CONTENTS[1], usedforsecurity=False).hexdigest()]),
    },
).filter(bool)


@given(filters=FILTERS, data=st.data(), matchall=st.booleans())
def test_a_search_finds_what_its_checks_say_of_each_file_by_itself(
    tree: Path, filters: dict[str, list[str]], data: st.DataObject, *, matchall: bool
) -> None:
    mismatch = data.draw(st.lists(st.sampled_from(sorted(filters)), max_size=2, unique=True))
    search = {FILTER_FIELDS[name]: values for name, values in filters.items()}
    result = run(s1={"paths": [str(tree)], **search, "options": {"matchall": matchall, "mismatch": mismatch}})
    found = [path if path != str(tree) else "." for path in paths(result, tree)]
    assert len(found) == len(set(found))
    assert set(found) == expected(tree, filters, mismatch, matchall=matchall)
