"""The promise that every digest is openssl's: on a piece of the corpora and on this machine's own files."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.support.digests import compare_with_openssl
from tests.support.tree import ROOT

pytestmark = pytest.mark.system
KINDS = ("md5", "sha1", "sha256", "sha512", "sha3_256")


@pytest.fixture(scope="module")
def mkcorpus() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "bench/mkcorpus.py"))


def test_every_digest_of_small_files_is_openssls(tmp_path: Path, mkcorpus: dict[str, Any]) -> None:
    shape = mkcorpus["Shape"](files=5000, vocabulary_bytes=1 << 17)
    manifest = mkcorpus["make"](tmp_path, "many", shape)
    compared = compare_with_openssl([tmp_path / "many"], KINDS)
    assert (compared.files, compared.different) == (manifest["files"], ())


def test_every_digest_of_large_files_is_openssls(tmp_path: Path, mkcorpus: dict[str, Any]) -> None:
    mkcorpus["make"](tmp_path, "large", mkcorpus["Shape"](large_files=3, large_pieces=20))
    assert compare_with_openssl([tmp_path / "large"], KINDS) == (3, ())


# All of /usr/lib is gigabytes on some machines, and where Python writes byte code it changes meanwhile.
@pytest.mark.parametrize("root", ["/usr/bin", "/usr/lib/erlang", "/etc"])
def test_every_digest_of_this_machines_files_is_openssls(root: str) -> None:
    compared = compare_with_openssl([Path(root)])
    assert compared.files > 100
    assert compared.different == ()
