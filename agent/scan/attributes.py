"""Checks on extended attributes, capabilities among them.

Rules:

* A file is opened for this without any right to its content (O_PATH), and its attributes are had through the
  entry of that descriptor in /proc/self/fd: so a device, a FIFO, a link and a file that we may not read tell
  theirs, and what was judged by the access rules is what is asked.
* One attribute at a time is looked at, so that a file with many large ones fills no memory. No value leaves
  this file: an answer says which check held.
* A file whose attributes cannot be had satisfies no check on them, inverted or not, and that is said.

Source: xattr(7), listxattr(2); open(2) on O_PATH.
"""

import errno
import os
from typing import FrozenSet, Iterable, List, NamedTuple, Optional, Sequence, Set, Union

from agent.scan.capabilities import ATTRIBUTE, decode_capabilities
from agent.scan.coverage import Witness
from agent.scan.fence import Fence
from agent.scan.opening import open_for_status
from agent.scan.patterns import TextPattern
from protocol.errors import InvalidInput

# What a file or a file system answers that has no such attribute, or none at all.
_NONE = (errno.ENODATA, errno.ENOTSUP, errno.EOPNOTSUPP)


class Attributes(NamedTuple):
    """What the attributes of a file told: the expressions that one of them matched, and its capabilities."""

    matched: FrozenSet[TextPattern]
    capabilities: int


class AttributeCheck(NamedTuple):
    """A check that some attribute matches an expression; `said` is how an answer names it."""

    said: str
    wanted: bool
    pattern: TextPattern

    def holds(self, attributes: Optional[Attributes]) -> bool:
        """Tell whether the check holds; for nobody where the attributes are not known."""
        return attributes is not None and (self.pattern in attributes.matched) is self.wanted


class CapabilityCheck(NamedTuple):
    """A check that the file gives a capability."""

    said: str
    wanted: bool
    mask: int

    def holds(self, attributes: Optional[Attributes]) -> bool:
        """Tell whether the check holds; for nobody where the attributes are not known."""
        return attributes is not None and bool(attributes.capabilities & self.mask) is self.wanted


AnyAttributeCheck = Union[AttributeCheck, CapabilityCheck]


def require_attributes(what: str) -> None:
    """Refuse a search for attributes where the system, or Python on it, does not give them.

    Raises:
        InvalidInput: `unsupported`.

    """
    if not hasattr(os, "listxattr"):
        raise InvalidInput("unsupported", f"{what} needs extended attributes, which are read on Linux only")


class AttributeReader:
    """Reads what checks ask of the attributes of one file after the other."""

    def __init__(self, coverage: Witness, fence: Fence) -> None:
        self._coverage = coverage
        self._fence = fence

    def read(
        self,
        name: bytes,
        directory: int,
        *,
        follow: bool,
        status: os.stat_result,
        path: bytes,
        checks: Iterable[AnyAttributeCheck],
    ) -> Optional[Attributes]:
        """Return what the attributes of a file say; None where it cannot be told, which is said."""
        try:
            descriptor = open_for_status(name, directory, follow=follow)
        except FileNotFoundError:
            self._coverage.vanish(path)
            return None
        except OSError as error:
            self._coverage.fail(path, error)
            return None
        try:
            if not self._fence.admits(descriptor):
                self._coverage.withhold(path)
                return None
            now = os.fstat(descriptor)
            if (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino):
                self._coverage.lose(path, "was replaced while the scan ran")
                return None
            return _ask(b"/proc/self/fd/%d" % descriptor, checks)
        except OSError as error:
            self._coverage.fail(path, error)
        except ValueError as error:
            self._coverage.lose(path, str(error))
        finally:
            os.close(descriptor)
        return None


def _ask(path: bytes, checks: Iterable[AnyAttributeCheck]) -> Attributes:
    patterns: List[TextPattern] = []
    wants_capabilities = False
    for check in checks:
        if isinstance(check, AttributeCheck):
            patterns.append(check.pattern)
        else:
            wants_capabilities = True
    value = _value(path, ATTRIBUTE) if wants_capabilities else None
    return Attributes(
        frozenset(_match(path, patterns)) if patterns else frozenset(),
        0 if value is None else decode_capabilities(value),
    )


def _match(path: bytes, patterns: Sequence[TextPattern]) -> Set[TextPattern]:
    """Return the expressions that match the name of some attribute, or `name=value`."""
    found: Set[TextPattern] = set()
    try:
        names = os.listxattr(path)
    except OSError as error:
        if error.errno not in _NONE:
            raise
        return found
    for name in names:
        value = _value(path, name)
        # Removed since it was listed.
        if value is None:
            continue
        shown = os.fsencode(name)
        texts = (shown, shown + b"=" + value)
        found.update(
            pattern
            for pattern in patterns
            if pattern not in found and any(pattern.is_in(text) for text in texts)
        )
        if len(found) == len(patterns):
            break
    return found


def _value(path: bytes, name: str) -> Optional[bytes]:
    try:
        return os.getxattr(path, name)
    except OSError as error:
        if error.errno not in _NONE:
            raise
        return None
