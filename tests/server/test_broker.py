import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pika
import psutil
import pytest

from protocol.errors import EnvironmentFailure
from server.broker import PrivateBroker, State
from server.daemon import Daemon
from tests.support.broker import server_connection
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
END_S = 60


def processes_of(directory: Path) -> list[psutil.Process]:
    """Return the processes that hold a lock file of the directory open: node and port mapper."""
    held = []
    for process in psutil.process_iter():
        try:
            if any(Path(opened.path).is_relative_to(directory) for opened in process.open_files()):
                held.append(process)
        except psutil.Error:
            continue
    return held


@pytest.mark.system
def test_everything_of_a_node_listens_on_loopback_only(broker: PrivateBroker) -> None:
    processes = processes_of(broker.directory)
    listening = [
        connection.laddr
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {process.name() for process in processes} >= {"beam.smp", "epmd"}
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}
    assert len({address.port for address in listening}) == len(State.__struct_fields__) - 1


@pytest.mark.system
def test_what_holds_the_password_can_be_read_by_the_owner_only(broker: PrivateBroker) -> None:
    modes = {
        name: stat.S_IMODE((broker.directory / name).stat().st_mode)
        for name in (".", "state.json", "rabbitmq.conf", "url")
    }
    assert modes == {".": 0o700, "state.json": 0o600, "rabbitmq.conf": 0o600, "url": 0o600}


@pytest.mark.system
def test_there_is_no_guest_and_no_mechanism_but_plain(broker: PrivateBroker) -> None:
    parameters = pika.URLParameters(broker.agent_url)
    with pytest.raises(pika.exceptions.ProbableAuthenticationError, match="ACCESS_REFUSED"):
        pika.BlockingConnection(parameters)
    with server_connection(broker) as connection:
        offered = connection._impl.server_properties
    assert offered["product"] == "RabbitMQ"


@pytest.mark.system
def test_a_second_start_in_the_same_directory_says_so(broker: PrivateBroker) -> None:
    with pytest.raises(EnvironmentFailure, match="state-in-use: rabbitmq is running already"):
        PrivateBroker(broker.directory).start()
    assert broker.is_running()


@pytest.mark.system
def test_a_stopped_node_starts_again_on_the_same_ports_with_its_messages(clean_broker: PrivateBroker) -> None:
    url = clean_broker.url
    with server_connection(clean_broker) as connection:
        channel = connection.channel()
        channel.queue_declare("kept", durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", "kept", b"message", pika.BasicProperties(delivery_mode=2))
    clean_broker.stop()
    assert not clean_broker.is_running()
    assert processes_of(clean_broker.directory) == []
    clean_broker.start()
    assert clean_broker.url == url
    with server_connection(clean_broker) as connection:
        _, _, body = connection.channel().basic_get("kept", auto_ack=True)
        connection.channel().queue_delete("kept")
    assert body == b"message"


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure, match="tool-missing: .*apt-get install .*rabbitmq-server"):
        PrivateBroker(tmp_path / "node", installed=tmp_path).start()
    assert not (tmp_path / "node").exists()


def test_a_port_that_somebody_took_meanwhile_is_named_and_nothing_runs(tmp_path: Path) -> None:
    node = PrivateBroker(tmp_path)
    node.prepare()
    port = int(node.agent_url.rpartition(":")[2].split("/")[0])
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(EnvironmentFailure, match=f"port-in-use: 127.0.0.1:{port}"),
    ):
        node.start()
    assert processes_of(tmp_path) == []


@pytest.mark.system
def test_a_node_that_does_not_start_shows_its_last_lines_and_leaves_nothing(tmp_path: Path) -> None:
    node = PrivateBroker(tmp_path, auth_listen="127.0.0.1:1\nno_such_setting = 1\n#")
    with pytest.raises(EnvironmentFailure, match=r"broker-away: RabbitMQ ended with code [^0](.|\n)*no_such"):
        node.start()
    assert processes_of(tmp_path) == []


@pytest.mark.system
def test_a_node_ends_with_the_process_that_started_it_even_by_sigkill(tmp_path: Path) -> None:
    code = (
        "import signal, sys; from pathlib import Path; from server.broker import PrivateBroker;"
        f"PrivateBroker(Path({str(tmp_path)!r})).start(); print('up', flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"up\n"
        children = processes_of(tmp_path)
        assert {process.name() for process in children} >= {"beam.smp", "epmd"}
        starter.kill()
    psutil.wait_procs(children, timeout=END_S)
    assert not PrivateBroker(tmp_path).is_running()
    assert processes_of(tmp_path) == []


@pytest.mark.system
def test_sigterm_while_a_node_starts_leaves_nothing_running(tmp_path: Path) -> None:
    command = [sys.executable, "-B", "-m", "server.main", "broker", "up", "--state-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as starting:
        assert starting.stdout is not None
        assert starting.stdout.readline().startswith(b"starting rabbitmq")
        starting.send_signal(signal.SIGTERM)
        assert starting.wait(END_S) == 128 + signal.SIGTERM
    assert not PrivateBroker(tmp_path).is_running()
    assert processes_of(tmp_path) == []


@pytest.mark.system
def test_up_in_the_foreground_shows_its_url_and_ends_the_node_at_sigterm(tmp_path: Path) -> None:
    words = ["broker", "up", "--foreground", "--state-dir", str(tmp_path), "--auth-port", str(free_port())]
    with subprocess.Popen(
        [sys.executable, "-B", "-m", "server.main", *words], stdout=subprocess.PIPE, cwd=ROOT
    ) as staying:
        assert staying.stdout is not None
        staying.stdout.readline()
        assert staying.stdout.readline().startswith(b"up: agents connect to amqp://127.0.0.1:")
        assert (tmp_path / "url").read_text().strip() == PrivateBroker(tmp_path).url
        staying.send_signal(signal.SIGTERM)
        assert staying.wait(END_S) == 128 + signal.SIGTERM
    assert not (tmp_path / "url").exists()
    assert processes_of(tmp_path) == []


def test_a_daemon_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, "stubborn")
    daemon.acquire()
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    code = f"{ignore}; print('deaf', flush=True); signal.pause()"
    daemon.spawn([sys.executable, "-c", code], os.environ, outlives_parent=True)
    while daemon.output.read_text() != "deaf\n":
        assert daemon.ended_within(0.02) is None
    daemon.release()
    assert daemon.is_running()
    daemon.stop(patience_s=0.1)
    assert not daemon.is_running()
    assert daemon.ended_within(5) == -signal.SIGKILL


def test_a_daemon_is_stopped_by_a_process_that_did_not_start_it(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, "sleeper")
    daemon.acquire()
    daemon.spawn([sys.executable, "-c", "import signal; signal.pause()"], os.environ, outlives_parent=True)
    daemon.release()
    other = Daemon(tmp_path, "sleeper")
    with pytest.raises(EnvironmentFailure, match="state-in-use: sleeper is running already"):
        other.acquire()
    other.stop(patience_s=10)
    assert daemon.ended_within(5) == -signal.SIGTERM


@pytest.mark.slow
def test_a_daemon_that_has_not_said_yet_which_process_it_is_is_ended_all_the_same(tmp_path: Path) -> None:
    """Its starter may be stopped at any moment, and then ends what it has started."""
    for _ in range(5):
        daemon, ender = Daemon(tmp_path, "sleeper"), Daemon(tmp_path, "sleeper")
        daemon.acquire()
        wait = "import signal; signal.pause()"
        daemon.spawn([sys.executable, "-c", wait], os.environ, outlives_parent=True)
        daemon.release()
        ender.stop(patience_s=10)
        assert not ender.is_running()
        assert daemon.ended_within(5) == -signal.SIGTERM


def test_stopping_what_never_ran_is_no_error(tmp_path: Path) -> None:
    PrivateBroker(tmp_path / "nothing").stop()
    assert not (tmp_path / "nothing").exists()
