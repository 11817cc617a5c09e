"""How many examples of a property are tried: fewer by `./test --fast`."""

from hypothesis import settings

# Known when tests are collected: the profile is chosen before that.
USUAL_EXAMPLES: int = settings().max_examples
