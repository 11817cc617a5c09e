"""Directories that hold no others: who judges their files lists them too, so that no name has to travel.

Rules:

* That a directory holds no others is known before it is listed where its file system counts them in the
  number of its links (2: its name and its own `.`), as find(1) has always gone by; of other file systems
  nothing is concluded, and the walk lists their directories itself.
* It must be small, so that it is work for one process and its names fit into little memory.
* A directory that is met in it all the same was made meanwhile, or the file system lies: it is named as not
  searched, never passed over.
"""

import os
from typing import Dict, List, Tuple

from agent.scan.coverage import Witness
from agent.scan.listing import list_names
from agent.scan.roots import join

# Where two links tell that there is no directory in a directory: fs/ext4/namei.c, ext4_inc_count; fs/xfs,
# xfs_bumplink; mm/shmem.c, shmem_mkdir. Others (btrfs, overlayfs) say 1 of each.
COUNTING_TYPES = frozenset({"ext2", "ext3", "ext4", "tmpfs", "xfs"})
# Of ext4, that is some thousand names at most.
LEAF_BYTES = 8 << 10
# About what a name takes in a directory, beside itself.
_NAME_BYTES = 24
_LINKS = 2


def is_leaf(status: os.stat_result) -> bool:
    """Tell by its status whether a directory of such a file system is small and holds no others."""
    return status.st_nlink == _LINKS and status.st_size <= LEAF_BYTES


def most_names(status: os.stat_result) -> int:
    """Return about how many names a directory holds, rather too many."""
    return max(1, status.st_size // _NAME_BYTES)


def list_leaf(descriptor: int, path: bytes, coverage: Witness) -> Tuple[List[bytes], Dict[bytes, str]]:
    """Return its files and links, sorted, and which of them are links; say what else is in it."""
    subdirectories: List[bytes] = []
    specials: List[bytes] = []
    names: List[bytes] = []
    kinds: Dict[bytes, str] = {}
    for run in list_names(descriptor, path, coverage, subdirectories, specials):
        names += run.files
        names += run.kinds
        kinds.update(run.kinds)
    names.sort()
    if specials:
        coverage.skip("special-file", len(specials))
    for name in sorted(subdirectories):
        coverage.lose(join(path, name), "was made while the scan ran, and not searched")
    return names, kinds
