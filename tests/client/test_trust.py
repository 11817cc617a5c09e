"""`mig trust`: bundles are composed, shown, signed, checked and published by people with real keys."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from client.main import run_command_line
from protocol.envelope import TRUST, decode_envelope
from protocol.trust import TrustBundle, decode_bundle, make_roots, open_bundle
from tests.support.api import ApiServer
from tests.support.endpoint import make_bundle, sign_bundle, utc_now
from tests.support.gpg import Investigator, temporary_investigator

Printed = pytest.CaptureFixture[str]
Act = Callable[[Investigator], None]


@pytest.fixture(scope="module")
def rita() -> Iterator[Investigator]:
    """A holder of a root key."""
    with temporary_investigator("Rita Root") as investigator:
        yield investigator


@pytest.fixture(autouse=True)
def act_as(tmp_path: Path, ada: Investigator, monkeypatch: pytest.MonkeyPatch) -> Act:
    """Who sits at the keyboard: Ada, until the test says otherwise."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

    def sit_down(person: Investigator) -> None:
        config = tmp_path / "client.toml"
        config.write_text(
            '[client]\nserver = "http://127.0.0.1:9"\n'
            f'fingerprint = "{person.fingerprint}"\ngpg_home = "{person.home}"\n'
        )
        monkeypatch.setenv("MIG_CONFIG", str(config))

    sit_down(ada)
    return sit_down


class Desk:
    """A directory with keys and rights, and `mig trust` run in it."""

    def __init__(self, directory: Path, ada: Investigator, bob: Investigator) -> None:
        self.directory = directory
        self.ada, self.bob = ada, bob
        self.keys = directory / "keys"
        self.keys.mkdir()
        for person in (ada, bob):
            (self.keys / f"{person.fingerprint}.asc").write_bytes(person.public_key)
        self.rights = directory / "rights.toml"
        self.allow(f'"{ada.fingerprint}" = 1, "{bob.fingerprint}" = 1')

    def allow(self, weights: str, minimum: int = 1, more: str = "") -> None:
        """Say who may do what."""
        self.rights.write_text(
            f"[agent.acl.default]\nminimum_weight = {minimum}\ninvestigators = {{ {weights} }}\n{more}"
        )

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def compose(self, name: str = "trust-1.json", *words: str) -> int:
        """Compose a bundle from the directory."""
        given = ["--config", str(self.rights), "--keys", str(self.keys), "-o", self.path(name)]
        return run_command_line(["trust", "new", *given, *words])

    def read(self, name: str) -> TrustBundle:
        """Read a bundle, signed or not."""
        return decode_bundle(decode_envelope((self.directory / name).read_bytes(), TRUST).payload)


@pytest.fixture
def desk(tmp_path: Path, ada: Investigator, bob: Investigator) -> Desk:
    return Desk(tmp_path, ada, bob)


def test_a_new_bundle_says_whom_agents_will_obey_and_is_written_once(desk: Desk, capsys: Printed) -> None:
    desk.allow(
        f'"{desk.ada.fingerprint}" = 2, "{desk.bob.fingerprint}" = 1',
        minimum=2,
        more='paths = ["/etc"]\ndeny = ["/etc/ssh"]\nfields = true\n'
        f'[agent.trust]\nmanage = ["{desk.ada.fingerprint}"]\n',
    )
    assert desk.compose("trust-1.json", "--expires", "30d") == 0
    printed = capsys.readouterr()
    assert printed.out == desk.path("trust-1.json") + "\n"
    for said in (
        "trust bundle 1  sha256 ",
        "(30 days left)",
        f"trusts {desk.ada.fingerprint}  {desk.ada.user_id}  may cancel what others signed",
        f"trusts {desk.bob.fingerprint}  {desk.bob.user_id}\n",
        "default: needs weight 2 of ",
        "only below /etc; never below /etc/ssh; may give matched text",
        "not signed yet: mig trust sign ",
    ):
        assert said in printed.err
    bundle = desk.read("trust-1.json")
    assert (bundle.version, bundle.manage) == (1, (desk.ada.fingerprint,))
    assert (bundle.expires - bundle.created).days == 30
    assert desk.compose("trust-1.json") == 2
    assert "is there already" in capsys.readouterr().err


def test_a_bundle_follows_another_with_somebody_revoked_or_added(
    desk: Desk, rita: Investigator, capsys: Printed
) -> None:
    assert desk.compose() == 0
    capsys.readouterr()
    spaced = " ".join([desk.bob.fingerprint[:20], desk.bob.fingerprint[20:].lower()])
    follow = ["trust", "new", "--from", desk.path("trust-1.json")]
    assert run_command_line([*follow, "--revoke", spaced, "-o", desk.path("trust-2.json")]) == 0
    second = desk.read("trust-2.json")
    assert second.version == 2
    assert [one.fingerprint for one in second.investigators] == [desk.ada.fingerprint]
    assert second.acl["default"].investigators == {desk.ada.fingerprint: 1}
    assert desk.bob.fingerprint not in capsys.readouterr().err
    key = desk.directory / "rita.asc"
    key.write_bytes(rita.public_key)
    words = [
        "--keys",
        str(key),
        "--manage",
        rita.fingerprint,
        "--version",
        "9",
        "-o",
        desk.path("trust-9.json"),
    ]
    assert run_command_line([*follow, *words]) == 0
    ninth = desk.read("trust-9.json")
    assert (ninth.version, ninth.manage) == (9, (rita.fingerprint,))
    assert {one.fingerprint for one in ninth.investigators} >= {rita.fingerprint, desk.bob.fingerprint}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--from", "trust-1.json", "--version", "1"], 2, "version 1 is not above that of"),
        (["--from", "trust-1.json", "--revoke", "F" * 40], 2, "is not in the bundle"),
        (["--from", "trust-1.json", "--manage", "F" * 40], 4, "who is not in the bundle"),
        (["--from", "trust-1.json", "--expires", "soon"], 2, "soon"),
        (["--from", "rights.toml"], 4, "bad-json"),
        (["--from", "none.json"], 2, "No such file"),
        (["--from", "trust-1.json", "--keys", "rights.toml"], 2, "bad-key"),
        (["--config", "trust-1.json"], 2, "bad-config"),
        ([], 2, "start --from a bundle, or give --config and --keys"),
    ],
)
def test_what_makes_no_bundle_is_said_in_one_line(
    desk: Desk, capsys: Printed, words: list[str], code: int, said: str
) -> None:
    assert desk.compose() == 0
    capsys.readouterr()
    words = [desk.path(word) if "." in word else word for word in words]
    assert run_command_line(["trust", "new", *words, "-o", desk.path("x.json")]) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (desk.directory / "x.json").exists()


def test_nobody_is_revoked_whom_an_acl_cannot_do_without(desk: Desk, capsys: Printed) -> None:
    desk.allow(f'"{desk.ada.fingerprint}" = 1')
    assert desk.compose() == 0
    words = ["--from", desk.path("trust-1.json"), "--revoke", desk.ada.fingerprint, "-o", desk.path("x.json")]
    assert run_command_line(["trust", "new", *words]) == 2
    assert "nobody could run default: give a new ACL" in capsys.readouterr().err


def test_each_holder_of_a_root_adds_a_signature_and_the_roots_say_when_it_is_enough(
    desk: Desk, act_as: Act, rita: Investigator, bob: Investigator, capsys: Printed
) -> None:
    roots = desk.directory / "roots"
    roots.mkdir()
    for root in (rita, bob):
        (roots / f"{root.name[:3]}.asc").write_bytes(root.public_key)
    path = desk.path("trust-1.json")
    assert desk.compose() == 0
    show = ["trust", "show", path, "--roots", str(roots), "--threshold", "2"]
    assert run_command_line(show) == 4
    assert "signed by 0 of 2 roots needed" in capsys.readouterr().err
    for root, code in ((rita, 4), (bob, 0)):
        act_as(root)
        assert run_command_line(["trust", "sign", path, "--yes"]) == 0
        assert "default: needs weight 1" in capsys.readouterr().err  # what is signed is shown first
        assert run_command_line(show) == code
        assert f"signed by {root.fingerprint} {root.user_id}" in capsys.readouterr().out
    assert run_command_line(["trust", "sign", path, "--yes"]) == 0  # once more: in place of the one before
    assert _signers(desk) == [rita.fingerprint, bob.fingerprint]
    opened = open_bundle(
        (desk.directory / "trust-1.json").read_bytes().strip(),
        make_roots([rita.public_key, bob.public_key], [rita.fingerprint, bob.fingerprint], 2),
        utc_now(),
    )
    assert opened.signers == {rita.fingerprint, bob.fingerprint}


def _signers(desk: Desk) -> list[str]:
    envelope = decode_envelope((desk.directory / "trust-1.json").read_bytes(), TRUST)
    return [signature.keyid for signature in envelope.signatures]


def test_a_signature_by_a_stranger_counts_nothing(
    desk: Desk, rita: Investigator, ada: Investigator, capsys: Printed
) -> None:
    roots = desk.directory / "roots"
    roots.mkdir()
    (roots / "rita.asc").write_bytes(rita.public_key)
    path = desk.directory / "trust-3.json"
    path.write_bytes(sign_bundle(make_bundle(3, ada), ada))
    assert run_command_line(["trust", "show", str(path), "--roots", str(roots)]) == 4
    printed = capsys.readouterr()
    assert f"refused {ada.fingerprint}: there is no such key" in printed.out
    assert "signed by 0 of 1 roots needed" in printed.err
    path.write_bytes(sign_bundle(make_bundle(3, ada, expires_s=-1), rita))
    assert run_command_line(["trust", "show", str(path), "--roots", str(roots)]) == 4
    assert "(EXPIRED)" in capsys.readouterr().out


def test_what_has_expired_or_cannot_be_confirmed_is_not_signed(
    desk: Desk, ada: Investigator, capsys: Printed
) -> None:
    path = desk.directory / "old.json"
    expired = sign_bundle(make_bundle(3, ada, expires_s=-1))
    path.write_bytes(expired)
    assert run_command_line(["trust", "sign", str(path), "--yes"]) == 4
    assert "trust-expired" in capsys.readouterr().err
    path.write_bytes(sign_bundle(make_bundle(3, ada)))
    assert run_command_line(["trust", "sign", str(path)]) == 2  # nobody is there to be asked
    assert "--yes" in capsys.readouterr().err
    assert decode_envelope(path.read_bytes(), TRUST).signatures == ()


def test_names_in_a_bundle_are_hostile_text(desk: Desk, ada: Investigator, capsys: Printed) -> None:
    bundle = make_bundle(3, ada)
    bundle["investigators"][0]["name"] = "Ada\x1b[2J\u202e\ntrusts nobody"
    path = desk.directory / "trust-3.json"
    path.write_bytes(sign_bundle(bundle, ada))
    assert run_command_line(["trust", "show", str(path)]) == 0
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\u202e")
    assert not any(line.startswith("trusts nobody") for line in out.splitlines())


def test_a_bundle_is_shown_as_json_as_it_was_signed(
    desk: Desk, ada: Investigator, bob: Investigator, capsys: Printed
) -> None:
    bundle = make_bundle(3, ada, bob)
    path = desk.directory / "trust-3.json"
    path.write_bytes(sign_bundle(bundle, ada))
    assert run_command_line(["trust", "show", str(path), "--json"]) == 0
    printed = capsys.readouterr()
    shown = json.loads(printed.out)
    assert msgspec.convert(shown, TrustBundle) == decode_bundle(json.dumps(bundle).encode())
    assert f"signed by {ada.fingerprint}" in printed.err


# -- with a server -------------------------------------------------------------------------------------------


@pytest.fixture
def publish(api: ApiServer, tmp_path: Path) -> Callable[[bytes], int]:
    """Publish a bundle, and return the exit code."""
    path = tmp_path / "trust.json"

    def run(body: bytes) -> int:
        path.write_bytes(body)
        return run_command_line(["trust", "publish", str(path), "--yes"])

    return run


def test_a_bundle_is_published_and_fetched_as_it_was_signed(
    api: ApiServer, tmp_path: Path, ada: Investigator, rita: Investigator, capsys: Printed
) -> None:
    path, fetched = tmp_path / "trust-1.json", tmp_path / "fetched.json"
    assert run_command_line(["trust", "show"]) == 2
    assert "no trust bundle is published" in capsys.readouterr().err
    body = sign_bundle(make_bundle(1, ada), rita)
    path.write_bytes(body + b"\n")
    for said in ("bundle 1 on its way; who holds it: mig agents", "bundle 1 was published before"):
        assert run_command_line(["trust", "publish", str(path), "--yes"]) == 0
        printed = capsys.readouterr()
        assert printed.out == "1\n"
        assert said in printed.err
    assert run_command_line(["trust", "show", "-o", str(fetched)]) == 0
    assert decode_envelope(fetched.read_bytes(), TRUST) == decode_envelope(body, TRUST)
    newest = api.store.newest_trust()
    assert newest is not None
    assert newest.publisher == ada.fingerprint


def test_what_the_server_refuses_is_said_with_its_code(
    publish: Callable[[bytes], int], ada: Investigator, capsys: Printed
) -> None:
    assert publish(sign_bundle(make_bundle(5, ada), ada)) == 0
    for version, expires_s, said in (
        (1, 60, "stale-trust: version 1; 5 is published"),
        (5000, 60, "trust-gap: version 5000; 5 is published"),
        (6, -1, "trust-expired"),
    ):
        capsys.readouterr()
        assert publish(sign_bundle(make_bundle(version, ada, expires_s=expires_s), ada)) == 4
        assert said in capsys.readouterr().err


def test_what_nobody_has_signed_is_not_even_sent(
    publish: Callable[[bytes], int], ada: Investigator, capsys: Printed
) -> None:
    assert publish(sign_bundle(make_bundle(5, ada))) == 4
    assert "nobody has signed it: mig trust sign " in capsys.readouterr().err


def test_publishing_takes_the_right_to_manage(
    api: ApiServer, tmp_path: Path, ada: Investigator, capsys: Printed
) -> None:
    api.store.add_investigator(ada.fingerprint, ada.name, ada.public_key, ("read",), api.now())
    path = tmp_path / "trust.json"
    path.write_bytes(sign_bundle(make_bundle(1, ada), ada))
    assert run_command_line(["trust", "publish", str(path), "--yes"]) == 4
    assert "forbidden" in capsys.readouterr().err
