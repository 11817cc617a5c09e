from pathlib import Path

import pytest

from client.config import cache_dir, config_path, convert_config, load_config
from protocol.errors import EnvironmentFailure, InvalidInput

FINGERPRINT = "A" * 40
GOOD = {"server": "https://mig.example.net", "fingerprint": FINGERPRINT}


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        f'[agent]\nx = 1\n[client]\nserver = "http://[::1]:1664"\nfingerprint = "{FINGERPRINT}"\n'
    )
    monkeypatch.setenv("MIG_CONFIG", str(path))
    assert load_config().server == "http://[::1]:1664"


def test_without_it_the_xdg_directories_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIG_CONFIG", raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert config_path() == Path("/home/ada/.config/mig/config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/xdg")
    assert config_path() == Path("/etc/xdg/mig/config.toml")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_dir() == Path("/home/ada/.cache/mig")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIG_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(InvalidInput, match=r"make one, \[client\] with server"):
        load_config()


@pytest.mark.parametrize("text", ["[client", "x = 1\n", "\udcff".encode("utf-8", "surrogateescape")])
def test_a_file_without_a_readable_table_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes
) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setenv("MIG_CONFIG", str(path))
    with pytest.raises(InvalidInput, match="bad-config"):
        load_config()


def test_a_directory_is_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIG_CONFIG", str(tmp_path))
    with pytest.raises(EnvironmentFailure, match="bad-config"):
        load_config()


@pytest.mark.parametrize(
    "change",
    [
        {"servr": "x"},
        {"server": "ftp://x"},
        {"server": "mig.example.net"},
        {"server": "http://x:99999"},
        {"server": "http://user@x"},
        {"server": "http://x/?a"},
        {"fingerprint": "AAAA"},
        {"gpg": ""},
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="bad-config"):
        convert_config({**GOOD, **change}, "here")


def test_a_fingerprint_may_be_pasted_as_gpg_prints_it() -> None:
    spaced = " ".join(["abcd"] * 5 + [""] + ["abcd"] * 5)
    assert convert_config({**GOOD, "fingerprint": spaced}, "here").fingerprint == "ABCD" * 10
