"""Every case of the OpenPGP tests, judged by our policy, by Sequoia and by the gpg that is installed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.protocol.test_openpgp import SIGNATURES
from tests.protocol.test_openpgp_validity import BY_PRIMARY, BY_SUBKEY
from tests.protocol.test_openpgp_vectors import CASES as VECTOR_NAMES
from tests.protocol.test_openpgp_vectors import NOW as VECTOR_NOW
from tests.protocol.test_openpgp_vectors import read_vector
from tests.support.gpg import temporary_investigator
from tests.support.openpgp_differences import DIFFERENCES, VOICES
from tests.support.openpgp_forge import MESSAGE, NOW, SUBKEY, WITH_SUBKEY, sign
from tests.support.openpgp_life import MOMENTS, Moment, live
from tests.support.openpgp_opinions import Case, is_accepted_by_gpg, is_accepted_by_sequoia, refusal

ROOT = Path(__file__).resolve().parents[2]
BIRTH = datetime(2026, 11, 1, tzinfo=UTC)  # in the past for Sequoia, which has its own clock
ACCEPTED = {name: set(who.split()) for row in DIFFERENCES for name, who in row.accepted.items()}

CASES: dict[str, tuple[Case, datetime]] = {
    **{f"vectors/{name}": (read_vector(name), VECTOR_NOW) for name in VECTOR_NAMES},
    **{
        f"signature/{name}": (Case(WITH_SUBKEY, made, MESSAGE), NOW) for name, (made, _) in SIGNATURES.items()
    },
    **{name: (Case(made, sign(), MESSAGE), NOW) for name, (made, _) in BY_PRIMARY.items()},
    **{name: (Case(made, sign(by=SUBKEY), MESSAGE), NOW) for name, (made, _) in BY_SUBKEY.items()},
}


def accepts(name: str, voice: str) -> bool:
    """Tell whether `voice` should accept a case: as we do, but for the known differences."""
    case, now = CASES[name]
    if name in ACCEPTED:
        return voice in ACCEPTED[name]
    return refusal(case, now) is None


@pytest.mark.parametrize("name", CASES)
def test_we_and_sequoia_say_what_the_table_of_differences_says(name: str) -> None:
    case, now = CASES[name]
    assert (refusal(case, now) is None) == accepts(name, "MIG")
    assert is_accepted_by_sequoia(case) == accepts(name, "Sequoia")


@pytest.mark.system
@pytest.mark.parametrize("name", CASES)
def test_gpg_says_what_the_table_of_differences_says(name: str) -> None:
    case, now = CASES[name]
    assert is_accepted_by_gpg(case, now) == accepts(name, "gpg")


@pytest.fixture(
    scope="module",
    params=["rsa2048", "rsa3072", "rsa4096", "ed25519", "nistp256", "nistp384", "nistp521"],
)
def life(request: pytest.FixtureRequest) -> Iterator[dict[str, Moment]]:
    """The life of a key of every algorithm that we know, led with the gpg that is installed."""
    with temporary_investigator("Dave Investigator", request.param, BIRTH) as dave:
        yield live(dave, request.param)


@pytest.mark.system
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_key_that_people_use_with_gpg_is_believed_while_it_may_sign(
    life: dict[str, Moment], moment: str
) -> None:
    case, now = life[moment]
    expected = ACCEPTED.get(f"gpg/{moment}", set(VOICES) if MOMENTS[moment] else set())
    why = refusal(case, now)
    assert (why is None) == MOMENTS[moment] == ("MIG" in expected), why
    assert is_accepted_by_gpg(case, now) == ("gpg" in expected)
    assert is_accepted_by_sequoia(case) == ("Sequoia" in expected)
    other = case._replace(message=case.message + b" ")
    assert refusal(other, now) is not None


def test_every_difference_is_one_and_has_its_case() -> None:
    names = [name for row in DIFFERENCES for name in row.accepted]
    assert len(names) == len(set(names))
    assert set(names) <= {*CASES, *(f"gpg/{moment}" for moment in MOMENTS)}
    assert all(0 < len(who) < 3 for who in ACCEPTED.values())  # where all agree there is no difference
    assert {"MIG"} not in ACCEPTED.values()  # nothing is accepted that both others refuse


def test_the_threat_model_shows_every_class_of_difference() -> None:
    rows = [row.row for row in DIFFERENCES]
    text = (ROOT / "docs" / "threat-model.md").read_text("utf-8")
    shown = [line for line in text.splitlines() if line in rows]
    assert shown == rows, "\n".join(rows)
    first = text.splitlines().index(rows[0])
    assert text.splitlines()[first + len(rows)] == ""
