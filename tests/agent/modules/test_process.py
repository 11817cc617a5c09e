"""Tests of the module process on real processes that the tests make."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.support.asking_process import ask, is_found, only, pids
from tests.support.spawned import await_ready, copied, spawned

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NOBODY = 65534
SECRET = "s3cret-of-the-command-line"


def test_without_a_filter_every_process_is_told_with_its_parents() -> None:
    with spawned() as child:
        result = ask()
        by_pid = {record["pid"]: record for record in result.records}
        assert {1, os.getpid(), child.pid} <= set(by_pid)
        record = by_pid[child.pid]
        assert record["ppid"] == record["ancestors"][0]["pid"] == os.getpid()
        assert record["executable"] == str(Path(sys.executable).resolve())
        assert (record["uid"], record["gid"]) == (os.geteuid(), os.getegid())
        assert record["started"].startswith("20")
        assert "hashes" not in record
        counts = result.statistics
        # Others come and go meanwhile.
        assert int(str(counts["processes_seen"])) >= len(result.records) == counts["processes_matched"]
        threads = sum(record.get("kernel", False) for record in result.records)
        assert int(str(counts["kernel_threads"])) >= threads
        assert result.found


def test_a_name_is_what_a_process_calls_itself_or_its_program() -> None:
    with spawned("open('/proc/self/comm', 'w').write('sshd: fake')") as child:
        program = Path(sys.executable).resolve().name
        assert is_found(child.pid, names=["^sshd: fake$"])
        assert is_found(child.pid, names=["^no$", f"^{program}$"])
        assert not is_found(child.pid, names=[f"^{program}$", "!^sshd"])
        assert not is_found(child.pid, names=["!^python"])
        assert is_found(child.pid, names=["!^no$"])
        assert only(child.pid)["process"] == "sshd: fake"


def test_a_command_line_is_matched_and_never_told() -> None:
    with spawned("", "--password", SECRET) as child:
        result = ask(commands=[f"--password {SECRET}$"])
        assert child.pid in {record["pid"] for record in result.records}
        assert SECRET not in msgspec.json.encode(result).decode()
        assert not is_found(child.pid, commands=[f"!{SECRET}"])
        assert not is_found(child.pid, commands=["^--password"])


def test_of_the_environment_names_are_matched_and_values_never() -> None:
    environment = {**os.environ, "LD_AUDIT_OF_A_TEST": SECRET}
    with spawned("", env=environment) as child:
        record = only(child.pid, variables=["^LD_AUDIT_OF_"])
        assert record["variables"] == ("LD_AUDIT_OF_A_TEST",)
        assert not is_found(child.pid, variables=[SECRET])
        assert not is_found(child.pid, variables=["!^LD_AUDIT_OF_A_TEST$"])
        assert is_found(child.pid, variables=[f"!{SECRET}"])


def test_users_are_told_by_name_and_number() -> None:
    name = only(os.getpid())["user"]
    with spawned() as child:
        for users, found in (
            ([name], True),
            ([str(os.geteuid())], True),
            ([f"!{name}"], False),
            (["4242", name], True),
            (["4242"], False),
            (["!4242"], True),
        ):
            assert is_found(child.pid, users=users) is found


def test_a_user_that_is_not_known_is_nobody_and_that_is_said() -> None:
    result = ask(users=["no-such-user-here"])
    assert result.records == ()
    assert "user no-such-user-here is not in this endpoint's /etc/passwd" in result.notes


@as_root
def test_who_has_a_number_without_a_name_may_be_an_unknown_user_or_not() -> None:
    with spawned("import os; os.setgid(4242); os.setuid(4242)") as child:
        assert only(child.pid).get("user") is None
        assert is_found(child.pid, users=["4242"])
        for users in (["no-such-user-here"], ["!no-such-user-here"]):
            result = ask(pids=[child.pid], users=users)
            assert result.records == ()
            assert result.statistics["skipped"] == {"user": 1}
            assert "1 processes could not be judged: user: has no name here" in result.notes


def test_a_program_that_was_deleted_is_told_and_hashed_all_the_same(tmp_path: Path) -> None:
    program = tmp_path / "implant"
    shutil.copy("/bin/cat", program)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    with copied(str(program)) as child, copied(str(program)) as other:
        assert is_found(child.pid, deleted=False)
        program.unlink()
        shutil.copy("/bin/true", program)
        record = only(child.pid, deleted=True, returnsha256=True)
        assert record["executable"] == str(program)
        assert record["deleted"]
        assert record["hashes"] == {"sha256": digest}
        assert not is_found(child.pid, deleted=False)
        result = ask(pids=[child.pid, other.pid], sha256=["0" * 64, digest])
        assert {record["pid"] for record in result.records} == {child.pid, other.pid}
        assert result.statistics["files_hashed"] == 1
        assert result.statistics["bytes_read"] == Path("/bin/cat").stat().st_size


def test_digests_of_one_kind_are_alternatives_and_of_two_kinds_must_both_hold() -> None:
    data = Path(sys.executable).resolve().read_bytes()
    md5, sha1 = hashlib.md5(data).hexdigest(), hashlib.sha1(data).hexdigest()  # noqa: S324
    with spawned() as child:
        record = only(child.pid, md5=[md5], sha1=[sha1], returnhashes=["sha3_256"])
        assert record["hashes"] == {"md5": md5, "sha1": sha1, "sha3_256": hashlib.sha3_256(data).hexdigest()}
        assert not is_found(child.pid, md5=[md5], sha1=["0" * 40])


def test_programs_from_temporary_places_and_from_memory_are_found(tmp_path: Path) -> None:
    program = tmp_path / "cat"
    shutil.copy("/bin/cat", program)
    held = os.memfd_create("hidden")
    os.write(held, Path("/bin/cat").read_bytes())
    # A file that is open for writing cannot be run (ETXTBSY).
    runnable = os.open(f"/proc/self/fd/{held}", os.O_RDONLY)
    os.close(held)
    assert str(tmp_path).startswith(("/tmp/", "/var/tmp/"))
    with copied(str(program)) as below, copied(f"/proc/self/fd/{runnable}", pass_fds=[runnable]) as memory:
        os.close(runnable)
        assert is_found(below.pid, fromtemporary=True)
        assert is_found(below.pid, executables=[f"^{program}$"], deleted=False)
        record = only(memory.pid, fromtemporary=True, deleted=True, returnsha256=True)
        assert record["executable"] == "/memfd:hidden"
        assert record["hashes"]["sha256"] == hashlib.sha256(Path("/bin/cat").read_bytes()).hexdigest()
        assert not is_found(os.getpid(), fromtemporary=True)


def test_processes_are_found_by_who_started_them() -> None:
    program = (
        "import subprocess, sys\n"
        "open('/proc/self/comm', 'w').write('webserver')\n"
        "child = subprocess.Popen(['/bin/sh', '-c', 'sleep 1000; :'])\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as web:
        shell = int(await_ready(web))
        try:
            assert is_found(shell, ancestors=["^webserver$"])
            assert not is_found(shell, ancestors=["!^webserver$"])
            assert not is_found(web.pid, ancestors=["^webserver$"])
            chain = [one["pid"] for one in only(shell)["ancestors"]]
            assert chain[:2] == [web.pid, os.getpid()]
        finally:
            # The shell and its child too: all are of one group.
            os.killpg(web.pid, signal.SIGKILL)


def test_open_files_are_matched_by_their_paths(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    (tmp_path / "lost").write_text("x")
    program = f"held = [open('{tmp_path}/kept'), open('{tmp_path}/lost')]"
    with spawned(program) as child:
        (tmp_path / "lost").unlink()
        record = only(child.pid, open_files=[f"^{tmp_path}/"])
        assert sorted(record["open_files"]) == [f"{tmp_path}/kept", f"{tmp_path}/lost (deleted)"]
        assert not is_found(child.pid, open_files=[f"!{tmp_path}/kept"])
        assert is_found(child.pid, open_files=["!/no-such-file$"])


def test_libraries_are_matched_by_the_paths_that_are_mapped(tmp_path: Path) -> None:
    library = tmp_path / "lib with\nline end.so"
    library.write_bytes(bytes(8192))
    program = f"import mmap; f = open({str(library)!r}, 'rb'); held = mmap.mmap(f.fileno(), 0, access=1)"
    with spawned(program) as child:
        record = only(child.pid, libraries=["line end\\.so$"])
        assert record["libraries"] == (str(library),)
        assert not is_found(child.pid, libraries=["!line end"])
        assert not is_found(child.pid, libraries=[f"^{Path(sys.executable).resolve()}$"])


LISTENER = """
import socket
tcp = socket.create_server(("127.0.0.1", 0))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
client = socket.create_connection(tcp.getsockname())
print(tcp.getsockname()[1], udp.getsockname()[1], client.getsockname()[1], flush=True)
"""


def test_who_listens_on_a_port_is_found_and_who_is_connected_from_one_is_not() -> None:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", LISTENER + "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        tcp, udp, connected = map(int, await_ready(child).split())
        try:
            assert only(child.pid, ports=[tcp])["ports"] == tuple(sorted({tcp, udp}))
            assert is_found(child.pid, ports=[udp])
            assert not is_found(child.pid, ports=[connected])
        finally:
            child.kill()


@as_root
def test_a_port_is_one_of_the_process_s_own_network_namespace() -> None:
    program = LISTENER.replace("127.0.0.1", "0.0.0.0").split("client")[0]  # noqa: S104  (a namespace of its own)
    program += "print(tcp.getsockname()[1], flush=True)\nimport sys; sys.stdin.read()"
    with (
        subprocess.Popen(
            ["unshare", "--net", sys.executable, "-I", "-S", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as child,
        socket.socket() as ours,
    ):
        port = int(await_ready(child))
        try:
            # The same port in our own namespace, by somebody else.
            ours.bind(("127.0.0.1", port))
            ours.listen()
            assert {child.pid, os.getpid()} <= pids(ports=[port])
            ours.close()
            assert child.pid in pids(ports=[port])
            assert os.getpid() not in pids(ports=[port])
        finally:
            child.kill()


@as_root
def test_effective_capabilities_are_matched_by_name() -> None:
    with spawned() as root, spawned(f"import os; os.setuid({NOBODY})") as nobody:
        assert "cap_net_raw" in only(root.pid, capabilities=["cap_net_raw"])["capabilities"]
        assert is_found(root.pid, capabilities=["any"])
        assert not is_found(nobody.pid, capabilities=["any"])
        assert not is_found(root.pid, capabilities=["!cap_net_raw"])
        assert only(nobody.pid, capabilities=["!cap_sys_admin"])["capabilities"] == ()


def test_a_start_is_judged_as_ages_are() -> None:
    with spawned() as child:
        assert is_found(child.pid, starts=["<1h"])
        assert not is_found(child.pid, starts=[">1h"])
        assert not is_found(child.pid, starts=["<1h", ">1m"])


def test_threads_of_the_kernel_are_told_apart_and_have_no_program() -> None:
    threads = ask(kernel=True)
    assert all(record["kernel"] and "executable" not in record for record in threads.records)
    everybody, others = ask(), ask(kernel=False)
    assert not any(record.get("kernel") for record in others.records)
    assert bool(threads.records) is any(record.get("kernel") for record in everybody.records)
    for filters in (
        {"deleted": False},
        {"executables": ["!^x"]},
        {"commands": ["!^x"]},
        {"variables": ["!^x"]},
    ):
        assert not any(record.get("kernel") for record in ask(**filters).records)


def test_a_process_that_is_asked_for_by_number_and_is_not_there_is_named() -> None:
    with spawned() as child:
        pass
    result = ask(pids=[child.pid, os.getpid()])
    assert [record["pid"] for record in result.records] == [os.getpid()]
    assert result.notes == (f"process {child.pid}: there is none",)
    assert result.statistics["skipped"] == {"ended": 1}
    assert result.statistics["processes_seen"] == 1


def test_a_matchlimit_cuts_and_says_so() -> None:
    result = ask(matchlimit=1)
    assert (len(result.records), result.status, result.truncated) == (1, "limit", True)
    assert "stopped at the matchlimit of 1; there are more matches" in result.notes
    assert result.statistics["processes_matched"] == 1
