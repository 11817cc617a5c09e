r"""List containers: name, image, digest, state, mounts, privileges, network, processes, restart policy.

Docker and Podman are asked through the API of their sockets in /run; containerd, CRI-O and Podman are read
from what they keep on disk, OCI bundles included. None of their tools needs to be there. Containers that no
runtime tells of are known by control groups, or by a process and a mount namespace of their own (`runtime` is
`unknown`): of these only what their processes show is told.

There is a record for each container, running or not, that satisfies all filters given; several values of one
filter are alternatives. `found` means that at least one does. Of environment variables only names are given,
and neither command lines nor labels.

What is told comes from runtimes and stores, and is as true as they are; names and images are text of whoever
made a container. Sockets and engines of users are not asked, since that could start their programs; their
stores in /home are read. A container of which neither a runtime nor a namespace is left is not seen.

Statistics: `containers_seen`, `errors`, `skipped`.
"""

from typing import Annotated, Iterator, Literal, Optional, Tuple

import msgspec
from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord
from agent.platform.container_facts import ContainerFacts
from agent.platform.container_list import list_containers
from agent.scan.log_question import LineFilter
from agent.scan.patterns import require_pattern, split_inverse
from agent.scan.search import Regex

PATHS = ()
PLATFORMS = ("linux",)
EXAMPLES = (
    "mig container   what runs in containers",
    "mig container --privileged yes   which of them could do anything to the endpoint",
    "mig container --image '^docker.io/library/nginx:1\\.2' --state running   by image",
    "mig container --mount '^/var/run/docker.sock$' --mount '^/$'   who was given the endpoint itself",
    "mig container --capability cap_sys_admin --capability cap_sys_ptrace   more than usual",
)

Runtime = Literal["docker", "podman", "containerd", "cri-o", "unknown"]
YesNo = Literal["yes", "no"]
Wanted = Annotated[str, Meta(min_length=1, max_length=256)]
Capability = Annotated[str, Meta(pattern=r"^cap_[a-z_]{1,32}\Z")]
Pid = Annotated[int, Meta(ge=1, le=2**31 - 1)]
_SHORT_ID = 12


class Params(ModuleParams, frozen=True, kw_only=True):
    """Which containers to tell of."""

    containers: Annotated[
        Tuple[Wanted, ...],
        Meta(description="ids, the first 12 or more digits of them, or names; any of them", max_length=1000),
    ] = ()
    names: Annotated[
        Tuple[Regex, ...],
        Meta(description="regular expressions (RE2) on the name, any of them; ! leaves out", max_length=100),
    ] = ()
    images: Annotated[
        Tuple[Regex, ...],
        Meta(description="regular expressions on the image's name or digest; ! leaves out", max_length=100),
    ] = ()
    mounts: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions on what is mounted, paths of the endpoint; ! leaves out",
            max_length=100,
        ),
    ] = ()
    runtimes: Annotated[
        Tuple[Runtime, ...], Meta(description="docker, podman, containerd, cri-o or unknown, any of them")
    ] = ()
    states: Annotated[
        Tuple[Wanted, ...],
        Meta(description="running, paused, exited, stopped, created, ..., any of them", max_length=16),
    ] = ()
    capabilities: Annotated[
        Tuple[Capability, ...],
        Meta(
            description="capabilities beyond the usual ones, such as cap_sys_admin, any of them",
            max_length=64,
        ),
    ] = ()
    privileged: Annotated[
        Optional[YesNo], Meta(description="yes: only such as may do anything; no: only others")
    ] = None
    pids: Annotated[
        Tuple[Pid, ...],
        Meta(description="numbers of processes that run within, any of them", max_length=1000),
    ] = ()

    def __post_init__(self) -> None:
        """Refuse expressions that are none; msgspec turns the ValueError into its own error."""
        for name in ("names", "images", "mounts"):
            for value in getattr(self, name):
                require_pattern(split_inverse(value)[0], name)


class MountRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something of the endpoint that is mounted within."""

    target: Annotated[str, Meta(description="path within the container")]
    source: Annotated[
        Optional[str], Meta(description="path of the endpoint, or of its file system, or a volume's name")
    ] = None
    type: Annotated[Optional[str], Meta(description="bind, volume, or a type of file system")] = None
    read_only: Annotated[bool, Meta(description="it cannot be written to through this mount")] = False


class Record(ModuleRecord, frozen=True, kw_only=True):
    """One container."""

    container: Annotated[str, Meta(description="id, or what stands for it: a name, or a process namespace")]
    runtime: Annotated[str, Meta(description="docker, podman, containerd, cri-o or unknown")]
    source: Annotated[
        str, Meta(description="by what it is known first: engine, store, bundle, cgroup or namespaces")
    ]
    name: Annotated[Optional[str], Meta(description="name that it was given")] = None
    image: Annotated[Optional[str], Meta(description="name of its image")] = None
    digest: Annotated[Optional[str], Meta(description="digest by which the image was pulled, or its id")] = (
        None
    )
    state: Annotated[Optional[str], Meta(description="running, paused, exited, stopped, created, ...")] = None
    created: Annotated[Optional[str], Meta(description="when it was made, as its runtime says")] = None
    started: Annotated[Optional[str], Meta(description="when it was last started, as its runtime says")] = (
        None
    )
    pid: Annotated[Optional[int], Meta(description="number of its first process, for the endpoint")] = None
    pids: Annotated[
        Tuple[int, ...], Meta(description="numbers of its processes, for the endpoint; at most 500")
    ] = ()
    user: Annotated[
        Optional[str], Meta(description="user that it starts as: a name, or uid:gid, within the container")
    ] = None
    privileged: Annotated[
        Optional[bool], Meta(description="it has all capabilities and no filter of system calls")
    ] = None
    capabilities_added: Annotated[
        Tuple[str, ...], Meta(description="capabilities beyond those that runtimes give by themselves")
    ] = ()
    network: Annotated[
        Optional[str],
        Meta(
            description="mode of its network: host, own, none, bridge, a network's name, a namespace's path"
        ),
    ] = None
    namespace: Annotated[
        Optional[str], Meta(description="network namespace of its first process, such as net:[4026531840]")
    ] = None
    shared: Annotated[
        Tuple[str, ...],
        Meta(description="kinds of namespaces that it has in common with the endpoint: net, pid, user, ..."),
    ] = ()
    restart: Annotated[Optional[str], Meta(description="restart policy, as its engine names it")] = None
    read_only: Annotated[Optional[bool], Meta(description="its root cannot be written to")] = None
    mounts: Annotated[Tuple[MountRecord, ...], Meta(description="what is mounted within; at most 500")] = ()
    variables: Annotated[
        Tuple[str, ...], Meta(description="names of environment variables that it is given; never values")
    ] = ()


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield the containers that satisfy all filters.

    Raises:
        InvalidInput: `unsupported`, where there is no engine for regular expressions.

    """
    choice = _Choice(params)
    context.statistics.update({"containers_seen": 0, "errors": 0, "skipped": {}})

    def count(name: str) -> None:
        context.statistics[name] = int(str(context.statistics[name])) + 1

    def lose(text: str) -> None:
        count("errors")
        context.note(text)

    for facts in list_containers(lose, check=context.check):
        context.check()
        count("containers_seen")
        context.progress()
        if choice.wants(facts):
            yield _record(facts)


class _Choice:
    """Tells which containers are wanted."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._names = LineFilter(params.names)
        self._images = LineFilter(params.images)
        self._mounts = LineFilter(params.mounts)

    def wants(self, facts: ContainerFacts) -> bool:
        """Tell whether all filters hold."""
        params = self._params
        return (
            self._is_named(facts)
            and (not params.runtimes or facts.runtime in params.runtimes)
            and (not params.states or facts.state in params.states)
            and (not params.pids or not frozenset(params.pids).isdisjoint(facts.pids))
            and (
                not params.capabilities
                or not frozenset(params.capabilities).isdisjoint(facts.capabilities_added)
            )
            and (params.privileged is None or (params.privileged == "yes") == bool(facts.is_privileged))
            and _admits(self._names, facts.name)
            and _admits(self._images, f"{facts.image or ''}\n{facts.digest or ''}")
            and _admits(self._mounts, "\n".join(one.source or "" for one in facts.mounts))
        )

    def _is_named(self, facts: ContainerFacts) -> bool:
        return not self._params.containers or any(
            wanted in (facts.id, facts.name) or (len(wanted) >= _SHORT_ID and facts.id.startswith(wanted))
            for wanted in self._params.containers
        )


def _admits(chosen: LineFilter, text: Optional[str]) -> bool:
    """Tell whether a text of one or more lines is wanted: what was not told is empty."""
    return chosen.is_open or chosen.admits((text or "").encode("utf-8", "replace"))


def _record(facts: ContainerFacts) -> Record:
    return Record(
        container=facts.id,
        runtime=facts.runtime,
        source=facts.source,
        name=facts.name,
        image=facts.image,
        digest=facts.digest,
        state=facts.state,
        created=facts.created,
        started=facts.started,
        pid=facts.pid or None,
        pids=facts.pids,
        user=facts.user,
        privileged=facts.is_privileged,
        capabilities_added=facts.capabilities_added,
        network=facts.network,
        namespace=facts.namespace,
        shared=facts.shared,
        restart=facts.restart,
        read_only=facts.is_read_only,
        mounts=tuple(
            MountRecord(target=one.target, source=one.source, type=one.type, read_only=one.is_read_only)
            for one in facts.mounts
        ),
        variables=facts.environment,
    )
