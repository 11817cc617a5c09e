"""Tests of where sshd looks for keys, and how many there are."""

from pathlib import Path

import pytest

from agent.platform.accounts_local import Account, Password
from agent.platform.authorized_keys import AuthorizedKeys, hostname_of
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import grow

EVE = Account(b"eve", 1000, 1000, b"/home/eve", b"/bin/sh", Password("set"))
PLAIN = [b"/home/eve/.ssh/authorized_keys", b"/home/eve/.ssh/authorized_keys2"]


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (b"", PLAIN),
        (b"# AuthorizedKeysFile /x\nPort 22\n", PLAIN),
        (b"AuthorizedKeysFile /etc/ssh/keys/%u .ssh/k\n", [b"/etc/ssh/keys/eve", b"/home/eve/.ssh/k"]),
        (b"authorizedkeysfile=%h/a-%U-%%h\nAuthorizedKeysFile /second\n", [b"/home/eve/a-1000-%h"]),
        (b"Match User x\n AuthorizedKeysFile /x\n", PLAIN),
        (b"Include sshd_config.d/*.conf\nAuthorizedKeysFile /late\n", [b"/included"]),
        (b"AuthorizedKeysFile none\n", []),
    ],
)
def test_the_files_are_those_that_the_configuration_names(
    tmp_path: Path, text: bytes, paths: list[bytes]
) -> None:
    grow(
        tmp_path,
        {"etc/ssh/sshd_config": text, "etc/ssh/sshd_config.d/1.conf": b'AuthorizedKeysFile "/included"\n'},
    )
    keys = AuthorizedKeys(Rooted(str(tmp_path)))
    assert keys.paths(EVE) == paths


def test_keys_are_lines_that_are_no_comments(tmp_path: Path) -> None:
    grow(tmp_path, {"home/eve/.ssh/authorized_keys": b"# one\nssh-rsa A\n\n  ssh-ed25519 B\n"})
    keys = AuthorizedKeys(Rooted(str(tmp_path)))
    assert keys.count(EVE) == 2
    assert keys.count(EVE._replace(home=b"")) == 0


def test_keys_that_cannot_be_read_are_not_none(tmp_path: Path) -> None:
    (tmp_path / "home/eve/.ssh/authorized_keys").mkdir(parents=True)
    (tmp_path / "home/eve/.ssh/authorized_keys2").symlink_to("authorized_keys2")
    assert AuthorizedKeys(Rooted(str(tmp_path))).count(EVE) is None


def test_an_image_s_name_is_its_own(tmp_path: Path) -> None:
    assert hostname_of(Rooted(str(grow(tmp_path, {"etc/hostname": b"image\n"})))) == "image"
    assert hostname_of(Rooted())


def test_includes_without_end_are_cut(tmp_path: Path) -> None:
    again = b"Include /etc/ssh/sshd_config.d/*.conf\n" * 3
    grow(
        tmp_path,
        {"etc/ssh/sshd_config": again, **{f"etc/ssh/sshd_config.d/{n}.conf": again for n in range(9)}},
    )
    files = Rooted(str(tmp_path))
    assert AuthorizedKeys(files).paths(EVE) == PLAIN
    assert files.errors > 0
