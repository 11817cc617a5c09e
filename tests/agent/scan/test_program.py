"""Tests of the scan core as a program of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.agent.scan.runs import grow

PROGRAM = (sys.executable, "-I", "-S", Path(__file__).parents[3] / "agent/scan")


def ask(parameters: Any, *words: str) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        [*PROGRAM, *words],
        input=parameters if isinstance(parameters, str) else json.dumps(parameters),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_it_prints_a_record_a_line_and_then_what_was_seen(tmp_path: Path) -> None:
    grow(tmp_path, {"a": b"abc", "b/c": b"x"})
    # In the ancestor's spelling, as the file module takes it.
    status, lines, _ = ask({"searches": {"s1": {"path": [str(tmp_path)], "content": ["abc"]}}})
    assert status == 0
    assert [(line["search"], line["path"]) for line in lines[:-1]] == [("s1", f"{tmp_path}/a")]
    assert lines[-1]["status"] == "ok"
    assert (lines[-1]["statistics"]["files_seen"], lines[-1]["notes"]) == (2, [])


def test_its_exit_code_tells_nothing_found_from_refused(tmp_path: Path) -> None:
    parameters = tmp_path / "parameters"
    parameters.write_text(json.dumps({"searches": {"s1": {"paths": [str(tmp_path)], "names": ["zzz"]}}}))
    assert ask("", "--params", str(parameters))[0] == 1
    status, lines, said = ask({"searches": {}})
    assert (status, lines) == (2, [])
    assert "searches" in said


def test_it_keeps_digests_in_a_file_that_it_makes(tmp_path: Path) -> None:
    kept = tmp_path / "digests"
    # Whether what the interpreter lies on is trusted to tell of changes depends on the machine.
    search = {
        "paths": [str(Path(sys.executable).resolve())],
        "names": ["."],
        "options": {"returnhashes": ["md5"]},
    }
    answers = [ask({"searches": {"s1": search}}, "--digest-cache", str(kept))[1] for _ in range(2)]
    assert answers[0][0]["hashes"] == answers[1][0]["hashes"]
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_command_line_that_it_does_not_know_ends_it() -> None:
    for words in (["--params"], ["--what", "x"], ["x"]):
        code, _, said = ask("", *words)
        assert (code, said.count("\n")) == (2, 1)
        assert said.startswith("usage: ")


def test_help_says_what_it_takes_and_how_it_ends() -> None:
    done = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, check=True)
    assert "--digest-cache FILE" in done.stdout
    assert "Exit code: " in done.stdout
