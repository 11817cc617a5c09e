"""Tests of finding packages of Python, Node.js and Ruby, and of Python's record of its files."""

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.platform.packages_languages import package_at, read_expected, read_homes, read_packages
from agent.platform.rooted import Rooted
from tests.agent.scan.runs import Tree, grow

META = b"Metadata-Version: 2.1\nName: %s\nVersion: %s\n\nText\nVersion: 9\n"


def found(root: Path, *types: str) -> list[str]:
    packages = read_packages(Rooted(str(root)), types, lambda: None)
    return [
        f"{package.type} {package.name} {package.version} {package.arch or ''}".strip()
        for package in packages
    ]


@pytest.mark.parametrize(
    ("tree", "wanted"),
    [
        ({"usr/lib/python3.11/site-packages/a-1.dist-info/METADATA": META % (b"a", b"1")}, "pip a 1"),
        ({"usr/lib/python3/dist-packages/b-2.egg-info": META % (b"b", b"2")}, "pip b 2"),
        ({"usr/local/lib/python3.9/dist-packages/c.egg-info/PKG-INFO": META % (b"c", b"3")}, "pip c 3"),
        ({"opt/app/lib/python3.12/site-packages/d.egg/EGG-INFO/PKG-INFO": META % (b"d", b"4")}, "pip d 4"),
        (
            {
                "etc/passwd": b"x:x:1:1::/srv/x[1]:/bin/sh\n",
                "srv/x[1]/.local/lib/python3.1/site-packages/e.dist-info/METADATA": META % (b"e", b"5"),
            },
            "pip e 5",
        ),
        ({"usr/lib/node_modules/f/package.json": b'{"name": "f", "version": "1.0.0"}'}, "npm f 1.0.0"),
        ({"usr/share/nodejs/@s/g/package.json": b'{"name": "@s/g", "version": "2.0.0"}'}, "npm @s/g 2.0.0"),
        (
            {"usr/local/lib/node_modules/x/node_modules/h/package.json": b'{"name": "h", "version": "3"}'},
            "npm h 3",
        ),
        ({"var/lib/gems/3.1.0/specifications/my-gem-1.2.3.gemspec": b""}, "gem my-gem 1.2.3"),
        (
            {"usr/local/bundle/specifications/nokogiri-1.15.4-x86_64-linux.gemspec": b""},
            "gem nokogiri 1.15.4 x86_64-linux",
        ),
        ({"home/eve/.gem/ruby/3.1.0/specifications/default/i-2.0.pre1.gemspec": b""}, "gem i 2.0.pre1"),
    ],
)
def test_a_package_is_found_where_its_installer_puts_it(tmp_path: Path, tree: Tree, wanted: str) -> None:
    grow(tmp_path, tree)
    assert found(tmp_path, "pip", "npm", "gem") == [wanted]
    assert found(tmp_path, *{"pip", "npm", "gem"} - {wanted[:3]}) == []


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"nul",
        b'{"name": 3, "version": "1"}',
        b'{"name": "a"}',
        b"[" * 100_000,
        b'{"name": "a", "version": "' + b"\xff" * 10,
    ],
)
def test_a_package_file_that_is_none_is_no_package(tmp_path: Path, document: bytes) -> None:
    grow(tmp_path, {"usr/lib/node_modules/a/package.json": document})
    assert found(tmp_path, "npm") == []


def test_hostile_names_survive_as_text(tmp_path: Path) -> None:
    document = json.dumps({"name": "\ud800\x1b[2J", "version": "v" * 9999}).encode()
    grow(tmp_path, {"usr/lib/node_modules/a/package.json": document})
    (package,) = read_packages(Rooted(str(tmp_path)), ("npm",), lambda: None)
    assert package.name == "?\x1b[2J"
    assert len(package.version) == 512


def test_directories_that_lead_into_themselves_are_left(tmp_path: Path) -> None:
    grow(tmp_path, {"usr/lib/node_modules/a/package.json": b'{"name": "a", "version": "1.0.0"}'})
    (tmp_path / "usr/lib/node_modules/a/node_modules").symlink_to("..")
    (tmp_path / "usr/lib/node_modules/@x").symlink_to(".")
    assert set(found(tmp_path, "npm")) == {"npm a 1.0.0"}


def test_a_python_package_records_its_files(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"code").digest()
    line = f"a.py,sha256={base64.urlsafe_b64encode(digest).decode().rstrip('=')},4\n"
    place = "usr/lib/python3.11/site-packages"
    record = line + '"odd ""name"",.py",sha256=AAAA,x\n/abs,md5=AAAA,3\na.pyc,,\nshort\n"\x00",,\n'
    grow(
        tmp_path,
        {
            f"{place}/a.dist-info/METADATA": META % (b"a", b"1"),
            f"{place}/a.dist-info/RECORD": record.encode(),
        },
    )
    files = Rooted(str(tmp_path))
    (package,) = read_packages(files, ("pip",), lambda: None)
    first, second = list(read_expected(files, package) or ())
    assert (first.path, first.digest, first.size_bytes) == (f"/{place}/a.py".encode(), digest.hex(), 4)
    assert (second.path, second.size_bytes) == (f'/{place}/odd "name",.py'.encode(), None)


@pytest.mark.slow
def test_the_packages_of_this_interpreter_are_those_that_pip_lists() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=json", "--path", _own_place()],
        capture_output=True,
        text=True,
        check=True,
    )
    wanted = {(entry["name"], entry["version"]) for entry in json.loads(ran.stdout)}
    files = Rooted()
    packages = {
        package_at(files, str(path).encode()) for path in Path(_own_place()).glob("*.dist-info/METADATA")
    }
    assert wanted == {(package.name, package.version) for package in packages if package is not None}


def _own_place() -> str:
    return str(Path(pytest.__file__).parents[1])


def test_homes_are_those_of_passwd_and_below_home(tmp_path: Path) -> None:
    grow(
        tmp_path,
        {"etc/passwd": b"a:x:0:0::/root:/bin/sh\nbad\nb:x:1:1::/:\nc:x:1:1::rel:\n", "home/d/x": b""},
    )
    assert read_homes(Rooted(str(tmp_path))) == [b"/root", b"/home/d"]
