"""Stand-ins of container runtimes that are real: an engine on a unix socket, bundles on disk, processes."""

import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

WEB, DB = "3f5a" * 16, "77c0" * 16
IMAGE = "sha256:" + "ab" * 32
# As the Engine API documents them (v1.43), with what a module must not tell planted among it.
INSPECTED: dict[str, dict[str, Any]] = {
    WEB: {
        "Id": WEB,
        "Created": "2026-01-02T03:04:05.678901234Z",
        "Path": "nginx",
        "Args": ["--token=planted-secret"],
        "State": {
            "Status": "running", "Running": True, "Paused": False, "Pid": 0, "ExitCode": 0,
            "StartedAt": "2026-01-02T03:04:06Z", "FinishedAt": "0001-01-01T00:00:00Z",
        },
        "Image": IMAGE,
        "Name": "/web1",
        "HostConfig": {
            "NetworkMode": "bridge", "Privileged": False, "CapAdd": ["SYS_PTRACE", "NET_RAW"],
            "CapDrop": None,
            "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0}, "ReadonlyRootfs": True,
        },
        "Mounts": [
            {"Type": "bind", "Source": "/var/run/docker.sock", "Destination": "/sock", "RW": True},
            {"Type": "volume", "Name": "data", "Source": "", "Destination": "/data", "RW": False},
        ],
        "Config": {"User": "www", "Env": ["PATH=/bin", "API_KEY=planted-secret"], "Image": "nginx:1.25"},
        "NetworkSettings": {"IPAddress": "172.17.0.2"},
    },
    DB: {
        "Id": DB,
        "Name": "/db",
        "State": {"Status": "exited", "Pid": 0, "StartedAt": "0001-01-01T00:00:00Z"},
        "Image": "sha256:" + "cd" * 32,
        "HostConfig": {"NetworkMode": "host", "Privileged": True, "RestartPolicy": {"Name": "always"}},
        "Mounts": None,
        "Config": {"User": "", "Env": None, "Image": "postgres"},
    },
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "/containers/json?all=1": [{"Id": WEB, "Names": ["/web1"]}, {"Id": DB}],
    **{f"/containers/{one}/json": facts for one, facts in INSPECTED.items()},
    f"/images/{IMAGE.replace(':', '%3A')}/json": {
        "Id": IMAGE,
        "RepoDigests": ["nginx@sha256:" + "12" * 32],
    },
}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def engine(path: Path, answers: Mapping[str, Any] = ANSWERS) -> Iterator[list[str]]:
    """Serve answers by path, others with 404; the list holds what was asked. Bytes are sent as they are."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            asked.append(self.path)
            answer = answers.get(self.path)
            if isinstance(answer, bytes):
                self.wfile.write(answer)
                return
            body = json.dumps({"message": "no such thing"} if answer is None else answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    path.parent.mkdir(parents=True, exist_ok=True)
    with _Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def bundle(**changes: Any) -> dict[str, Any]:
    """Return a `config.json` as Podman 4.3 writes it, shortened."""
    made: dict[str, Any] = {
        "ociVersion": "1.0.2-dev",
        "process": {
            "user": {"uid": 0, "gid": 0, "umask": 18},
            "args": ["/bin/busybox", "sleep", "planted-secret"],
            "env": ["PATH=/bin", "SECRET=planted-secret", "HOSTNAME=x"],
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_PTRACE", "CAP_SETUID"]},
        },
        "root": {"path": "/tmp/rootfs", "readonly": True},
        "mounts": [
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["ro", "rbind"]},
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        ],
        "annotations": {
            "io.container.manager": "libpod",
            "io.kubernetes.cri-o.Created": "2026-01-02T03:04:05Z",
        },
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "mount"}],
            "maskedPaths": ["/proc/kcore"],
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
        },
    }
    made.update(changes)
    return made


def write(path: Path, value: Any) -> None:
    """Write a file of JSON, with its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


@contextmanager
def unshared() -> Iterator[int]:
    """Have a process in process, mount and network namespaces of its own: its number for the endpoint."""
    command = ["unshare", "--fork", "--pid", "--mount", "--net", "--mount-proc", "--kill-child"]
    with _started([*command, "sh", "-c", "echo in; read line"]) as pid:
        yield pid


@contextmanager
def jailed(root: Path, *words: str) -> Iterator[int]:
    """Have a process whose root is a directory, mounted for it alone: its number for the endpoint.

    Where there is a directory `proc` in it, that is what it should be. `words` are options of unshare(1).
    """
    code = (
        f"import os, subprocess, sys; root = {str(root)!r}; proc = root + '/proc';"
        "subprocess.run(['mount', '--bind', root, root], check=True);"
        "os.path.isdir(proc) and subprocess.run(['mount', '-t', 'proc', 'proc', proc], check=True);"
        "os.chroot(root); os.chdir('/'); print('in', flush=True); sys.stdin.readline()"
    )
    command = ["unshare", "--fork", "--mount", "--net", "--kill-child", *words]
    with _started([*command, sys.executable, "-c", code]) as pid:
        yield pid


@contextmanager
def _started(command: list[str]) -> Iterator[int]:
    """Start what forks a process that says that it is in, and ends when its input does: the fork's number."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        assert process.stdout.readline() == "in\n"
        yield int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
