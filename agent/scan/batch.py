"""What the walk hands to whoever judges: names of one directory, and the searches that are active there.

By columns, not by entries: most names are those of regular files that no search wants, and an object for each
would cost more than looking at it.
"""

from typing import Mapping, NamedTuple, Tuple

from agent.scan.roots import Root

FILE = "file"
LINK = "link"
# An entry of whatever type, for searches that ask for types: it is looked at as it is, and a link is not
# looked through. Its status tells what it is.
ENTRY = "entry"


class Batch(NamedTuple):
    """Entries of one directory and the searches that are active for all of them.

    `kinds` says what those names are that are no regular files; a listing says no more. With `is_sifted`
    those names of files are left out, and counted, that no search wants for their name. The descriptor is
    open until the next batch is asked for. A batch without names, of a directory that holds about `unlisted`
    ones, stands for all of them (`agent.scan.leaf`).
    """

    directory: int
    path: bytes
    names: Tuple[bytes, ...]
    kinds: Mapping[bytes, str]
    active: Tuple[Root, ...]
    is_sifted: bool = False
    unlisted: int = 0
