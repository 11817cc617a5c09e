"""Agents without a link, for every test of the resident's parts."""

from tests.support.resident import make_agent, trouble  # noqa: F401  (fixtures)
