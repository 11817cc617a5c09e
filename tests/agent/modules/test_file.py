"""Tests of the file module: what each filter and option means, by example."""

import hashlib
import os
import stat
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import xxhash

from agent.execute import run_operation
from agent.module import Context, Limits, decode_params
from agent.modules import file
from agent.registry import canonical_name, load_module
from agent.scan.search import HASH_KINDS
from protocol.errors import InvalidInput
from tests.agent.scan.runs import find, grow, paths, refused, run

ABC = hashlib.sha256(b"abc").hexdigest()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return grow(
        tmp_path,
        {
            "a.txt": b"alpha\nbeta\n",
            "b.log": b"beta\n",
            "empty": b"",
            "sub/a.txt": b"gamma\n",
            "sub/deep/c.bin": b"\x00\xff\x00needle\x00",
        },
    )


def test_a_name_is_matched_anywhere_in_the_base_name_only(tree: Path) -> None:
    assert find(tree, names=["a"]) == ["a.txt", "sub/a.txt"]
    assert find(tree, names=["^sub"]) == []
    assert find(tree, names=[r"\.(log|bin)$"]) == ["b.log", "sub/deep/c.bin"]


def test_an_inverted_name_matches_the_other_files(tree: Path) -> None:
    assert find(tree, names=["!a"]) == ["b.log", "empty", "sub/deep/c.bin"]


def test_a_lone_exclamation_mark_is_an_expression_itself(tmp_path: Path) -> None:
    grow(tmp_path, {"wow!": b"", "dull": b""})
    assert find(tmp_path, names=["!"]) == ["wow!"]
    assert find(tmp_path, names=["!!"]) == ["dull"]


def test_several_values_of_a_filter_are_several_checks(tree: Path) -> None:
    assert find(tree, names=["a", "!txt"]) == []
    assert find(tree, names=["^a", "txt$"]) == ["a.txt", "sub/a.txt"]
    assert find(tree, sizes=[">1", "<6"]) == ["b.log", "sub/a.txt"]


@pytest.mark.parametrize(
    ("size", "found"),
    [
        ("1024", ["b"]),
        ("1k", ["b"]),
        ("<1k", ["a", "b"]),
        (">1k", ["b", "c"]),
        ("<1023", ["a"]),
        (">1m", []),
        ("0", []),
        ("<99999999t", ["a", "b", "c"]),
    ],
)
def test_sizes_include_their_bound_and_know_units(tmp_path: Path, size: str, found: list[str]) -> None:
    grow(tmp_path, {"a": b"x" * 1023, "b": b"x" * 1024, "c": b"x" * 1025})
    assert find(tmp_path, sizes=[size]) == found


def test_an_age_is_before_or_within_a_time_strictly(tmp_path: Path) -> None:
    grow(tmp_path, {"new": b"", "old": b"", "future": b""})
    now = time.time()
    os.utime(tmp_path / "old", (now, now - 90 * 86400 - 60))
    os.utime(tmp_path / "future", (now, now + 86400))
    assert find(tmp_path, mtimes=["<90d"]) == ["future", "new"]
    assert find(tmp_path, mtimes=[">90d"]) == ["old"]
    assert find(tmp_path, mtimes=[">5h"]) == ["old"]
    assert find(tmp_path, mtimes=["<30m", ">0m"]) == ["new"]


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("^-rw-r--r--$", ["plain"]),
        ("^u", ["setuid"]),
        ("^urwxr-xr-x$", ["setuid"]),
        ("^gtrwxrwxrwx$", ["shared"]),
        ("!^u", ["plain", "shared"]),
    ],
)
def test_modes_are_matched_on_their_letters_and_can_be_inverted(
    tmp_path: Path, expression: str, found: list[str]
) -> None:
    grow(tmp_path, {"plain": b"", "setuid": b"", "shared": b""})
    (tmp_path / "plain").chmod(0o644)
    (tmp_path / "setuid").chmod(0o4755)
    (tmp_path / "shared").chmod(0o3777)
    assert find(tmp_path, modes=[expression]) == found


@pytest.fixture
def owned(tmp_path: Path) -> Path:
    """Files of root, of two strangers, and one that was handed over; where we may."""
    grow(tmp_path, {"roots": b"", "first": b"", "second": b""})
    for name, uid, gid in (("roots", 0, 0), ("first", 50_001, 0), ("second", 50_002, 50_003)):
        os.chown(tmp_path / name, uid, gid)
    return tmp_path


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")
@pytest.mark.parametrize(
    ("filters", "mismatch", "found"),
    [
        ({"owners": ["root"]}, [], ["roots"]),
        ({"owners": ["0", "50001"]}, [], ["first", "roots"]),
        ({"owners": ["!root"]}, [], ["first", "second"]),
        ({"owners": ["!root", "!50002"]}, [], ["first"]),
        ({"owners": ["50001", "root", "!root"]}, [], ["first"]),
        ({"owners": ["50001", "50002"]}, ["owner"], ["roots"]),
        ({"owners": ["!root"]}, ["owner"], ["roots"]),
        ({"groups": ["root"]}, [], ["first", "roots"]),
        ({"groups": ["50003"], "owners": ["root"]}, [], []),
        ({"groups": ["!0"], "owners": ["!root"]}, [], ["second"]),
    ],
)
def test_owners_and_groups_are_alternatives_and_each_inversion_is_a_check_of_its_own(
    owned: Path, filters: dict[str, Any], mismatch: list[str], found: list[str]
) -> None:
    assert find(owned, **filters, options={"mismatch": mismatch}) == found


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")
def test_any_one_owner_check_is_enough_without_matchall_and_is_named(owned: Path) -> None:
    result = run(s1={"paths": [str(owned)], "owners": ["50001", "50002", "!root"], "groups": ["50003"]})
    assert [record["checks"] for record in result.records] == [
        ("owner=50001,50002", "owner=!root"),
        ("owner=50001,50002", "owner=!root", "group=50003"),
    ]


@pytest.mark.parametrize("filters", [{"owners": ["n0body-here"]}, {"groups": ["!n0body-here"]}])
@pytest.mark.parametrize("mismatch", [True, False])
@pytest.mark.parametrize("matchall", [True, False])
def test_by_a_name_that_the_endpoint_does_not_know_no_file_is_told_and_that_is_a_hole(
    tree: Path, filters: dict[str, Any], *, mismatch: bool, matchall: bool
) -> None:
    turned = [name.removesuffix("s") for name in filters] if mismatch else []
    result = run(s1={"paths": [str(tree)], **filters, "options": {"mismatch": turned, "matchall": matchall}})
    assert (result.records, result.statistics["skipped"]) == ((), {"unknown-account": 1})
    assert "n0body-here is not in this endpoint's /etc/" in result.notes[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files away takes root")
def test_of_two_owners_one_of_them_unknown_the_known_one_is_told(owned: Path) -> None:
    owners = ["n0body-here", "50001"]
    assert find(owned, owners=owners) == ["first"]
    # Whoever is not 50001 may be the one whose name is unknown.
    assert find(owned, owners=owners, options={"mismatch": ["owner"]}) == []


def test_ages_of_status_and_access_are_checks_of_their_own(tmp_path: Path) -> None:
    grow(tmp_path, {"read": b"", "unread": b""})
    now = time.time()
    os.utime(tmp_path / "read", (now, now - 86400))
    os.utime(tmp_path / "unread", (now - 86400, now - 86400))
    assert find(tmp_path, mtimes=[">1h"], ctimes=["<1h"]) == ["read", "unread"]
    assert find(tmp_path, ctimes=[">1h"]) == []
    assert find(tmp_path, atimes=[">1h"]) == ["unread"]
    assert find(tmp_path, atimes=["<1h"], options={"mismatch": ["atime"]}) == ["unread"]


def test_the_setuid_flag_is_a_check_on_the_mode(tmp_path: Path) -> None:
    grow(tmp_path, {"plain": b"", "setuid": b"", "both": b"", "setgid": b""})
    for name, mode in (("plain", 0o755), ("setuid", 0o4755), ("both", 0o6755), ("setgid", 0o2755)):
        (tmp_path / name).chmod(mode)
    made = file.from_flags({"path": (str(tmp_path),), "setuid": True})["searches"]["s1"]
    assert made["modes"] == ["^u"]
    assert paths(run(s1=made), tmp_path) == ["both", "setuid"]
    made = file.from_flags({"path": (str(tmp_path),), "setuid": True, "mode": ("^ug",)})["searches"]["s1"]
    assert paths(run(s1=made), tmp_path) == ["both"]


def test_digests_of_every_kind_are_given_when_asked_for_in_one_read(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"abc"})
    options = {"returnhashes": ["xxh3_128", "md5", "sha1"], "returnsha256": True}
    result = run(s1={"paths": [str(tmp_path)], "names": ["a"], "options": options})
    assert result.records[0]["hashes"] == {
        kind: digest_of(kind, b"abc") for kind in ("md5", "sha1", "sha256", "xxh3_128")
    }
    assert result.statistics["files_read"] == 1


def digest_of(kind: str, content: bytes) -> str:
    if kind == "xxh3_128":
        return str(xxhash.xxh3_128_hexdigest(content))
    return hashlib.new(kind, content).hexdigest()


@pytest.mark.parametrize("kind", HASH_KINDS)
def test_values_of_one_hash_are_alternatives_and_are_told_in_the_record(tmp_path: Path, kind: str) -> None:
    grow(tmp_path, {"a": b"abc", "b": b"xyz", "c": b"other"})
    digests = [digest_of(kind, content) for content in (b"abc", b"xyz")]
    result = run(s1={"paths": [str(tmp_path)], kind: digests, "options": {"matchall": True}})
    assert paths(result, tmp_path) == ["a", "b"]
    assert [record["hashes"] for record in result.records] == [{kind: digest} for digest in digests]


def test_hashes_of_different_kinds_are_different_checks(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"abc", "b": b"xyz"})
    md5_of_b = hashlib.md5(b"xyz", usedforsecurity=False).hexdigest()
    assert find(tmp_path, sha256=[ABC], md5=[md5_of_b]) == []
    assert find(tmp_path, sha256=[ABC], md5=[md5_of_b], matchall=False) == ["a", "b"]


def test_matchall_is_false_without_options_and_any_check_is_then_enough(tree: Path) -> None:
    result = run(s1={"paths": [str(tree)], "names": ["^b", "^empty$"], "contents": ["^gamma$"]})
    assert [(paths(result, tree)[at], record["checks"]) for at, record in enumerate(result.records)] == [
        ("b.log", ("name=^b",)),
        ("empty", ("name=^empty$",)),
        ("sub/a.txt", ("content=^gamma$",)),
    ]


def test_matchany_gives_one_record_per_file_with_all_the_checks_that_matched(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"abc"})
    result = run(
        s1={
            "paths": [str(tmp_path)],
            "names": ["^a$", "z"],
            "sizes": ["3"],
            "modes": ["rw"],
            "mtimes": ["<1d"],
            "contents": ["b", "!q"],
            "sha256": [ABC, "0" * 64],
        }
    )
    assert result.records[0]["checks"] == (
        "name=^a$",
        "size=3",
        "mode=rw",
        "mtime=<1d",
        "content=b",
        "content=!q",
        f"sha256={ABC}",
    )
    assert len(result.records) == 1


def test_a_matchall_record_lists_no_checks(tree: Path) -> None:
    result = run(s1={"paths": [str(tree)], "names": ["^b"], "options": {"matchall": True}})
    assert "checks" not in result.records[0]


@pytest.mark.parametrize(
    ("filters", "mismatch", "found"),
    [
        ({"names": ["^a"]}, "name", ["b.log", "empty", "sub/deep/c.bin"]),
        ({"names": ["!^a"]}, "name", ["a.txt", "sub/a.txt"]),
        ({"sizes": ["0"]}, "size", ["a.txt", "b.log", "sub/a.txt", "sub/deep/c.bin"]),
        ({"contents": ["beta"]}, "content", ["empty", "sub/a.txt", "sub/deep/c.bin"]),
        ({"contents": ["!beta"]}, "content", ["a.txt", "b.log"]),
        (
            {"sha256": [hashlib.sha256(b"").hexdigest()]},
            "sha256",
            ["a.txt", "b.log", "sub/a.txt", "sub/deep/c.bin"],
        ),
    ],
)
@pytest.mark.parametrize("matchall", [True, False])
def test_mismatch_turns_a_filter_round(
    tree: Path, filters: dict[str, Any], mismatch: str, found: list[str], *, matchall: bool
) -> None:
    assert find(tree, **filters, options={"mismatch": [mismatch]}, matchall=matchall) == found


def test_an_inverted_content_and_a_hash_can_both_be_asked_for(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"abc", "b": b"abc", "c": b"abx"})
    assert find(tmp_path, contents=["!zzz"], sha256=[ABC]) == ["a", "b"]
    assert find(tmp_path, contents=["zzz"], sha256=[ABC], options={"mismatch": ["content"]}) == ["a", "b"]
    assert find(tmp_path, contents=["!b"], sha256=[ABC]) == []


def test_macroal_asks_that_all_lines_match_all_expressions(tmp_path: Path) -> None:
    grow(tmp_path, {"all": b"ab\nba\n", "some": b"ab\nb\n", "none": b"c\n", "empty": b""})
    macroal = {"macroal": True}
    assert find(tmp_path, contents=["a"], options=macroal) == ["all"]
    assert find(tmp_path, contents=["b"], options=macroal) == ["all", "some"]
    assert find(tmp_path, contents=["a", "b"], options=macroal) == ["all"]
    assert find(tmp_path, contents=["!b"], options=macroal) == ["empty", "none"]
    assert find(tmp_path, contents=["b"], options={**macroal, "mismatch": ["content"]}) == ["empty", "none"]


@pytest.mark.parametrize("matchall", [True, False])
def test_returnsha256_gives_the_digest_of_what_matched_in_both_modes(tree: Path, *, matchall: bool) -> None:
    options = {"returnsha256": True, "matchall": matchall}
    result = run(s1={"paths": [str(tree)], "names": ["^b"], "options": options})
    assert result.records[0]["hashes"] == {"sha256": hashlib.sha256(b"beta\n").hexdigest()}
    assert result.statistics["files_read"] == 1


def test_a_record_says_what_stat_says(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"abc"})
    (tmp_path / "a").chmod(0o640)
    os.utime(tmp_path / "a", ns=(0, 1_423_273_867_178_506_010))
    result = run(s1={"paths": [str(tmp_path)], "names": ["a"]})
    status = (tmp_path / "a").stat()
    assert result.records == (
        {
            "search": "s1",
            "path": f"{tmp_path}/a",
            "type": "file",
            "size_bytes": 3,
            "mode": "-rw-r-----",
            "uid": status.st_uid,
            "gid": status.st_gid,
            "mtime": "2015-02-07T01:51:07.178506Z",
            "checks": ("name=a",),
        },
    )


def test_matchlimit_counts_the_matches_of_its_own_search_and_is_said(tree: Path) -> None:
    base = {"paths": [str(tree)], "names": ["."]}
    result = run(few={**base, "options": {"matchlimit": 2}}, all=base)
    assert (len(paths(result, tree, "few")), len(paths(result, tree, "all"))) == (2, 5)
    assert (result.truncated, result.status) == (True, "limit")
    assert "search few: stopped at its matchlimit of 2; there are more matches" in result.notes


def test_as_many_matches_as_the_matchlimit_are_complete(tree: Path) -> None:
    result = run(s1={"paths": [str(tree)], "names": ["."], "options": {"matchlimit": 5}})
    assert (len(result.records), result.truncated, result.notes) == (5, False, ())


def test_the_statistics_tell_the_coverage_and_what_was_found_is_computed(tree: Path) -> None:
    result = run(s1={"paths": [str(tree)], "names": ["^nothing$"]})
    assert (result.found, result.status) == (False, "ok")
    coverage = {"files_seen": 5, "files_read": 0, "bytes_read": 0, "skipped": {}, "errors": 0, "changed": 0}
    assert coverage.items() <= result.statistics.items()
    result = run(s1={"paths": [str(tree)], "contents": ["^nothing$"]})
    assert (result.statistics["files_read"], result.statistics["bytes_read"]) == (5, 32)


def test_a_file_is_read_once_for_all_searches(tmp_path: Path) -> None:
    grow(tmp_path, {"d/a": b"abc"})
    result = run(
        one={"paths": [str(tmp_path)], "sha256": [ABC]},
        two={"paths": [str(tmp_path / "d")], "md5": ["0" * 32], "contents": ["c"]},
        three={"paths": [str(tmp_path / "d/a")], "sha3_512": ["0" * 128], "contents": ["!c"]},
    )
    assert [record["search"] for record in result.records] == ["one", "two"]
    assert (result.statistics["files_read"], result.statistics["bytes_read"]) == (1, 3)


def test_what_no_search_needs_is_not_read(tree: Path) -> None:
    result = run(
        s1={"paths": [str(tree)], "names": ["^a"], "sha256": [ABC], "options": {"matchall": True}},
        s2={"paths": [str(tree)], "sizes": [">1t"], "contents": ["x"], "options": {"matchall": True}},
    )
    assert result.statistics["files_read"] == 2


def test_statistics_stand_also_where_a_limit_cut_the_answer(tree: Path) -> None:
    result = run(Context(limits=Limits(max_records=1)), s1={"paths": [str(tree)], "names": ["."]})
    assert result.truncated
    assert int(result.statistics["files_seen"]) >= 1


def test_a_run_out_of_time_keeps_its_records_and_its_coverage(tree: Path) -> None:
    ticks = iter(range(10_000))
    context = Context(limits=Limits(wall_s=8), monotonic=lambda: float(next(ticks)))
    # Two checks of which any is enough are judged file by file, with a look at the clock for each.
    search = {"paths": [str(tree)], "names": ["."], "sizes": [">0"]}
    result = run_operation("file", {"searches": {"s1": search}}, context)
    assert (result.status, result.truncated) == ("timed-out", True)
    assert 0 < len(result.records) < 5
    assert result.statistics["files_seen"] == len(result.records)


@pytest.mark.parametrize(
    ("search", "reason"),
    [
        ({}, "has no check"),
        ({"names": []}, "has no check"),
        ({"names": [""]}, "length >= 1"),
        ({"names": ["("]}, "is not a regular expression"),
        ({"contents": ["!a(?=b)"]}, "is not a regular expression"),
        ({"modes": [r"(a)\1"]}, "is not a regular expression"),
        ({"sizes": ["<"]}, "sizes"),
        ({"sizes": ["10q"]}, "sizes"),
        ({"mtimes": ["5h"]}, "mtimes"),
        ({"mtimes": ["<5y"]}, "mtimes"),
        ({"md5": ["0" * 31]}, "md5"),
        ({"sha256": ["A" * 64]}, "sha256"),
        ({"sha1": ["g" * 40]}, "sha1"),
        ({"names": ["a"], "paths": []}, "paths"),
        ({"names": ["a"], "paths": ["etc"]}, "paths"),
        ({"names": ["a"], "paths": ["/a\x00b"]}, "paths"),
        ({"names": ["a"], "paths": ["/\ud800"]}, "is not text"),
        ({"names": ["a"], "options": {"maxdepth": -1}}, "maxdepth"),
        ({"names": ["a"], "options": {"mismatch": ["size"]}}, "the search has no such check"),
        ({"names": ["a"], "options": {"mismatch": ["nmae"]}}, "mismatch"),
        ({"names": ["a"], "options": {"macroal": True}}, "macroal is about contents"),
        ({"bytes": ["abc"]}, "bytes"),
        ({"bytes": [""]}, "bytes"),
        ({"bytes": ["!"]}, "bytes"),
        ({"magics": ["exe"]}, "there is no magic 'exe'"),
        ({"entropies": ["7.5"]}, "entropies"),
        ({"entropies": [">9"]}, "entropies"),
        ({"names": ["a"], "name": ["b"]}, "unknown field"),
        ({"owners": ["!"]}, "owners"),
        ({"owners": ["a b"]}, "owners"),
        ({"groups": ["a,b"]}, "groups"),
        ({"ctimes": ["5h"]}, "ctimes"),
        ({"types": ["pipe"]}, "types"),
        ({"excludes": ["a"]}, "has no check"),
        ({"names": ["a"], "excludes": ["a/b"]}, "excludes"),
        ({"names": ["a"], "excludes": [""]}, "excludes"),
        ({"names": ["a"], "excludes": ["/\ud800"]}, "is not text"),
        ({"names": ["a"], "options": {"newest": 100_001}}, "newest"),
        ({"names": ["a"], "options": {"newest": 1, "oldest": 1}}, "exclude each other"),
        ({"names": ["a"], "options": {"returnhashes": ["sha257"]}}, "returnhashes"),
    ],
)
def test_a_search_that_cannot_mean_anything_is_refused_with_the_place(
    search: dict[str, Any], reason: str
) -> None:
    assert reason in refused(**search)


@pytest.mark.parametrize("label", ["", "a b", "a/b", "a\n", "x" * 65, "é"])
def test_a_label_that_would_need_quoting_is_refused(label: str) -> None:
    searches = {"searches": {label: {"paths": ["/"], "names": ["a"]}}}
    with pytest.raises(InvalidInput, match="bad-parameters"):
        decode_params(file.Params, searches)


def test_the_declaration_gives_a_schema_with_a_description_of_every_field() -> None:
    schema = msgspec.json.schema(file.Params)
    for name in ("Params", "Search", "Options"):
        for field, shape in schema["$defs"][name]["properties"].items():
            assert "description" in shape, (name, field)
    for field, shape in msgspec.json.schema(file.Record)["$defs"]["Record"]["properties"].items():
        assert "description" in shape or "description" in shape["anyOf"][0], field


def test_filechecker_is_another_name_of_the_module() -> None:
    assert canonical_name("filechecker") == "file"


def test_flags_make_one_search_with_the_defaults_of_the_command_line() -> None:
    assert file.from_flags({"path": ("/etc",), "name": ("^passwd$",)}) == {
        "searches": {
            "s1": {
                "paths": ["/etc"],
                "names": ["^passwd$"],
                "options": {
                    "maxdepth": 1000,
                    "maxerrors": 30,
                    "matchlimit": 1000,
                    "matchall": True,
                    "macroal": False,
                    "returnsha256": False,
                },
            }
        }
    }


def test_every_flag_reaches_the_parameters() -> None:
    made = file.from_flags(
        {
            "path": ("/a", "/b"),
            "size": (">1K",),
            "mode": ("^u",),
            "mtime": ("<1d",),
            "content": ("x",),
            "md5": ("A" * 32,),
            "sha3-256": ("b" * 64,),
            "sha2": ("c" * 96,),
            "mismatch": ("size", "sha2"),
            "maxdepth": 2,
            "maxerrors": 0,
            "matchlimit": 0,
            "matchany": True,
            "macroal": True,
            "returnsha256": True,
            "ctime": ("<2d",),
            "atime": (">3d",),
            "owner": ("!root",),
            "group": ("wheel",),
            "type": ("File", "!link"),
            "exclude": ("cache", "/var/lib"),
            "oldest": 5,
            "remotefs": True,
            "onefilesystem": True,
            "returnhash": ("MD5", "sha3-256", "md5"),
            "xxh3-128": ("D" * 32,),
        }
    )
    search = decode_params(file.Params, made).searches["s1"]
    assert (search.sizes, search.md5, search.sha3_256, search.sha384) == (
        (">1k",),
        ("a" * 32,),
        ("b" * 64,),
        ("c" * 96,),
    )
    options = search.options
    assert (options.maxdepth, options.maxerrors, options.matchlimit) == (2, 0, 0)
    assert (options.matchall, options.macroal, options.returnsha256) == (False, True, True)
    assert options.mismatch == ("size", "sha384")
    assert (search.ctimes, search.atimes, search.owners) == (("<2d",), (">3d",), ("!root",))
    assert (search.groups, search.types) == (("wheel",), ("file", "!link"))
    assert (search.excludes, search.xxh3_128) == (("cache", "/var/lib"), ("d" * 32,))
    assert (options.newest, options.oldest) == (0, 5)
    assert (options.remotefs, options.onefilesystem) == (True, True)
    assert options.returnhashes == ("md5", "sha3_256")
    declared = {flag.name for flag in file.FLAGS}
    assert {
        "path",
        "name",
        "sha3-224",
        "matchall",
        *(kind.replace("_", "-") for kind in HASH_KINDS),
    } <= declared


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"name": ("a",)}, "--path"),
        ({"path": ("/",), "name": ("a",), "matchall": True, "matchany": True}, "exclude each other"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        file.from_flags(values)


def test_the_module_loads_with_its_flags_and_examples() -> None:
    loaded = load_module("file")
    assert loaded.flags is file.FLAGS
    assert all(example.startswith("mig file ") for example in loaded.examples)
    assert stat.S_ISREG(Path(file.__file__).stat().st_mode)


def test_flags_may_lower_what_a_scan_takes() -> None:
    values = {"path": ("/etc",), "name": (".",), "cpu-percent": 50, "workers": 1, "read-bytes-per-s": None}
    made = file.from_flags(values)
    assert (made["cpu_percent"], made["workers"], "read_bytes_per_s" in made) == (50, 1, False)
    assert decode_params(file.Params, made).cpu_percent == 50


def test_a_relative_path_is_refused_in_words() -> None:
    with pytest.raises(InvalidInput, match=r"^usage: --path 'etc': endpoints know absolute paths only"):
        file.from_flags({"path": ["etc"], "name": ["x"]})
