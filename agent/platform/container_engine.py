"""Containers as the engine's own API tells of them: Docker's, which Podman serves too, over its unix socket.

Rules:

* Only GET requests, and only to sockets that are the endpoint's own (`/run`, of root): a socket below a
  user's directory could be anybody's program, and talking to it could start one.
* What comes is bounded in size and time and decoded by declared types: an engine may be broken or replaced.

Source: https://docs.docker.com/reference/api/engine/ (ContainerList, ContainerInspect, ImageInspect).
"""

import http.client
import socket
import urllib.parse
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import msgspec

from agent.platform.container_facts import (
    MAX_LISTED,
    ContainerFacts,
    MountFacts,
    added,
    bounded,
    names_only,
)

SOCKETS = (("docker", "run/docker.sock"), ("podman", "run/podman/podman.sock"))
_TIMEOUT_S = 5.0
_MAX_ANSWER_BYTES = 16 << 20
_MAX_CONTAINERS = 10_000
_OK = 200


class EngineFailure(Exception):
    """The engine did not answer, or gave an answer that is none."""


class _Listed(msgspec.Struct):
    Id: str


class _State(msgspec.Struct):
    Status: Optional[str] = None
    Pid: int = 0
    StartedAt: Optional[str] = None


class _Config(msgspec.Struct):
    Image: Optional[str] = None
    User: Optional[str] = None
    Env: Optional[List[str]] = None


class _Restart(msgspec.Struct):
    Name: Optional[str] = None


class _Host(msgspec.Struct):
    Privileged: bool = False
    CapAdd: Optional[List[str]] = None
    NetworkMode: Optional[str] = None
    RestartPolicy: Optional[_Restart] = None
    ReadonlyRootfs: bool = False


class _Mount(msgspec.Struct):
    Type: Optional[str] = None
    Name: Optional[str] = None
    Source: Optional[str] = None
    Destination: str = ""
    RW: bool = True


class _Inspected(msgspec.Struct):
    Id: str
    Name: Optional[str] = None
    Created: Optional[str] = None
    Image: Optional[str] = None
    State: Optional[_State] = None
    Config: Optional[_Config] = None
    HostConfig: Optional[_Host] = None
    Mounts: Optional[List[_Mount]] = None


class _Image(msgspec.Struct):
    Id: Optional[str] = None
    RepoDigests: Optional[List[str]] = None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(self._path)


class Engine:
    """One engine, by its socket; `check` is called while it is waited for, and may raise."""

    def __init__(self, runtime: str, path: str, check: Callable[[], None]) -> None:
        self._runtime = runtime
        self._path = path
        self._check = check
        self._digests: Dict[str, Optional[str]] = {}

    def containers(self, lose: Callable[[str], None]) -> Iterator[ContainerFacts]:
        """Yield all containers; of one that cannot be told of `lose` is told why.

        Raises:
            EngineFailure: it does not list them.

        """
        listed = self._get("/containers/json?all=1", List[_Listed])
        if len(listed) > _MAX_CONTAINERS:
            lose(f"{self._path}: lists {len(listed)} containers, of which {_MAX_CONTAINERS} were looked at")
        for one in listed[:_MAX_CONTAINERS]:
            try:
                found = self._get(f"/containers/{_quoted(one.Id)}/json", _Inspected)
            except EngineFailure as failure:
                lose(f"{one.Id[:64]}: {failure}")
                continue
            yield self._facts(found)

    def _facts(self, found: _Inspected) -> ContainerFacts:
        state, config = found.State or _State(), found.Config or _Config()
        host = found.HostConfig or _Host()
        restart = host.RestartPolicy.Name if host.RestartPolicy is not None else None
        return ContainerFacts(
            id=found.Id[:128],
            runtime=self._runtime,
            source="engine",
            # Docker's own names begin with a slash.
            name=bounded((found.Name or "").lstrip("/")),
            image=bounded(config.Image),
            digest=self._digest_of(found.Image),
            state=bounded(state.Status),
            created=bounded(found.Created),
            # A container that never ran has the zero time of Go.
            started=None if (state.StartedAt or "").startswith("0001-") else bounded(state.StartedAt),
            pid=max(state.Pid, 0),
            user=bounded(config.User),
            is_privileged=host.Privileged,
            capabilities_added=added(tuple(host.CapAdd or ())),
            network=bounded(host.NetworkMode),
            restart=bounded(restart),
            is_read_only=host.ReadonlyRootfs,
            mounts=tuple(
                MountFacts(
                    one.Destination[:4096], bounded(one.Source or one.Name), bounded(one.Type), not one.RW
                )
                for one in (found.Mounts or ())[:MAX_LISTED]
            ),
            environment=names_only(tuple(config.Env or ())),
        )

    def _digest_of(self, image: Optional[str]) -> Optional[str]:
        """Return the digest under which an image was pulled, else its id."""
        if not image:
            return None
        if image not in self._digests:
            try:
                found = self._get(f"/images/{_quoted(image)}/json", _Image)
            except EngineFailure:
                # The image was removed, or this engine does not say: its id stands.
                found = _Image()
            pulled = [one.partition("@")[2] for one in found.RepoDigests or () if "@" in one]
            self._digests[image] = bounded(pulled[0] if pulled else image)
        return self._digests[image]

    def _get(self, path: str, kind: Any) -> Any:
        self._check()
        connection = _UnixConnection(self._path)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            data = self._read(response)
            status = response.status
        except (OSError, http.client.HTTPException) as error:
            raise EngineFailure(f"{self._path}: {type(error).__name__}: {str(error)[:200]}") from None
        finally:
            connection.close()
        if status != _OK:
            raise EngineFailure(f"{self._path}: answers {status}")
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise EngineFailure(f"{self._path}: gives an answer that is none: {str(error)[:200]}") from None

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        parts: List[bytes] = []
        left = _MAX_ANSWER_BYTES
        while left > 0:
            self._check()
            data = response.read(min(left, 1 << 16))
            if not data:
                return b"".join(parts)
            parts.append(data)
            left -= len(data)
        raise EngineFailure(f"{self._path}: answers with more than {_MAX_ANSWER_BYTES >> 20} MiB")


def _quoted(text: str) -> str:
    """Return a text as one component of a path."""
    return urllib.parse.quote(text[:256], safe="")


def sockets(root: str = "/") -> Tuple[Tuple[str, str], ...]:
    """Return where engines are asked: their runtime and the path of their socket."""
    return tuple((runtime, f"{root.rstrip('/')}/{path}") for runtime, path in SOCKETS)
