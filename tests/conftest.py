"""Fixtures that every part of the tests may use."""

import faulthandler
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.broker import broker, clean_broker  # noqa: F401  (fixtures)
from tests.support.gpg import Investigator, temporary_investigator

# Machines are noisy: no test may fail by the clock. Outside of ./test the seed is random; a failure prints
# how to repeat it.
settings.register_profile("mig", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
# ./test --fast tries fewer examples of each property, ./test all of them.
settings.register_profile("quick", settings.get_profile("mig"), max_examples=20)
settings.load_profile("mig")

# A shell starts background jobs with SIGINT ignored, and children inherit that: tests of Ctrl-C would wait.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


# Forked processes that a test has die of a signal need not say where: their parent says what it made of it.
os.register_at_fork(after_in_child=faulthandler.disable)

# Every test in these starts gpg or processes of its own: real parts, and too long for ./test --fast.
_ON_REAL_PARTS = (
    "tests/agent/runtime/test_judging.py",
    "tests/agent/runtime/test_recurring.py",
    "tests/agent/runtime/test_running.py",
    "tests/agent/runtime/test_supervisor.py",
    "tests/agent/runtime/test_trust_intake.py",
    "tests/agent/scan/test_memory_scan.py",
    "tests/agent/test_main.py",
    "tests/client/test_main.py",
    "tests/client/test_trust.py",
    "tests/hostile/",
    "tests/server/api/",
)


# A file is one worker's: begun last, one that takes minutes would leave the other workers idle at the end.
_LONGEST = (
    "tests/system/test_broker_cluster.py",
    "tests/system/test_quickstart.py",
    "tests/test_build_zipapp.py",
    "tests/crash/",
    "tests/system/",
    "tests/server/test_broker",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs on real parts by where it stands, and put first what takes longest."""
    for item in items:
        if item.nodeid.startswith(_ON_REAL_PARTS):
            item.add_marker(pytest.mark.system)
    items.sort(key=lambda item: [not item.nodeid.startswith(path) for path in _LONGEST])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI a skipped test is a check that nobody runs: it fails."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
