"""Tests of which programs command lines name."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.platform.autostart import exec_program, find_program, settings_of, shell_programs, words_of
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import grow
from tests.support.examples import USUAL_EXAMPLES


@pytest.mark.parametrize(
    ("text", "programs"),
    [
        (b"/usr/bin/x", [(b"/usr/bin/x", 0)]),
        (b"-/usr/bin/x --token=secret a", [(b"/usr/bin/x", 2)]),
        (b"@!+/usr/bin/x y", [(b"/usr/bin/x", 1)]),
        (b"\"/opt/my app/run\" 'a b'", [(b"/opt/my app/run", 1)]),
        (b"/bin/sh -c '/opt/a; exec /opt/b x'", [(b"/bin/sh", 2), (b"/opt/a", 0), (b"/opt/b", 1)]),
        (b"/usr/bin/python3.11 -u /opt/x.py a b", [(b"/usr/bin/python3.11", 4), (b"/opt/x.py", 2)]),
        (b"", []),
        (b"-", []),
    ],
)
def test_a_line_of_exec_names_its_program(text: bytes, programs: list[tuple[bytes, int]]) -> None:
    assert [tuple(program) for program in exec_program(text)] == programs


@pytest.mark.parametrize(
    ("text", "programs"),
    [
        (b"/a x y", [(b"/a", 2)]),
        (b"A=1 B='x y' exec nohup /a x >/dev/null 2>&1", [(b"/a", 1)]),
        (b"test -x /a || ( cd / && run-parts --report /etc/cron.daily )",
         [(b"test", 2), (b"cd", 1), (b"run-parts", 2), (b"/etc/cron.daily", 0)]),
        (b"[ -f /x ] && /y; /z & /w | /v", [(b"[", 3), (b"/y", 0), (b"/z", 0), (b"/w", 0), (b"/v", 0)]),
        (b"echo 'a; /b' \"c | /d\" e\\;/f", [(b"echo", 3)]),
        (b"if true; then /a; fi", [(b"true", 0), (b"/a", 0), (b"fi", 0)]),
        (b"sudo -n env X=1 /a", [(b"/a", 0)]),
        (b'bash -c "curl http://h/x | sh"', [(b"bash", 2), (b"curl", 1), (b"sh", 0)]),
        (b"> /log 2>>/x /a b &>/c", [(b"/a", 1)]),
        (b"", []),
    ],
)  # fmt: skip
def test_a_shell_s_line_names_the_programs_of_its_simple_commands(
    text: bytes, programs: list[tuple[bytes, int]]
) -> None:
    assert [tuple(program) for program in shell_programs(text)] == programs


@settings(max_examples=USUAL_EXAMPLES, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_taken_apart_without_failing(text: bytes) -> None:
    assert len(shell_programs(text)) <= 17
    exec_program(text)
    assert all(isinstance(word, bytes) for word in words_of(text))


def test_a_long_line_takes_no_long_time() -> None:
    assert len(shell_programs(b"sh -c 'sh -c " * 5000)) <= 17
    assert len(shell_programs(b"a;" * 50_000)) == 1


def test_a_program_without_a_path_is_looked_for(tmp_path: Path) -> None:
    files = Rooted(str(grow(tmp_path, {"usr/sbin/tool": b"", "bin/tool": b""})))
    assert find_program(files, b"tool") == b"/usr/sbin/tool"
    assert find_program(files, b"none") == b"none"
    assert find_program(files, b"./x") == b"./x"


def test_settings_are_told_with_their_sections_and_go_on_over_lines() -> None:
    text = b"[Unit]\n# no\n; no\nA = 1\n\n[Service]\nExecStart=/x \\\n  y\nbroken\nB=\n"
    assert list(settings_of(text)) == [
        (b"Unit", b"A", b"1"),
        (b"Service", b"ExecStart", b"/x  y"),
        (b"Service", b"B", b""),
    ]
