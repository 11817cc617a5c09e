"""Where the agent finds its enrolment token."""

import logging
from pathlib import Path

import pytest

from agent.runtime.token import find_token
from protocol.enrolment import decode_token, encode_token
from protocol.errors import InvalidInput

NAMED, USUAL, BAKED = (encode_token(bytes([number]) * 32) for number in (1, 2, 3))


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text + "\n")
    path.chmod(mode)
    return path


def found(named: Path | None, baked: str, usual: Path) -> bytes | None:
    token = find_token(named, baked, usual)
    return None if token is None else token.public_key


def public(text: str) -> bytes:
    return decode_token(text).public_key


def test_a_file_that_is_named_comes_before_the_usual_one_and_that_before_the_baked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    missing, usual = tmp_path / "missing", write(tmp_path / "usual", USUAL)
    assert found(write(tmp_path / "named", NAMED), BAKED, usual) == public(NAMED)
    assert found(None, BAKED, usual) == public(USUAL)
    assert found(None, BAKED, missing) == public(BAKED)
    assert found(None, "", missing) is None


def test_only_root_reads_the_usual_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert found(None, "", write(tmp_path / "usual", USUAL)) is None


@pytest.mark.parametrize(
    ("text", "mode", "refusal"),
    [(NAMED, 0o644, "unsafe-file"), ("nonsense", 0o600, "bad-token"), ("", 0o600, "bad-token")],
    ids=["open to others", "no token", "empty"],
)
def test_a_named_file_that_is_not_good_is_refused_and_a_usual_one_is_told(
    tmp_path: Path,
    *,
    text: str,
    mode: int,
    refusal: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    path = write(tmp_path / "token", text, mode)
    with pytest.raises(InvalidInput, match=refusal):
        find_token(path, BAKED)
    with caplog.at_level(logging.WARNING):
        assert found(None, BAKED, path) == public(BAKED)
    assert refusal in caplog.text


def test_a_named_file_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not-found: .*missing: No such file"):
        find_token(tmp_path / "missing", "")
