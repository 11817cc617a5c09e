"""Tests of the sshkey module: where it looks, filters, what is never told."""

import os
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from agent.execute import run_operation
from agent.module import Context
from agent.modules import sshkey
from agent.platform.rooted import Rooted
from agent.registry import load_module
from client.flags import flag_parameters
from protocol.acl import PathRules
from protocol.result import OperationResult
from tests.agent.platform.ssh_samples import make_key, said_of
from tests.agent.scan.runs import grow

pytestmark = pytest.mark.system


@pytest.fixture
def home(tmp_path: Path) -> Path:
    make_key(tmp_path / "id_ed25519", "ed25519")
    make_key(tmp_path / "id_rsa", "rsa-short", passphrase="hard to guess")
    (tmp_path / "id_rsa").chmod(0o644)
    (tmp_path / "id_rsa.pub").unlink()
    public = (tmp_path / "id_ed25519.pub").read_text()
    (tmp_path / "authorized_keys").write_text(f'command="rm secret-word",from="10.*" {public}')
    (tmp_path / "known_hosts").write_text(f"host {public}")
    (tmp_path / "id_ed25519.pub").unlink()
    return grow(tmp_path, {"notes": b"nothing here", "deep/er/x.pub": public.encode()})


def run(home: Path, context: Context | None = None, **parameters: Any) -> OperationResult:
    result = run_operation("sshkey", {"paths": [str(home)], **parameters}, context or Context())
    assert result.status == "ok", result
    return result


def names(home: Path, **parameters: Any) -> list[str]:
    return [record["path"].removeprefix(f"{home}/") for record in run(home, **parameters).records]


def test_every_key_is_told_but_those_of_known_hosts(home: Path) -> None:
    assert names(home) == ["authorized_keys", "id_ed25519", "id_rsa", "deep/er/x.pub"]
    assert run(home).statistics["keys_seen"] == 4


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"kinds": ["private"]}, ["id_ed25519", "id_rsa"]),
        ({"kinds": ["authorized", "public"]}, ["authorized_keys", "deep/er/x.pub"]),
        ({"unencrypted": True}, ["id_ed25519"]),
        ({"weak": True}, ["id_rsa"]),
        ({"comments": ["ed25519$"]}, ["authorized_keys", "deep/er/x.pub"]),
        ({"comments": ["!ed25519$"]}, ["id_ed25519", "id_rsa"]),
        ({"maxdepth": 1, "kinds": ["public"]}, []),
        ({"fingerprints": ["SHA256:" + "A" * 43]}, []),
    ],
)
def test_filters_must_all_hold(home: Path, filters: dict[str, Any], found: list[str]) -> None:
    assert names(home, **filters) == found


def test_a_key_is_found_by_either_fingerprint_wherever_it_lies(home: Path) -> None:
    sha256, md5 = said_of(home / "id_ed25519")[1], said_of(home / "id_ed25519", "md5")[1]
    wanted = ["authorized_keys", "id_ed25519", "deep/er/x.pub"]
    for fingerprint in (sha256, sha256 + "=", md5, md5.removeprefix("MD5:")):
        assert names(home, fingerprints=[fingerprint]) == wanted


def test_a_record_tells_what_can_be_told(home: Path) -> None:
    authorized, _, private, _ = run(home).records
    assert authorized["options"] == ("command", "from")
    assert (authorized["origins"], authorized["forced_command"]) == (("10.*",), True)
    assert (authorized["line"], authorized["comment"]) == (1, "a ed25519")
    assert (private["encrypted"], private["weak"], private["size_bits"]) == (
        True,
        ("short", "readable"),
        1024,
    )
    assert (private["mode"], private["uid"]) == ("-rw-r--r--", os.geteuid())
    assert private["algorithm"] == "ssh-rsa"


def test_no_command_and_nothing_secret_is_in_any_answer(home: Path) -> None:
    answer = msgspec.json.encode(run(home))
    lines = (home / "id_ed25519").read_bytes().split(b"\n")[1:-2]
    for secret in (b"secret-word", *(line[:40] for line in lines)):
        assert secret not in answer


def test_access_rules_hold_what_is_opened(home: Path) -> None:
    (home / "link").symlink_to(home / "deep/er/x.pub")
    context = Context(paths=PathRules(allow=(str(home),), deny=(str(home / "deep"),)))
    result = run(home, context)
    assert [Path(record["path"]).name for record in result.records] == [
        "authorized_keys",
        "id_ed25519",
        "id_rsa",
    ]
    assert result.statistics["skipped"]["not-allowed"] >= 1


def test_hostile_files_do_no_harm(home: Path) -> None:
    os.mkfifo(home / "fifo")
    (home / "zero").symlink_to("/dev/zero")
    public = (home / "deep/er/x.pub").read_bytes().rsplit(b" ", 2)[0]
    grow(home, {"h/authorized_keys": public + b' \x1b[2J"\xff\n' + b'"' * 99 + b" " + public})
    result = run(home / "h")
    assert result.records[0]["comment"] == '\x1b[2J"\\xff'
    assert result.statistics["not_understood"] == 1
    assert run(home).found


def test_usual_places_are_those_of_people_and_of_sshd(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {
            "etc/passwd": b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/var/www:/bin/false\n"
            b"d:x:1:1::/:/bin/false\n"
            b"eve:x:1000:1000::/home/eve:/bin/sh\nglob:x:1001:1::/home/*:/bin/sh\n",
            "etc/ssh/sshd_config": b"AuthorizedKeysFile /etc/keys/%u\n",
            "etc/keys/web": b"",
            "root/x": b"",
            "home/eve/x": b"",
            "var/www/.ssh/x": b"",
        },
    )
    assert sshkey.usual_paths(Rooted(str(tmp_path))) == [
        b"/etc/ssh", b"/root", b"/var/www/.ssh", b"/etc/keys/web", b"/home/eve",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "parameters",
    [{"comments": ["("]}, {"fingerprints": ["x"]}, {"kinds": ["x"]}, {"maxdepth": 1001}, {"paths": ["x"]}],
)
def test_parameters_that_make_no_sense_are_refused(parameters: dict[str, Any]) -> None:
    assert run_operation("sshkey", parameters, Context()).status == "invalid-parameters"


def test_the_ancestor_s_parameters_and_flags_are_understood() -> None:
    assert sshkey.upgrade({"paths": ["/root"], "maxdepth": 0}) == {"paths": ["/root"], "maxdepth": 0}
    assert sshkey.upgrade({"path": "/root"}) == {"paths": ["/root"]}
    module = load_module("sshkey")
    assert flag_parameters(module, {"path": ("/x",), "maxdepth": 3}) == {"paths": ["/x"], "maxdepth": 3}


def test_the_declared_weaknesses_are_those_that_are_told() -> None:
    assert set(get_args(sshkey.Weakness)) == {"short", "dsa", "exponent", "roca", "readable"}
