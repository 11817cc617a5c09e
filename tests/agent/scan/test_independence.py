"""The property that several searches in one run give what as many runs would give."""

import contextlib
import gzip
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.module import Context
from agent.scan.search import FILTER_FIELDS
from tests.agent.scan.runs import grow, run
from tests.support.examples import USUAL_EXAMPLES

CONTENTS = [b"", b"alpha\n", b"beta\nalpha\n", b"gamma", b"\x00alpha\xff", b"beta\r\nbeta\r\n"]
PACKED = [gzip.compress(b"gamma", mtime=0), gzip.compress(b"beta\nalpha\n", mtime=0)[:-3]]
PATHS = [
    "", "a", "a/b", "a/b/c", "aa", "link", "link/x", "a/0", "a/b/link0", "*", "a/*", "**/0", "a/**", "*/b",
    "a*", "**/b/*", "absent", "absent/*", "a/b/c/..",
]  # fmt: skip
FILTERS_BY_FIELD = {field: name for name, field in FILTER_FIELDS.items()}
DIGESTS = [hashlib.sha256(content).hexdigest() for content in CONTENTS]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for directory in ("a", "a/b", "a/b/c", "aa", "aa/x", "z/link-target"):
        grow(root / directory, {str(number): content for number, content in enumerate(CONTENTS)})
    grow(root / "a/b", {f"{number}.gz": content for number, content in enumerate(PACKED)})
    (root / "link").symlink_to("a/b")
    (root / "a/b/link0").symlink_to("../../aa/4")
    (root / "a/up").symlink_to("..")
    (root / "a/b/dangling").symlink_to("nowhere")
    os.mkfifo(root / "aa/fifo")
    with contextlib.suppress(OSError):
        # Not every file system keeps them; the property holds on each.
        os.setxattr(root / "a/1", "user.origin", b"one")
    for number, path in enumerate(sorted(root.rglob("*"))):
        if not path.is_symlink() and path.is_file():
            path.chmod(0o600 + number % 8)
            os.utime(path, ns=(0, 10**18 + number % 5))
    return root


def some(*values: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True)


FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "names": some("0", "[1-3]", "!4", "^l", "."),
        "sizes": some("<6", ">6", "0"),
        "modes": some("x$", "!^-rw", "w$"),
        "contents": some("alpha", "!beta", "^beta$", r"\xff", "!alpha"),
        "ctimes": some("<1d", ">1d"),
        "owners": some("root", "!root", "nob0dy", "!nob0dy", "4711"),
        "groups": some("0", "!0"),
        "xattrs": some("origin", "!origin", "=one"),
        "capabilities": some("any", "!any"),
        "types": some("file", "directory", "link", "fifo", "!link"),
        "xxh3_128": st.just([xxhash.xxh3_128_hexdigest(b"gamma")]),
        "excludes": some("b", "[0-2]", "*/a/b", "*/**/c", "*/aa", "link"),
        "bytes": some("616c", "!616c", "ff", "0a"),
        "magics": some("gzip", "elf", "!gzip"),
        "entropies": some("<0", ">1.5", "<3"),
        "sha256": st.lists(st.sampled_from(DIGESTS), max_size=3, unique=True),
        "md5": st.just([hashlib.md5(b"gamma", usedforsecurity=False).hexdigest()]),
    },
).filter(lambda filters: any(values for name, values in filters.items() if name != "excludes"))


@st.composite
def searches(draw: st.DrawFn) -> dict[str, Any]:
    filters = draw(FILTERS)
    filled = [name for name, values in filters.items() if values and name != "excludes"]
    turned = [FILTERS_BY_FIELD[name] for name in draw(st.lists(st.sampled_from(filled), max_size=1))]
    options = {
        "matchall": draw(st.booleans()),
        "maxdepth": draw(st.sampled_from([0, 0, 1, 2])),
        "matchlimit": draw(st.sampled_from([0, 0, 1, 3])),
        "macroal": bool(filters.get("contents")) and draw(st.booleans()),
        "returnsha256": draw(st.booleans()),
        "mismatch": turned,
        "decompress": draw(st.booleans()),
        "onefilesystem": draw(st.booleans()),
        "remotefs": draw(st.booleans()),
        "returnhashes": draw(st.sampled_from([[], [], ["md5", "xxh3_128"]])),
        **draw(st.sampled_from([{}, {}, {}, {"newest": 2}, {"oldest": 3}])),
    }
    roots = draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=3))
    return {"paths": roots, **filters, "options": options}


def placed(search: Mapping[str, Any], root: Path) -> dict[str, Any]:
    # An exclusion that begins with a star stands for one below the tree.
    excludes = [value.replace("*", str(root), 1) for value in search.get("excludes", ())]
    excludes = [
        value if value.startswith("/") else given
        for value, given in zip(excludes, search.get("excludes", ()), strict=True)
    ]
    return {**search, "paths": [f"{root}/{path}" for path in search["paths"]], "excludes": excludes}


@pytest.mark.slow
@settings(max_examples=2 * USUAL_EXAMPLES)
@given(found=st.lists(searches(), min_size=2, max_size=4))
def test_searches_together_give_what_they_give_alone(tree: Path, found: list[dict[str, Any]]) -> None:
    named = {f"s{number}": placed(search, tree) for number, search in enumerate(found)}
    together = run(None, **named)
    for label, search in named.items():
        alone = run(Context(), **{label: search})
        of_label = [record for record in together.records if record["search"] == label]
        assert of_label == list(alone.records)
