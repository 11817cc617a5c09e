"""Databases of rpm as tests need them: of packages that rpm builds and installs below a test's root."""

import shutil
import sqlite3
import struct
import subprocess
from contextlib import closing
from pathlib import Path

_SPEC = """
Name: {name}
Epoch: 2
Version: 1.4~rc1
Release: 3
Summary: a sample
License: MPL
BuildArch: noarch
%description
A sample.
%install
mkdir -p %{{buildroot}}/etc %{{buildroot}}/opt/{name}
echo conf > %{{buildroot}}/etc/{name}.conf
echo data > %{{buildroot}}/opt/{name}/data
echo more > %{{buildroot}}/opt/{name}/more
ln -s data %{{buildroot}}/opt/{name}/link
%files
%config /etc/{name}.conf
%dir /opt/{name}
/opt/{name}/data
/opt/{name}/more
/opt/{name}/link
%ghost /opt/{name}/cache
"""


def install_rpm(work: Path, name: str = "sample") -> Path:
    """Build a package and install it below a root, which is returned."""
    spec = work / f"{name}.spec"
    spec.write_text(_SPEC.format(name=name))
    define = ["--define", f"_topdir {work}/top", "--define", "_binary_payload w.ufdio"]
    subprocess.run(["/usr/bin/rpmbuild", *define, "-bb", str(spec)], check=True, capture_output=True)
    root = work / "root"
    root.mkdir(exist_ok=True)
    built = next((work / "top/RPMS/noarch").glob(f"{name}-*.rpm"))
    rpm = ["/usr/bin/rpm", "--root", str(root), "--dbpath", "/var/lib/rpm"]
    subprocess.run([*rpm, "--nodeps", "-i", str(built)], check=True, capture_output=True)
    return root


def headers(root: Path) -> list[bytes]:
    """Return the headers that rpm's SQLite database holds."""
    with closing(sqlite3.connect(root / "var/lib/rpm/rpmdb.sqlite")) as connection:
        return [blob for (blob,) in connection.execute("SELECT blob FROM Packages")]


def keep_as_berkeley(root: Path, work: Path, flags: tuple[str, ...] = ()) -> None:
    """Replace the database by a hash of Berkeley DB, as RHEL 8 has it, made by Berkeley DB's own program."""
    lines = [b"\\00\\00\\00\\00", b"\\02\\00\\00\\00"]
    for number, blob in enumerate(headers(root), 1):
        lines.append(_escaped(struct.pack("<I", number)))
        lines.append(_escaped(blob))
    text = work / "dump"
    text.write_bytes(b"\n".join(lines) + b"\n")
    target = root / "var/lib/rpm/Packages"
    command = ["/usr/bin/db5.3_load", "-T", "-t", "hash", *flags, "-f", str(text), str(target)]
    subprocess.run(command, check=True)
    for path in (root / "var/lib/rpm").glob("rpmdb.sqlite*"):
        path.unlink()


def _escaped(data: bytes) -> bytes:
    return b"".join(b"\\%02x" % byte for byte in data)


def keep_as_ndb(root: Path) -> None:
    """Replace the database by one in rpm's own format, as SUSE has it; laid out by the test."""
    blobs = headers(root)
    shutil.rmtree(root / "var/lib/rpm")
    (root / "var/lib/rpm").mkdir()
    slots, body, place = b"", b"", 4096 // 16
    for index, blob in enumerate(blobs, 1):
        whole = struct.pack("<4sIII", b"BlbS", index, 1, len(blob)) + blob
        whole += bytes(-(len(whole) + 12) % 16) + struct.pack("<II4s", 0, len(blob), b"BlbE")
        slots += struct.pack("<4sIII", b"Slot", index, place, len(whole) // 16)
        body += whole
        place += len(whole) // 16
    head = struct.pack("<4sIIIIIII", b"RpmP", 0, 1, 1, len(blobs) + 1, 0, 0, 0)
    page = (head + slots).ljust(4096, b"\0")
    free = range(len(head) + len(slots), 4096, 16)
    page = page[: len(head) + len(slots)] + struct.pack("<4sIII", b"Slot", 0, 0, 0) * len(free)
    (root / "var/lib/rpm/Packages.db").write_bytes(page + body)
