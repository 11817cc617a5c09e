"""Tests of which version is the later one: against dpkg and rpm themselves, and by each system's rules."""

import subprocess
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.platform.versions import VersionRange, compare, version_key
from tests.support.examples import USUAL_EXAMPLES

_DPKG = {-1: "lt", 0: "eq", 1: "gt"}


@settings(max_examples=USUAL_EXAMPLES, deadline=None)
@given(*[st.from_regex(r"\A([0-2]:)?[01][019~+.az-]{0,7}[019~+.az]\Z")] * 2)
def test_versions_of_dpkg_compare_as_dpkg_compares_them(first: str, second: str) -> None:
    order = compare("dpkg", first, second)
    ran = subprocess.run(["/usr/bin/dpkg", "--compare-versions", first, _DPKG[order], second], check=False)
    assert ran.returncode == 0, (first, _DPKG[order], second)


@pytest.mark.system
@settings(max_examples=USUAL_EXAMPLES, deadline=None)
@given(st.lists(st.tuples(*[st.from_regex(r"\A[019~^+.azA_]{1,8}\Z")] * 2), min_size=1, max_size=50))
def test_versions_of_rpm_compare_as_rpm_compares_them(pairs: list[tuple[str, str]]) -> None:
    program = "".join(f'print(rpm.vercmp("{first}", "{second}").."\\n")' for first, second in pairs)
    ran = subprocess.run(
        ["/usr/bin/rpm", "--eval", f"%{{lua:{program}}}"], capture_output=True, text=True, check=True
    )
    assert [compare("rpm", first, second) for first, second in pairs] == list(map(int, ran.stdout.split()))


@pytest.mark.parametrize(
    ("system", "ordered"),
    [
        ("dpkg", "1.0~~ 1.0~rc1-1 1.0 1.0-0.1 1.0-1 1.0-1+deb12u1 1.0-1+deb12u10 1.0a 1.0+b 1:0.1"),
        ("rpm", "1.0~rc1-1 1.0-1.el9 1.0-1.el9_2 1.0-2.el9 1.0^git1-1 1.0.1-1 1:0.1-1"),
        ("rpm", "1.0-1.fc38 1.0-1.fc39 1.0-10.fc38"),
        ("apk", "1.2_alpha 1.2_alpha1 1.2_beta 1.2_rc1 1.2 1.2-r0 1.2-r1 1.2_git20 1.2_p1 1.2_p2 1.2a 1.2.0"),
        ("apk", "1.0 1.05 1.06 1.09.1 1.1 1.10"),
        ("pip", "1.0.dev1 1.0a1.dev2 1.0a1 1.0b2 1.0rc1 1.0 1.0+local 1.0.post1.dev1 1.0.post1 1.0.1 1!0.1"),
        (
            "npm",
            "1.0.0-alpha 1.0.0-alpha.1 1.0.0-alpha.beta 1.0.0-beta.2 1.0.0-beta.11 1.0.0-rc.1 1.0.0 1.0.1",
        ),
        ("gem", "1.0.a 1.0.b1 1.0.b2 1.0.pre 1.0 1.0.1 1.1.a 1.1 1.10"),
        ("snap", "2.58 2.58+git1 2.61.3"),
        ("flatpak", "44~beta 44 44.1 115.0"),
    ],
)
def test_versions_sort_as_their_system_sorts_them(system: str, ordered: str) -> None:
    versions = ordered.split()
    for earlier, later in pairwise(versions):
        assert compare(system, earlier, later) == -1, (earlier, later)
        assert compare(system, later, earlier) == 1, (earlier, later)
    assert sorted(versions, key=lambda version: version_key(system, version)) == versions


@pytest.mark.parametrize(
    ("system", "first", "second"),
    [
        ("dpkg", "0:1.0-1", "1.0-1"),
        ("dpkg", "1.0", "1.0-0"),
        ("rpm", "1.0.1", "1_0_1"),
        ("rpm", "1.01", "1.1"),
        ("pip", "1.0", "1.0.0"),
        ("pip", "1.0-1", "v1.0.post1"),
        ("pip", "1.0Alpha1", "1.0a1"),
        ("npm", "1.2.3+build1", "v1.2.3"),
        ("gem", "1", "1.0.0"),
        ("gem", "1.0.a", "1.a"),
    ],
)
def test_versions_that_look_different_can_be_the_same(system: str, first: str, second: str) -> None:
    assert compare(system, first, second) == 0


@pytest.mark.parametrize(
    ("system", "text"),
    [
        ("dpkg", ""),
        ("dpkg", "1.0-"),
        ("dpkg", "x:1.0"),
        ("dpkg", "1.0 beta"),
        ("rpm", "\x1b[1m"),
        ("apk", "latest"),
        ("apk", "1.0_nightly"),
        ("pip", "1.0-SNAPSHOT"),
        ("npm", "git+ssh://host/x"),
        ("gem", "1..2"),
        ("dpkg", "1" * 257),
        ("dpkg", "\u0661:1.0"),
    ],
)
def test_what_is_no_version_is_refused_and_not_compared(system: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"version|semantic"):
        version_key(system, text)
    assert VersionRange("<2").holds(system, text) is None


@settings(max_examples=USUAL_EXAMPLES, deadline=None)
@given(
    st.sampled_from(["dpkg", "rpm", "apk", "pip", "npm", "gem"]), st.lists(st.text(max_size=20), max_size=3)
)
def test_any_text_has_a_key_that_compares_or_is_refused(system: str, texts: list[str]) -> None:
    sort_by_key(system, texts)


def sort_by_key(system: str, texts: list[str]) -> None:
    keys = []
    for text in texts:
        try:
            keys.append(version_key(system, text))
        except ValueError:
            continue
    keys.sort()


@settings(max_examples=USUAL_EXAMPLES, deadline=None)
@given(
    st.sampled_from(["apk", "pip", "npm", "gem"]),
    st.lists(st.from_regex(r"\A[01](\.[01]){0,3}[-_.]?(a|b|p1|rc|dev|post|alpha|git)?(-r1)?\Z"), max_size=6),
)
def test_the_keys_of_a_system_s_versions_always_compare(system: str, texts: list[str]) -> None:
    sort_by_key(system, texts)


@pytest.mark.parametrize(
    ("expression", "inside", "outside"),
    [
        ("<1.2.3-4", ["1.2.3-3", "1.2.3-4~bpo1", "1.2.3"], ["1.2.3-4", "1:0-1"]),
        (">=2.0, <2.4-1", ["2.0", "2.3.9-9", "2.4-0"], ["1.9", "2.4-1"]),
        (">= 2.0 < 3", ["2.9"], ["3", "1.9"]),
        ("=1.0-1", ["1.0-1", "0:1.0-1"], ["1.0-2"]),
        ("==1.0-1", ["1.0-1"], ["1.0-2"]),
        ("!=1.0-1", ["1.0-2"], ["1.0-1"]),
        ("<=1", ["1", "0.9"], ["1-1"]),
        (">1", ["1-1"], ["1"]),
    ],
)
def test_an_expression_holds_versions_between_its_bounds(
    expression: str, inside: list[str], outside: list[str]
) -> None:
    bounds = VersionRange(expression)
    assert [bounds.holds("dpkg", version) for version in inside] == [True] * len(inside)
    assert [bounds.holds("dpkg", version) for version in outside] == [False] * len(outside)


def test_an_expression_without_a_release_does_not_look_at_rpm_s_releases() -> None:
    assert VersionRange("=1.0").holds("rpm", "1.0-4.el9")
    assert not VersionRange("<1.0").holds("rpm", "1.0-4.el9")
    assert VersionRange("<1.0-5.el9").holds("rpm", "1.0-4.el9")
    assert not VersionRange("=1.0").holds("dpkg", "1.0-4")


def test_an_expression_that_is_no_version_of_a_system_is_not_compared_there() -> None:
    bounds = VersionRange("<1:2.0-1")
    assert bounds.holds("dpkg", "1.0-1") is True
    assert bounds.holds("pip", "1.0") is None


def test_an_epoch_that_the_expression_lacks_is_told() -> None:
    assert VersionRange("<9.9").lacks_epoch("dpkg", "1:9.2p1-2")
    assert not VersionRange("<1:9.9").lacks_epoch("dpkg", "1:9.2p1-2")
    assert not VersionRange("<9.9").lacks_epoch("dpkg", "9.2p1-2")
    assert not VersionRange("<9.9").lacks_epoch("rpm", "0:9.2p1-2")
    assert not VersionRange("<9.9").lacks_epoch("pip", "1!9.2")


@pytest.mark.parametrize(
    "expression", ["", "1.0", "<", "<1.0,2.0", "~1.0", "<1.0|2.0", "<1\x00", "<" + "1" * 300]
)
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="is no version expression"):
        VersionRange(expression)
