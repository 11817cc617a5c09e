"""The zip files: refused builds, identical builds, and what the start-up code does and refuses."""

import hashlib
import importlib.util
import json
import marshal
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.registry import module_names
from build_zipapp import ROOT, Builder, Built, Request, install_line
from startup.archive import BuildFailure
from startup.baked import load_baked, read_sources
from startup.bootstrap import require_interpreter
from startup.bytecode import byte_code_of
from startup.natives import StartupFailure
from startup.wheels import Pin, read_pins
from tests.support import openpgp_forge as forge
from tests.support.gpg import Investigator

pytestmark = pytest.mark.system

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="root is refused, others are not")

# A program that tells what the start-up code left it with; it stands in for agent/main.py.
PROBE = """
import json, os, subprocess, sys

def main():
    import mig_startup
    word = sys.argv[1]
    if word == "tell":
        mask = os.umask(0)
        os.umask(mask)
        print(json.dumps({"argv": sys.argv, "environ": dict(os.environ), "umask": mask, "sys_path": sys.path,
                          "file": __file__, "build": mig_startup.build,
                          "shared": [os.readlink(f"/proc/self/fd/{fd}") for fd in mig_startup.pass_fds]}))
    elif word == "natives":
        import msgspec._core, psutil, re2, xxhash
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        Ed25519PrivateKey.generate().sign(b"x")
        print(msgspec._core.__file__)
    elif word == "rules":
        # As a module's process: small files only, but for a library that nothing handed down.
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 64 << 20))
        import yara_x.yara_x
        yara_x.compile("rule r { condition: true }").scan(b"")
        print(yara_x.yara_x.__file__, resource.getrlimit(resource.RLIMIT_FSIZE))
    elif word == "parent":
        print("ready", flush=True)
        sys.stdin.readline()
        for child in (["tell"], ["natives"]):
            subprocess.run(mig_startup.child_argv(*child), pass_fds=mig_startup.pass_fds, check=True)
"""

CONFIG = """
[agent]
relay = "amqp://127.0.0.1:5672/mig"
broker = "mig"
native = {native}
[agent.acl.default]
minimum_weight = {weight}
investigators = {{ "{fingerprint}" = 1 }}
[server]
url = "https://mig.example.net/"
"""


def interpreters() -> list[str]:
    """Every CPython 3.9 to 3.14 of this machine."""
    found = [
        *Path("/root/.pyenv/versions").glob("3.*/bin/python"),
        Path("/usr/bin/python3"),
        Path(sys.executable),
    ]
    wanted = []
    for path in found:
        asked = subprocess.run(
            [path, "-I", "-c", "import sys; print(sys.version_info[1])"], capture_output=True, check=False
        )
        if asked.returncode == 0 and 9 <= int(asked.stdout) <= 14:
            wanted.append(str(path))
    return wanted


INTERPRETERS = interpreters()


class Workshop:
    """A small source tree and its investigator, to build agents from."""

    def __init__(self, root: Path, ada: Investigator) -> None:
        self.root = root
        self.ada = ada
        (root / "keys").mkdir()
        (root / "keys" / "ada.asc").write_bytes(ada.public_key)
        shutil.copy(ROOT / "pyproject.toml", root)
        shutil.copytree(ROOT / "requirements", root / "requirements")
        for name, text in {
            "agent/__init__.py": "",
            "agent/main.py": PROBE,
            "protocol/__init__.py": "",
        }.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(text, "utf-8")
        self.configure()

    def configure(
        self, *, native: str = '["memfd", "directory"]', weight: int = 1, fingerprint: str = ""
    ) -> None:
        """Write config.toml."""
        text = CONFIG.format(native=native, weight=weight, fingerprint=fingerprint or self.ada.fingerprint)
        (self.root / "config.toml").write_text(text, "utf-8")

    def build(
        self, output: str = "dist", *additions: str, platform: str = "linux-x86_64", only: str = "agent"
    ) -> Built:
        """Build the agent."""
        request = Request(
            root=self.root,
            config=self.root / "config.toml",
            keys=self.root / "keys",
            output=self.root / output,
            platform=platform,
            only=(only,),
            wheels=ROOT / "var" / "wheels",
            additions=additions,
        )
        [built] = Builder(request, now=datetime.now(UTC), say=print).build()
        return built


@pytest.fixture
def workshop(tmp_path: Path, ada: Investigator) -> Workshop:
    return Workshop(tmp_path, ada)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Path:
    """An agent that loads its libraries from memory."""
    return Workshop(tmp_path_factory.mktemp("memfd"), ada).build().path


@pytest.fixture(scope="module")
def directory_agent(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Path:
    """An agent that loads its libraries from a private directory."""
    made = Workshop(tmp_path_factory.mktemp("directory"), ada)
    made.configure(native='["directory"]')
    return made.build().path


@pytest.fixture(scope="module")
def agents_with_yara(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> dict[str, Path]:
    """Agents with the optional part, by the way in which they load their libraries."""
    made = Workshop(tmp_path_factory.mktemp("yara"), ada)
    agents = {}
    for method in ("memfd", "directory"):
        made.configure(native=f'["{method}"]')
        agents[method] = made.build(method, "yara").path
    return agents


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, ada: Investigator) -> Path:
    """The directory with the three real programs."""
    place = tmp_path_factory.mktemp("programs")
    (place / "keys").mkdir()
    (place / "keys" / "ada.asc").write_bytes(ada.public_key)
    text = CONFIG.format(native='["memfd", "directory"]', weight=1, fingerprint=ada.fingerprint)
    (place / "config.toml").write_text(text, "utf-8")
    done = run(
        *(sys.executable, ROOT / "build_zipapp.py", "--config", place / "config.toml"),
        *("--keys", place / "keys", "--output", place / "dist"),
    )
    assert done.returncode == 0, done.stderr
    return place / "dist"


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory below /tmp, all of whose parents root may trust."""
    directory = Path("/tmp") / f"mig-test-{os.urandom(8).hex()}"
    directory.mkdir(0o755)
    yield directory
    shutil.rmtree(directory)


def run(*argv: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    # Wide enough for a first build that fetches every wheel.
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=900)


def tell(*argv: str | Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a program's `tell` and return what it says of itself."""
    done = run(*argv, "tell", environment=environment)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_two_builds_of_the_same_inputs_have_the_same_bytes(workshop: Workshop) -> None:
    first, second = workshop.build("first"), workshop.build("second")
    assert first.sha256 == second.sha256
    assert first.path.read_bytes() == second.path.read_bytes()
    lists = [workshop.root / name / "mig-agent-linux-x86_64.cdx.json" for name in ("first", "second")]
    assert lists[0].read_bytes() == lists[1].read_bytes()


def test_an_unchanged_file_is_left_alone_and_a_changed_input_builds_another(workshop: Workshop) -> None:
    first = workshop.build()
    assert workshop.build().parts == ()
    workshop.configure(native='["directory"]')
    changed = workshop.build()
    assert changed.parts
    assert changed.sha256 != first.sha256


def test_a_file_that_was_tampered_with_is_built_again(workshop: Workshop) -> None:
    first = workshop.build()
    first.path.write_bytes(first.path.read_bytes() + b"x")
    assert workshop.build().sha256 == hashlib.sha256(first.path.read_bytes()).hexdigest() == first.sha256


def test_the_agent_is_small_and_its_sums_and_its_contents_are_listed(workshop: Workshop) -> None:
    built = workshop.build()
    assert built.path.stat().st_size < 15_000_000
    sums = run("sh", "-c", f"cd {built.path.parent} && sha256sum --check --strict SHA256SUMS")
    assert sums.returncode == 0, sums.stderr
    components = json.loads((built.path.parent / f"{built.path.name}.cdx.json").read_bytes())["components"]
    locked = {digest for pin in read_pins(ROOT / "requirements" / "agent.lock") for digest in pin.hashes}
    assert {"msgspec", "cryptography", "google-re2"} <= {component["name"] for component in components}
    assert {component["hashes"][0]["content"] for component in components} <= locked
    names = zipfile.ZipFile(built.path).namelist()
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyi", ".pth"))]
    # The byte code is the builder's, not what lay about: each beside its source.
    assert {name[:-1] for name in names if name.endswith(".pyc")} <= set(names)


def test_byte_code_lies_beside_what_every_start_loads_and_is_taken_as_it_is(workshop: Workshop) -> None:
    (workshop.root / "agent/modules").mkdir()
    (workshop.root / "agent/modules/ping.py").write_text("", "utf-8")
    archive = zipfile.ZipFile(workshop.build().path)
    assert {"__main__.pyc", "agent/main.pyc", "startup/natives.pyc", "msgspec/__init__.pyc"} <= set(
        archive.namelist()
    )
    assert not {"agent/modules/ping.pyc", "pika/__init__.pyc"} & set(archive.namelist())
    made, source = archive.read("agent/main.pyc"), archive.read("agent/main.py")
    # PEP 552: whose it is, that nobody need compare it with its source, and the hash of that.
    assert made[:4] == importlib.util.MAGIC_NUMBER
    assert made[4:8] == b"\x01\0\0\0"
    assert made[8:16] == importlib.util.source_hash(source)
    assert marshal.loads(made[16:]).co_filename == "agent/main.py"  # noqa: S302  (made here)


def test_byte_code_of_the_same_sources_is_the_same_whatever_else_is_compiled() -> None:
    sources = read_sources(ROOT, ("protocol",))
    together = byte_code_of(sources)
    assert set(together) == {f"{name}c" for name in sources if name.endswith(".py")}
    names = sorted(sources)[:5]
    assert all(byte_code_of({name: sources[name]})[f"{name}c"] == together[f"{name}c"] for name in names)


def test_byte_code_does_what_its_source_does() -> None:
    # Texts too: those of functions are what `--help` says.
    source = b'"M."\nclass A(Exception):\n    "A."\ndef f(x):\n    "F."\n    assert x\n    return x + 1\n'
    module: dict[str, Any] = {"__name__": "m"}
    exec(marshal.loads(byte_code_of({"m.py": source})["m.pyc"][16:]), module)  # noqa: S102, S302  (made here)
    assert (module["__doc__"], module["A"].__doc__, module["f"].__doc__) == ("M.", "A.", "F.")
    assert module["f"](1) == 2
    with pytest.raises(AssertionError, match="^$"):
        module["f"](0)


def test_an_optional_part_of_the_build_brings_its_module_and_its_wheel(workshop: Workshop) -> None:
    module = workshop.root / "agent" / "modules" / "yara.py"
    module.parent.mkdir()
    module.write_text("", "utf-8")
    plain, larger = workshop.build("plain"), workshop.build("larger", "yara")
    assert larger.sha256 != plain.sha256
    held = [set(zipfile.ZipFile(built.path).namelist()) for built in (plain, larger)]
    assert {"agent/modules/yara.py", "yara_x/yara_x.abi3.so"} <= held[1] - held[0]
    assert not [name for name in held[0] if "yara_x" in name]
    facts = [
        json.loads(zipfile.ZipFile(built.path).read("agent/baked/build.json")) for built in (plain, larger)
    ]
    assert [fact["with"] for fact in facts] == [[], ["yara"]]
    assert plain.path.stat().st_size < 15_000_000 < larger.path.stat().st_size + 7_000_000 < 34_000_000


def test_an_optional_part_without_wheels_for_the_platform_is_refused(workshop: Workshop) -> None:
    with pytest.raises(
        BuildFailure, match="--with yara is not possible for musl-x86_64: it has wheels for linux-"
    ):
        workshop.build("dist", "yara", platform="musl-x86_64")


@pytest.mark.parametrize("python", INTERPRETERS)
def test_the_library_of_an_optional_part_is_loaded_by_who_needs_it_whatever_files_it_may_write(
    agents_with_yara: dict[str, Path], python: str
) -> None:
    for method, place in (("memfd", "/proc/self/fd/"), ("directory", "/.mig-")):
        done = run(python, "-I", "-S", "-B", agents_with_yara[method], "rules")
        assert done.returncode == 0, done.stderr
        path, limits = done.stdout.split(maxsplit=1)
        assert place in path
        assert limits.strip() == f"({1 << 20}, {64 << 20})"


def test_the_library_of_an_optional_part_is_not_kept_in_memory_for_children(
    agents_with_yara: dict[str, Path],
) -> None:
    names = tell(agents_with_yara["memfd"])["shared"]
    assert [name for name in names if "memfd:" in name]
    assert not [name for name in names if "yara_x" in name]


def test_the_install_line_carries_the_hash(workshop: Workshop) -> None:
    built = workshop.build()
    line = install_line("https://mig.example.net/", built)
    assert line.startswith("wget -O /sbin/mig-agent https://mig.example.net/agents/linux-x86_64 && ")
    assert f'echo "{built.sha256}  /sbin/mig-agent" | sha256sum -c' in line


def test_a_build_without_keys_is_refused(workshop: Workshop) -> None:
    (workshop.root / "keys" / "ada.asc").unlink()
    with pytest.raises(BuildFailure, match="no key .* would obey nobody"):
        workshop.build()


def test_a_build_with_a_key_that_is_none_is_refused(workshop: Workshop) -> None:
    (workshop.root / "keys" / "mallory.asc").write_text("not a key", "utf-8")
    with pytest.raises(BuildFailure, match=r"mallory\.asc: bad-key"):
        workshop.build()


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (forge.WITH_SUBKEY + forge.revoke(), "the primary key is revoked"),
        (
            forge.half(forge.name(), forge.certify(forge.flags(3), forge.key_expires_after(9))),
            "the primary key has expired",
        ),
        (forge.half(forge.name(), forge.certify(forge.flags(1))), "the primary key is not allowed to sign"),
    ],
)
def test_a_build_with_a_key_that_could_not_sign_is_refused(
    workshop: Workshop, certificate: bytes, reason: str
) -> None:
    (workshop.root / "keys" / "mallory.asc").write_bytes(certificate)
    with pytest.raises(BuildFailure, match=rf"mallory\.asc: bad-key: {reason}"):
        workshop.build()


def test_a_build_with_an_acl_that_nobody_can_satisfy_is_refused(workshop: Workshop) -> None:
    workshop.configure(weight=2)
    with pytest.raises(BuildFailure, match="lack the weight"):
        workshop.build()


def test_a_build_whose_acl_names_a_key_that_is_not_there_is_refused(workshop: Workshop) -> None:
    workshop.configure(fingerprint="A" * 40)
    with pytest.raises(BuildFailure, match="names A{40}, whose key is not in"):
        workshop.build()


@pytest.mark.parametrize(
    ("reader", "reason"), [("A" * 40, "whose key is not there"), ("", "not for encryption")]
)
def test_a_build_that_seals_to_who_could_not_read_is_refused(
    workshop: Workshop, reader: str, reason: str
) -> None:
    config = workshop.root / "config.toml"
    forced = f'[agent]\nseal_to = ["{reader or workshop.ada.fingerprint}"]'
    config.write_text(config.read_text("utf-8").replace("[agent]", forced, 1), "utf-8")
    with pytest.raises(BuildFailure, match=rf"seal_to names [0-9A-F]{{40}}.*{reason}"):
        workshop.build()


def add_trust(workshop: Workshop, lines: str) -> Path:
    config = workshop.root / "config.toml"
    config.write_text(f"{config.read_text('utf-8')}\n[agent.trust]\n{lines}\n", "utf-8")
    return config


def test_the_roots_that_the_configuration_names_are_baked_in(workshop: Workshop, bob: Investigator) -> None:
    config = add_trust(workshop, f'roots = ["{bob.fingerprint}"]\nmanage = ["{workshop.ada.fingerprint}"]')
    keys, now = workshop.root / "keys", datetime.now(UTC)
    with pytest.raises(BuildFailure, match=r"no key .* in .*roots"):
        load_baked(config, keys, now)
    (keys / "roots").mkdir()
    (keys / "roots" / "ada.asc").write_bytes(workshop.ada.public_key)
    with pytest.raises(BuildFailure, match="roots names .*, whose key is not in"):
        load_baked(config, keys, now)
    (keys / "roots" / "bob.asc").write_bytes(bob.public_key)
    baked = load_baked(config, keys, now)
    # Only those that are named, and no root becomes an investigator.
    assert [name for name in baked if "/roots/" in name] == [f"agent/baked/roots/{bob.fingerprint}.asc"]
    assert f"agent/baked/keys/{bob.fingerprint}.asc" not in baked


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('expires = "2020-01-01T00:00:00Z"', "is over: this agent would obey nobody"),
        (f'manage = ["{"A" * 40}"]', "trust.manage names A{40}, whose key is not in"),
    ],
)
def test_a_build_whose_trust_could_not_be_used_is_refused(workshop: Workshop, lines: str, said: str) -> None:
    with pytest.raises(BuildFailure, match=said):
        load_baked(add_trust(workshop, lines), workshop.root / "keys", datetime.now(UTC))


def test_the_command_line_refuses_in_one_line(tmp_path: Path) -> None:
    argv: list[str | Path] = [
        sys.executable,
        ROOT / "build_zipapp.py",
        "--only",
        "agent",
        "--output",
        tmp_path,
    ]
    done = run(*argv, "--keys", tmp_path / "nowhere", "--config", tmp_path / "none.toml")
    assert done.returncode == 2
    assert done.stderr.startswith("build_zipapp: ")
    assert done.stderr.count("\n") == 1


def test_a_requirement_that_is_not_pinned_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loose.txt"
    path.write_text("pika>=1\n", "utf-8")
    with pytest.raises(BuildFailure, match="not a pinned distribution: pika>=1"):
        read_pins(path)


@pytest.mark.parametrize(
    ("marker", "served"),
    [("", ["3.9", "3.10"]), ('python_version < "3.10"', ["3.9"]), ('python_version >= "3.10"', ["3.10"])],
)
def test_a_marker_decides_which_interpreter_takes_a_wheel(marker: str, served: list[str]) -> None:
    pin = Pin("re2", "1", marker, ())
    assert [version for version in ("3.9", "3.10") if pin.serves(version)] == served


@pytest.mark.parametrize("python", INTERPRETERS)
def test_one_file_runs_on_every_interpreter_and_loads_every_library(
    agent: Path, directory_agent: Path, python: str
) -> None:
    told = tell(python, "-I", "-S", "-B", agent)
    assert told["argv"][0] == str(agent)
    assert told["file"].startswith("/proc/self/fd/")
    version = run(python, "-c", "import sys; print(sys.implementation.cache_tag)").stdout.strip()
    # Byte code is for the Python that built; any other has the sources.
    assert told["file"].endswith(".pyc" if version == sys.implementation.cache_tag else ".py")
    from_memory = run(python, agent, "natives")
    assert from_memory.stdout.startswith("/proc/self/fd/"), from_memory.stderr
    from_directory = run(python, "-I", "-S", "-B", directory_agent, "natives")
    assert "/.mig-" in from_directory.stdout, from_directory.stderr
    assert not Path(from_directory.stdout.strip()).exists()
    assert not Path(from_directory.stdout.strip()).parent.parent.exists()


def test_an_interpreter_that_the_file_has_no_libraries_for_is_refused() -> None:
    facts = {"oldest": [3, 98], "newest": [3, 99], "platform": f"{sys.platform}-{os.uname().machine}"}
    with pytest.raises(
        StartupFailure, match=r"tool-missing: needs CPython 3\.98 to 3\.99; .* is cpython 3\."
    ):
        require_interpreter(facts)


def test_a_file_of_another_platform_is_refused() -> None:
    facts = {"oldest": [3, 9], "newest": [3, 99], "platform": "linux-vax"}
    with pytest.raises(StartupFailure, match="unsupported: built for linux-vax; this is linux-"):
        require_interpreter(facts)


@pytest.mark.parametrize("python", INTERPRETERS)
def test_the_real_agent_runs_modules_on_every_interpreter(
    programs: Path, python: str, tmp_path: Path
) -> None:
    agent = programs / "mig-agent-linux-x86_64"
    version = run(python, "-I", "-S", "-B", agent, "version")
    assert version.returncode == 0, version.stderr
    assert version.stdout.startswith("mig-agent ")
    answer = run(python, "-I", "-S", "-B", agent, "module", "agentinfo")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["status"] == "ok"
    # One that needs a library of its own, which the limited child has to load out of the zip.
    (tmp_path / "looked-for").touch()
    parameters = tmp_path / "parameters.json"
    search = {"paths": [str(tmp_path)], "names": ["^looked-for$"]}
    parameters.write_text(json.dumps({"searches": {"s1": search}}), "utf-8")
    answer = run(python, "-I", "-S", "-B", agent, "module", "file", "--params", parameters)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert len(json.loads(answer.stdout)["records"]) == 1


def test_the_real_agent_with_the_optional_part_applies_rules_within_the_limits_of_a_module(
    programs: Path, tmp_path: Path
) -> None:
    done = run(
        *(sys.executable, ROOT / "build_zipapp.py", "--only", "agent", "--with", "yara"),
        *("--config", programs.parent / "config.toml", "--keys", programs.parent / "keys"),
        *("--output", tmp_path / "dist"),
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "file").write_text("needle", "utf-8")
    rule = 'rule found { strings: $a = "needle" condition: $a }'
    parameters = {"rules": {"kit": rule}, "searches": {"s": {"paths": [str(tmp_path / "file")]}}}
    (tmp_path / "params.json").write_text(json.dumps(parameters), "utf-8")
    asked = ("module", "yara", "--params", tmp_path / "params.json")
    for python in INTERPRETERS:
        answer = run(python, "-I", "-S", "-B", tmp_path / "dist" / "mig-agent-linux-x86_64", *asked)
        assert answer.returncode == 0, answer.stderr
        assert [found["rule"] for found in json.loads(answer.stdout)["records"]] == ["found"]
    plain = run(sys.executable, "-I", "-S", "-B", programs / "mig-agent-linux-x86_64", *asked)
    built_in = ", ".join(name for name in module_names() if name != "yara")
    assert plain.stderr == f"mig-agent: unknown-module: 'yara'; built in are {built_in}\n"


def test_the_real_server_makes_its_tables_out_of_the_zip(programs: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    text = (ROOT / "config.toml").read_text("utf-8")
    config.write_text(text.replace("/var/lib/mig-server", str(tmp_path)), "utf-8")
    done = run(programs / "mig-server", "migrate", "--config", config)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mig.sqlite").exists()


def test_the_real_client_knows_the_modules(programs: Path) -> None:
    done = run(programs / "mig", "--help")
    assert done.returncode == 0, done.stderr
    assert "agentinfo" in done.stdout


def test_the_prelude_starts_the_file_whatever_the_environment_says(agent: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    for name in ("agent.py", "json.py", "sitecustomize.py", "msgspec.py", "startup.py"):
        (planted / name).write_text("raise SystemExit('planted code ran')", "utf-8")
    (planted / "python3").write_text("#!/bin/sh\necho planted python ran\n", "utf-8")
    (planted / "python3").chmod(0o755)
    hostile = {
        name: str(planted)
        for name in ("HOME", "PYTHONPATH", "PYTHONHOME", "SHIV_ROOT", "XDG_CACHE_HOME", "TMPDIR")
    }
    hostile |= {
        "PATH": f"{planted}:/usr/bin:/bin",
        "PYTHONSTARTUP": str(planted / "agent.py"),
        "PYTHONINSPECT": "1",
    }
    hostile |= {
        "SHIV_ENTRY_POINT": "platform:machine",
        "SHIV_INTERPRETER": str(planted / "python3"),
        "LANG": "C.UTF-8",
    }
    told = tell(agent, environment=hostile)
    assert told["umask"] == 0o077
    assert told["environ"] == {"LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"} | _coerced(
        told["environ"]
    )
    assert not [entry for entry in told["sys_path"] if str(planted) in entry]
    assert run(agent, "natives", environment=hostile).returncode == 0


def _coerced(environ: dict[str, str]) -> dict[str, str]:
    """What Python itself sets where the language is not one of UTF-8 (PEP 538)."""
    return {name: value for name, value in environ.items() if name == "LC_CTYPE"}


def test_an_interpreter_that_was_not_isolated_is_started_again_isolated(agent: Path, tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "__init__.py").write_text("raise SystemExit('planted code ran')", "utf-8")
    told = tell(sys.executable, agent, environment={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert str(tmp_path) not in told["sys_path"]


def test_a_planted_extraction_directory_is_not_used(directory_agent: Path) -> None:
    build = tell(directory_agent)["build"]
    planted = [Path("/tmp") / f".mig-{build}", Path("/tmp") / f"mig-agent_{build}"]
    for place in planted:
        (place / "msgspec").mkdir(parents=True)
        (place / "msgspec" / "__init__.py").write_text("raise SystemExit('planted code ran')", "utf-8")
    try:
        assert run(directory_agent, "natives").returncode == 0
    finally:
        for place in planted:
            shutil.rmtree(place)


def test_children_come_from_the_same_file_after_it_was_replaced_and_deleted(
    agent: Path, open_directory: Path
) -> None:
    copy = open_directory / "mig-agent"
    shutil.copy(agent, copy)
    with subprocess.Popen(
        [copy, "parent"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin
        assert parent.stdout
        assert parent.stdout.readline() == "ready\n"
        other = open_directory / "other"
        other.write_text("#!/bin/sh\necho another version\n", "utf-8")
        other.replace(copy)
        copy.unlink()
        output, _ = parent.communicate("go\n", timeout=60)
    assert parent.returncode == 0
    told, library = output.splitlines()
    assert json.loads(told)["file"].startswith("/proc/self/fd/")
    assert library.startswith("/proc/self/fd/")


def test_a_file_that_is_written_over_while_it_runs_starts_no_more_children(
    agent: Path, open_directory: Path
) -> None:
    copy = open_directory / "mig-agent"
    shutil.copy(agent, copy)
    pipe = subprocess.PIPE
    with subprocess.Popen([copy, "parent"], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "ready\n"
        with copy.open("ab") as stream:
            stream.write(b"another version")
        output, complaint = parent.communicate("go\n", timeout=60)
    assert parent.returncode == 4
    assert output == ""
    assert complaint == f"mig-agent: unsafe-file: {copy} was written over while it ran\n"


def test_a_library_that_was_changed_in_the_file_is_not_loaded(agent: Path, open_directory: Path) -> None:
    with zipfile.ZipFile(agent) as archive:
        facts = json.loads(archive.read("startup.json"))
    content = bytearray(agent.read_bytes())
    for entry in facts["libraries"].values():
        content[entry["offset"] + entry["size"] // 2] ^= 1
    damaged = open_directory / "mig-agent"
    damaged.write_bytes(content)
    damaged.chmod(0o755)
    done = run(damaged, "natives")
    assert done.returncode == 4
    assert "unsafe-file" in done.stderr
    assert "is not what was built" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_descriptor_that_is_no_sealed_library_is_refused(agent: Path) -> None:
    done = run(agent, "--inherited-descriptors=0:msgspec/_core.cpython-311-x86_64-linux-gnu.so", "natives")
    assert done.returncode == 4
    assert "unsafe-file: descriptor 0 is no sealed library" in done.stderr


def _give_to_a_group(path: Path) -> None:
    os.chown(path, 0, 1234)
    path.chmod(0o775)


@needs_root
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.chmod(0o777), "mig-agent is writable by everybody"),
        (_give_to_a_group, "mig-agent is writable by group 1234"),
        (lambda path: os.chown(path, 1234, 0), "mig-agent is owned by uid 1234"),
        (lambda path: path.parent.chmod(0o777), "is writable by everybody"),
        (lambda path: os.chown(path.parent, 1234, 0), "is owned by uid 1234"),
    ],
    ids=["file for all", "file for a group", "file of another", "directory for all", "directory of another"],
)
def test_root_does_not_run_what_others_can_change(
    agent: Path, open_directory: Path, change: Any, reason: str
) -> None:
    place = open_directory / "sbin"
    place.mkdir(0o755)
    copy = place / "mig-agent"
    shutil.copy(agent, copy)
    copy.chmod(0o755)
    assert run(copy, "tell").returncode == 0
    change(copy)
    for argv in ([copy], [sys.executable, "-I", "-S", "-B", copy]):
        done = run(*argv, "tell")
        assert done.returncode == 4
        assert done.stderr.startswith("mig-agent: unsafe-file: not run as root: ")
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1


@needs_root
def test_without_proc_libraries_come_from_a_private_directory(agent: Path) -> None:
    done = run("unshare", "--mount", "sh", "-c", f"umount -l /proc && {agent} natives")
    assert done.returncode == 0, done.stderr
    assert "/.mig-" in done.stdout
