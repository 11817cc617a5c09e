"""Tests of the keys in files, held against ssh-keygen and puttygen."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.platform.ssh_files import FoundKey, parse_keys
from tests.agent.platform.ssh_samples import FORMATS, KINDS, make_key, said_of
from tests.support.examples import USUAL_EXAMPLES

pytestmark = pytest.mark.system


def only(path: Path, name: bytes | None = None) -> FoundKey:
    keys, broken = parse_keys(path.read_bytes(), name or path.name.encode())
    assert (len(keys), broken) == (1, 0)
    return keys[0]


def assert_is(key: FoundKey, path: Path) -> None:
    assert key.public is not None
    assert (key.public.bits, key.public.sha256) == said_of(path)
    assert key.public.md5 == said_of(path, "md5")[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_private_key_is_told_in_every_format(tmp_path: Path, kind: str, format: str) -> None:  # noqa: A002
    if kind == "ed25519" and format == "pem":
        # OpenSSH writes its own format then.
        format = "openssh"  # noqa: A001
    path = make_key(tmp_path / "key", kind, format=format)
    key = only(path)
    assert (key.kind, key.is_encrypted) == ("private", False)
    assert key.format == format or (kind == "ed25519" and format == "pkcs8")
    assert_is(key, path)


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_an_encrypted_key_of_openssh_still_tells_which_it_is(tmp_path: Path, kind: str) -> None:
    path = make_key(tmp_path / "key", kind, passphrase="hard to guess")
    key = only(path)
    assert key.is_encrypted is True
    assert_is(key, path)


@pytest.mark.parametrize("format", ["pem", "pkcs8"])
def test_an_encrypted_key_in_pem_tells_only_that_it_is_there(tmp_path: Path, format: str) -> None:  # noqa: A002
    key = only(make_key(tmp_path / "key", "rsa", format=format, passphrase="hard to guess"))
    assert (key.kind, key.format, key.is_encrypted, key.public) == ("private", format, True, None)


def test_a_key_of_dsa_is_weak(tmp_path: Path) -> None:
    subprocess.run(
        ["/usr/bin/ssh-keygen", "-q", "-t", "dsa", "-N", "", "-f", str(tmp_path / "key")], check=True
    )
    for path in (tmp_path / "key", tmp_path / "key.pub"):
        key = only(path)
        assert key.public is not None
        assert key.public.weak == ("dsa",)
        assert_is(key, path)


@pytest.mark.parametrize("passphrase", ["", "hard to guess"])
@pytest.mark.parametrize("kind", ["rsa", "ecdsa-256", "ed25519"])
def test_a_key_of_putty_is_told(tmp_path: Path, kind: str, passphrase: str) -> None:
    path = make_key(tmp_path / "key", kind)
    (tmp_path / "new").write_text(passphrase)
    (tmp_path / "old").write_text("")
    command = ["/usr/bin/puttygen", str(path), "-O", "private", "-o", str(tmp_path / "key.ppk")]
    files = ["--old-passphrase", str(tmp_path / "old"), "--new-passphrase", str(tmp_path / "new")]
    subprocess.run([*command, *files], check=True)
    key = only(tmp_path / "key.ppk")
    assert (key.kind, key.format, key.is_encrypted) == ("private", "putty", bool(passphrase))
    assert key.comment == f"a {kind}".encode()
    assert_is(key, path)


def test_a_public_key_of_rfc_4716_is_told(tmp_path: Path) -> None:
    path = make_key(tmp_path / "key", "rsa")
    text = subprocess.run(
        ["/usr/bin/ssh-keygen", "-e", "-f", str(path)], check=True, capture_output=True
    ).stdout
    header = b"x-note: goes on \\\nbehind: this\n"
    lines = text.split(b"\n")
    (tmp_path / "key.ssh2").write_bytes(b"\n".join([lines[0], header.rstrip(b"\n"), *lines[1:]]))
    key = only(tmp_path / "key.ssh2")
    assert (key.kind, key.format) == ("public", "rfc4716")
    assert b"2048-bit RSA" in key.comment
    assert_is(key, path)


def test_a_certificate_tells_for_whom_and_who_signed(tmp_path: Path) -> None:
    authority, path = make_key(tmp_path / "ca", "ed25519"), make_key(tmp_path / "key", "ecdsa-256")
    sign = ["/usr/bin/ssh-keygen", "-q", "-s", str(authority), "-I", "visitor 7", "-n", "eve,bob"]
    subprocess.run([*sign, "-V", "20200101000000Z:20300101000000Z", str(tmp_path / "key.pub")], check=True)
    key = only(tmp_path / "key-cert.pub")
    assert key.kind == "certificate"
    assert key.public is not None
    assert (key.public.bits, key.public.sha256) == said_of(path)
    certificate = key.public.certificate
    assert certificate is not None
    assert (certificate.key_id, certificate.is_host) == (b"visitor 7", False)
    assert certificate.principals == (b"eve", b"bob")
    assert certificate.valid_before_s == 1_893_456_000
    assert certificate.signer_sha256 == said_of(authority)[1]
    for_ever = [*sign[:4], "-h", "-I", "host", str(tmp_path / "key.pub")]
    subprocess.run(for_ever, check=True)
    again = only(tmp_path / "key-cert.pub").public
    assert again is not None
    assert again.certificate is not None
    assert (again.certificate.is_host, again.certificate.valid_before_s) == (True, None)


def test_lines_of_authorized_keys_tell_their_options_and_never_a_command(tmp_path: Path) -> None:
    public = make_key(tmp_path / "key", "ed25519").with_suffix(".pub").read_text().strip()
    options = r'from="10.0.0.0/8,!10.1.2.3",command="run \"a b\", c # ssh-rsa",no-pty,environment="T=secret"'
    text = f"# a note\n\n{public}\n{options} {public}\nrestrict {public}\nnot a key\nssh-ed25519 AAAA! x\n"
    keys, broken = parse_keys(text.encode(), b"authorized_keys")
    assert [key.line for key in keys] == [3, 4, 5]
    assert {key.kind for key in keys} == {"authorized"}
    assert keys[1].options == (b"from", b"command", b"no-pty", b"environment")
    assert keys[1].origins == (b"10.0.0.0/8", b"!10.1.2.3")
    assert [key.has_command for key in keys] == [False, True, False]
    assert keys[0].comment == b"a ed25519"
    assert broken == 2
    assert parse_keys(b"not a key\nfrom=x y\n", b"notes") == ([], 0)
    assert [key.kind for key in parse_keys(public.encode(), b"key.pub")[0]] == ["public"]


def test_a_key_under_another_kind_s_name_is_none(tmp_path: Path) -> None:
    public = make_key(tmp_path / "key", "ed25519").with_suffix(".pub").read_bytes()
    assert parse_keys(public.replace(b"ssh-ed25519", b"ssh-rsa"), b"x.pub") == ([], 1)


@pytest.mark.parametrize("format", FORMATS)
def test_a_key_that_was_damaged_anywhere_is_a_key_or_is_counted(tmp_path: Path, format: str) -> None:  # noqa: A002
    whole = make_key(tmp_path / "key", "ecdsa-256", format=format).read_bytes()
    for at in range(len(whole)):
        for changed in (
            whole[:at],
            whole[:at] + b"A" + whole[at + 1 :],
            whole[:at] + b"\xff" + whole[at + 1 :],
        ):
            keys, broken = parse_keys(changed, b"key")
            assert len(keys) + broken <= 1


@settings(max_examples=USUAL_EXAMPLES, deadline=None)
@given(
    st.sampled_from(
        [b"", b"-----BEGIN EC PRIVATE KEY-----\n", b"PuTTY-User-Key-File-2: x\nPublic-Lines: 9\n"]
    ),
    st.binary(max_size=300),
    st.sampled_from([b"authorized_keys", b"x"]),
)
def test_any_bytes_are_keys_or_are_counted(head: bytes, data: bytes, name: bytes) -> None:
    keys, broken = parse_keys(head + data, name)
    assert len(keys) >= 0
    assert broken >= 0
