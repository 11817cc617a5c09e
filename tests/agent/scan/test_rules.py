"""Tests of rules: what compiles, what is refused and where, what a scan says, and that time is kept."""

import sys
from collections.abc import Callable
from contextlib import closing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.scan.helper import Helper
from agent.scan.rules import (
    MATCHES_PER_PATTERN,
    MAX_MATCHES,
    MAX_PATTERNS,
    MAX_RULES,
    MODULES,
    PatternHit,
    RuleHit,
    RuleScanner,
    ScanTimedOut,
    bound_hits,
    compile_rules,
)
from protocol.errors import InvalidInput

ENDLESS = "rule endless { condition: for all i in (0..1000000000000) : ( i != 1000000000001 ) }"


def scan(data: bytes, *rules: str, **variables: bool | float | str) -> list[RuleHit]:
    """Return what rules say of bytes, in a process of its own: who scans must not fork later."""
    compiled = compile_rules({f"source{number}": text for number, text in enumerate(rules)}, variables)

    def serve(_request: bytes, _descriptor: int | None, _say: Callable[[], None]) -> bytes:
        scanner = RuleScanner(compiled, timeout_s=30)
        scanner.name_file(b"/srv/www/shell.php")
        return msgspec.msgpack.encode(scanner.scan(data))

    with closing(Helper(serve, silence_s=60)) as helper:
        return msgspec.msgpack.decode(helper.ask(b"scan"), type=list[RuleHit])


def test_a_rule_says_where_its_patterns_match() -> None:
    [hit] = scan(
        b"xx needle and needle", 'rule r { strings: $a = "needle" $b = "hay" condition: any of them }'
    )
    assert hit == RuleHit("source0", "r", (PatternHit("$a", 2, ((3, 6), (14, 6))),))


def test_sources_have_namespaces_of_their_own() -> None:
    rule = "rule same { condition: true }"
    assert [(hit.source, hit.rule) for hit in scan(b"", rule, rule)] == [
        ("source0", "same"),
        ("source1", "same"),
    ]


def test_a_rule_tells_its_tags_and_what_it_says_of_itself() -> None:
    text = (
        r'rule r : one two { meta: a = "text" b = 7 c = true d = "\xff" e = "'
        + "x" * 400
        + '" condition: true }'
    )
    facts = compile_rules({"s": text}, {}).facts["s", "r"]
    assert facts.tags == ("one", "two")
    assert facts.meta == {"a": "text", "b": 7, "c": True, "d": r"\xff", "e": "x" * 256}


def test_variables_are_what_was_given() -> None:
    text = 'rule r { condition: number == 7 and share == 0.5 and yes and word == "x" }'
    assert scan(b"", text, number=7, share=0.5, yes=True, word="x")


def test_rules_know_which_file_they_look_at_unless_they_are_told_otherwise() -> None:
    said = 'filename == "shell.php" and filepath == "/srv/www/shell.php" and extension == ".php"'
    assert scan(b"", f"rule r {{ condition: {said} }}")
    assert scan(b"", 'rule r { condition: filename == "mine" }', filename="mine")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rule r {\n condition: nope }", r"web, line 2, column 13: unknown identifier `nope` \(this id"),
        ('rule r {\n strings:\n  $a = "x"\n condition: true }', "web, line 3, column 3: unused pattern"),
        ("rule r {", "rules web, line 1, column 9: syntax error"),
        ("", None),
        ("rule r { condition: true }\nrule r { condition: true }", "web, line 2, column 6: duplicate rule"),
        ('include "/etc/passwd"', "rules web, line 1, column 1: include statements not allowed"),
        ('import "nothing"', "rules web, line 1, column 1: unknown module `nothing`"),
        ('\nimport "console"\nrule r { condition: console.log("x") }', "web, line 2: module 'console'"),
        ('import "cuckoo"', "module 'cuckoo' is not allowed"),
        ('import "vt"', "module 'vt' is not allowed"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_rules_is_said_with_its_place(text: str, said: str | None) -> None:
    if said is None:
        assert compile_rules({"web": text}, {}).facts == {}
        return
    with pytest.raises(InvalidInput, match=said) as caught:
        compile_rules({"web": text}, {})
    assert caught.value.code == "bad-parameters"


def test_the_modules_that_look_at_bytes_may_be_imported() -> None:
    text = "".join(f'import "{name}"\n' for name in MODULES) + "rule r { condition: hash.md5(0, 3) == "
    assert scan(b"abc", text + '"900150983cd24fb0d6963f7d28e17f72" }')


def test_rules_that_are_slow_are_pointed_out() -> None:
    [said] = compile_rules({"web": "rule r { strings: $a = { 00 [1-10] 01 } condition: $a }"}, {}).warnings
    assert said.startswith("rules web, line 1, column ")
    assert "slow pattern" in said


@pytest.mark.slow
def test_rules_that_take_too_long_to_compile_are_refused() -> None:
    many = "\n".join(
        f"rule r{n} {{ strings: $a = /word{n}[a-z]{{3,10}}/ condition: $a }}" for n in range(4000)
    )
    with pytest.raises(InvalidInput, match=r"cannot be compiled: they take longer than 0\.01 s") as caught:
        compile_rules({"web": many}, {}, compile_s=0.01)
    assert caught.value.code == "bad-parameters"


@pytest.mark.slow
def test_compiling_can_be_stopped() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    many = "\n".join(
        f"rule r{n} {{ strings: $a = /word{n}[a-z]{{3,10}}/ condition: $a }}" for n in range(4000)
    )
    with pytest.raises(KeyboardInterrupt, match="^$"):
        compile_rules({"web": many}, {}, check=stop)


@pytest.mark.system
@pytest.mark.parametrize(
    ("text", "data"),
    [
        (ENDLESS, b""),
        ("rule r { strings: $a = /(a+)+b/ condition: $a }", b"a" * 300_000),
        ("rule r { strings: $a = { 61 [-] 61 [-] 61 [-] 62 } condition: $a }", b"a" * 3_000_000),
    ],
)
def test_a_scan_ends_when_its_time_is_over_in_a_process_that_was_forked_after_compiling(
    text: str, data: bytes
) -> None:
    rules = compile_rules({"web": text, "other": "rule quick { condition: filesize < 10 }"}, {})

    def serve(_request: bytes, _descriptor: int | None, _say: Callable[[], None]) -> bytes:
        try:
            return repr(RuleScanner(rules, timeout_s=1).scan(data)).encode()
        except ScanTimedOut:
            return b"timed out"

    with closing(Helper(serve, silence_s=60)) as helper:
        assert helper.ask(b"scan") == b"timed out"
        if text == ENDLESS:
            assert helper.ask(b"scan") == b"timed out"


@given(
    st.lists(
        st.builds(
            lambda count, lengths: RuleHit(
                "s",
                f"r{count}",
                tuple(
                    PatternHit(f"${n}", size, tuple((i, 1) for i in range(size)))
                    for n, size in enumerate(lengths)
                ),
            ),
            st.integers(),
            st.lists(st.integers(1, 100), max_size=60),
        ),
        max_size=MAX_RULES + 20,
    )
)
def test_what_is_told_of_one_file_is_bounded_and_nothing_in_it_is_made_up(hits: list[RuleHit]) -> None:
    told, is_cut = bound_hits(hits)
    patterns = [pattern for hit in told for pattern in hit.patterns]
    assert len(told) == min(len(hits), MAX_RULES)
    assert len(patterns) <= MAX_PATTERNS
    assert sum(len(pattern.matches) for pattern in patterns) <= MAX_MATCHES
    for was, now in zip(hits, told, strict=False):
        assert (was.source, was.rule) == (now.source, now.rule)
        for one, other in zip(was.patterns, now.patterns, strict=False):
            assert (one.identifier, one.count) == (other.identifier, other.count)
            assert other.matches == one.matches[: len(other.matches)]
            assert len(other.matches) <= MATCHES_PER_PATTERN
    assert is_cut == (sum(len(hit.patterns) for hit in hits) > len(patterns) or len(hits) > len(told))


def test_a_build_without_the_engine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    # What Python does where there is no such package.
    monkeypatch.setitem(sys.modules, "yara_x", None)
    with pytest.raises(InvalidInput, match="yara-x is not part of this build") as caught:
        compile_rules({"web": "rule r { condition: true }"}, {})
    assert caught.value.code == "unsupported"
