"""Fixtures that every part of the tests may use."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.broker import broker, clean_broker  # noqa: F401  (fixtures)
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


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI a skipped test is a check that nobody runs: it fails."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
