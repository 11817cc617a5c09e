"""What tests of the agent share."""

from tests.support.watching import make_watched  # noqa: F401  (a fixture)
