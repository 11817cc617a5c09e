"""Tests of telling owners and groups by the endpoint's own files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.accounts import Accounts
from agent.scan.plan import make_plan
from agent.scan.search import Search

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
eve:x:1001:1001::/home/eve:/bin/sh
eve:x:7:7::/:/bin/sh
+@nis
broken
name:x:notanumber:
\xff\xfe:x:1002:1002::/:/bin/sh
"""


def accounts(tmp_path: Path) -> Accounts:
    (tmp_path / "passwd").write_bytes(PASSWD)
    (tmp_path / "group").write_text("wheel:x:10:root,eve\n")
    return Accounts(str(tmp_path / "passwd"), str(tmp_path / "group"))


def test_names_are_those_of_the_files_and_the_first_of_two_counts(tmp_path: Path) -> None:
    known = accounts(tmp_path)
    assert (known.number("owner", "root"), known.number("owner", "eve")) == (0, 1001)
    assert (known.number("group", "wheel"), known.number("group", "eve")) == (10, None)
    assert (known.number("owner", "name"), known.number("owner", "broken")) == (None, None)


def test_a_number_is_itself_also_where_there_is_no_file(tmp_path: Path) -> None:
    known = Accounts(str(tmp_path / "none"), str(tmp_path / "none"))
    assert (known.number("owner", "4711"), known.number("owner", "eve")) == (4711, None)


def test_the_files_are_read_once_for_all_names(tmp_path: Path) -> None:
    known = accounts(tmp_path)
    assert known.number("owner", "eve") == 1001
    (tmp_path / "passwd").unlink()
    assert known.number("owner", "root") == 0


def test_a_name_that_two_searches_ask_for_is_said_to_be_unknown_once(tmp_path: Path) -> None:
    search = Search(paths=("/",), owners=("mallory", "eve"), groups=("!mallory",))
    plan = make_plan({"a": search, "b": search}, 0, accounts(tmp_path))
    assert plan.unknown == (
        f"owner mallory is not in this endpoint's {tmp_path}/passwd: no file can be told by it",
        f"group mallory is not in this endpoint's {tmp_path}/group: no file can be told by it",
    )


@given(st.binary())
def test_any_bytes_in_the_files_give_a_number_or_none(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-passwd"
    path.write_bytes(data)
    known = Accounts(str(path), str(path))
    for name in ("root", "", ":", "0"):
        assert known.number("owner", name) is None or isinstance(known.number("owner", name), int)
