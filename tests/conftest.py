"""Fixtures that every part of the tests may use."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.gpg import Investigator, temporary_investigator

# Machines are noisy: no test may fail by the clock. The seed is random; a failure prints how to repeat it.
settings.register_profile("mig", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("mig")


@pytest.fixture(scope="session")
def ada() -> Iterator[Investigator]:
    """An investigator with an Ed25519 key."""
    with temporary_investigator("Ada Investigator") as investigator:
        yield investigator


@pytest.fixture(scope="session")
def bob() -> Iterator[Investigator]:
    """A second investigator, with an RSA key."""
    with temporary_investigator("Bob Investigator", "rsa3072") as investigator:
        yield investigator
