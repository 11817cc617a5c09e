"""The digest cache among the agent's state: opened where the build wants one, removed where it does not.

Children are lent the open file (`agent.scan.cache`), and know no path. What cannot be opened is done without.

Standard library only: the resident agent imports this module.
"""

import contextlib
import logging
from pathlib import Path
from typing import Optional

from agent.config import Baked
from agent.digest_file import open_cache

CACHE_FILE = "digests"
_LOG = logging.getLogger("mig.agent.digest_cache")


def open_digest_cache(baked: Baked, directory: Path) -> Optional[int]:
    """Return an open descriptor of the cache in a state directory; None where there is none."""
    path = directory / CACHE_FILE
    if not baked.config.scan.digest_cache:
        with contextlib.suppress(OSError):  # what another build has left is of no use, and in nobody's way
            path.unlink()
        return None
    try:
        opened = open_cache(path, baked.build)
    except OSError as error:
        _LOG.warning("there is no digest cache: %s: %s", path, error.strerror)
        return None
    if opened.replaced:
        _LOG.warning("the digest cache begins anew, since %s %s", path, opened.replaced)
    return opened.descriptor
