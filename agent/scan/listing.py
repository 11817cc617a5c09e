"""What is in a directory, by type: as its listing says, or for single names, as their status does."""

import errno
import itertools
import os
import stat
from typing import Dict, Iterable, Iterator, List, NamedTuple

from agent.scan.batch import LINK
from agent.scan.coverage import Witness
from agent.scan.roots import join

# As many names are taken, and sorted, at once; a larger directory comes in several runs, to bound memory.
SORTED_NAMES = 100_000


class Names(NamedTuple):
    """Names in a directory: regular files, and what the others are; in no order."""

    files: List[bytes]
    kinds: Dict[bytes, str]


class _Run(NamedTuple):
    """A part of a listing, by type."""

    files: List[str]
    links: List[str]
    directories: List[str]
    others: List[str]

    def take(self, listing: "Iterator[os.DirEntry[str]]") -> int:
        """Sort entries by type, the commonest first; return how many."""
        add_file, add_directory = self.files.append, self.directories.append
        for entry in listing:
            if entry.is_file(follow_symlinks=False):
                add_file(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                add_directory(entry.name)
            elif entry.is_symlink():
                self.links.append(entry.name)
            else:
                self.others.append(entry.name)
        return sum(map(len, self))


def list_names(
    descriptor: int, path: bytes, coverage: Witness, subdirectories: List[bytes], specials: List[bytes]
) -> Iterator[Names]:
    """Yield the files and links of a directory in runs; collect what else is in it."""
    try:
        listing = os.scandir(descriptor)
    except OSError as error:
        coverage.fail(path, error)
        return
    with listing:
        is_more = True
        while is_more:
            run = _Run([], [], [], [])
            try:
                is_more = run.take(itertools.islice(listing, SORTED_NAMES)) == SORTED_NAMES
            except OSError as error:
                coverage.fail(path, error)
                is_more = False
            subdirectories += _encoded(run.directories)
            specials += _encoded(run.others)
            yield Names(_encoded(run.files), dict.fromkeys(_encoded(run.links), LINK))


def look_up_names(
    descriptor: int, path: bytes, coverage: Witness, files: Iterable[bytes], specials: List[bytes]
) -> Names:
    """Return the entries of a directory in which single files only are wanted, without listing it."""
    entries = Names([], {})
    for name in sorted(files):
        try:
            mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
        except OSError as error:
            if error.errno != errno.ENOENT:
                coverage.fail(join(path, name), error)
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            specials.append(name)
            continue
        if stat.S_ISLNK(mode):
            entries.kinds[name] = LINK
        else:
            entries.files.append(name)
    return entries


def _encoded(names: List[str]) -> List[bytes]:
    """Return names as bytes; all at once, since no name holds a NUL."""
    return os.fsencode("\0".join(names)).split(b"\0") if names else []
