"""The child: serves one command over frames on its standard input and output, and exits.

It binds itself to its limits first, then reads whom to obey, says that it is ready and waits. A delivery goes
through the gate here; then the child asks for permission with its verdict, and runs the operations only when
the resident, which keeps the journal, has given it. What it refuses has run nothing, so it may judge the next
delivery: a flood of forged ones costs no process each. Told by SIGTERM it lets its module end with what was
found so far. Where the action is sealed, the resident sends the answer back, signed, and the child, which
holds the readers' keys, encrypts it. Nothing it says moves a limit or a journal: its answer is bytes to the
resident. It dies with the resident (Linux), and the whole group with it when its time is over. A child that
is given a trust bundle instead judges that, and exits; one that is given a persistent module runs that
(`agent.runtime.watching`).
"""

import contextlib
import importlib
import os
from datetime import datetime
from typing import Any, Dict, Mapping, NoReturn

from agent.config import AgentLimits
from agent.digest_file import FILE_BYTES
from agent.platform.limits import ProcessLimits, apply_limits, die_with_parent, yield_to_others
from agent.progress import Reporter
from agent.runtime import frames
from agent.runtime.gate import Admission, Gate, Refusal, make_endpoint
from agent.runtime.journal import expiry_seconds
from agent.runtime.judgement import judge_cancel
from agent.runtime.operations import Cancelled, Operations
from agent.runtime.readers import seal
from agent.runtime.trust import (
    Trust,
    decode_told_candidate,
    decode_told_trust,
    judge_candidate,
    resolve_trust,
)
from agent.runtime.verdict import (
    encode_admitted,
    encode_bundle_accepted,
    encode_bundle_refused,
    encode_cancel_verdict,
    encode_refused,
)
from protocol.errors import InvalidInput
from protocol.strictjson import decode_json, encode_json


class _Channel:
    """The two ends that lead to the resident, out of the way of what a module might print or read."""

    def __init__(self) -> None:
        self._input, self._output = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        os.close(nothing)
        # A worker that is forked must neither speak for the child nor hide that it is gone.
        os.register_at_fork(after_in_child=self._close)

    def _close(self) -> None:
        # A worker's own worker comes here too, with nothing left to close.
        for fd in (self._input, self._output):
            if fd >= 0:
                os.close(fd)
        self._input = self._output = -1

    @property
    def input(self) -> int:
        """The descriptor of what the resident says."""
        return self._input

    def read(self, kind: bytes) -> bytes:
        """Read the one frame that comes next, and return its body."""
        return frames.read_frame(self._input, kind).body

    def read_one(self, *kinds: bytes) -> frames.Frame:
        """Read the one frame that comes next, of one of these kinds."""
        return frames.read_frame(self._input, *kinds)

    def write(self, kind: bytes, body: bytes = b"") -> None:
        """Write one frame."""
        frames.write_frame(self._output, kind, body)


def serve() -> NoReturn:
    """Serve one command and exit; what the resident closes early ends the child quietly."""
    channel = _Channel()
    with contextlib.suppress(EOFError, BrokenPipeError):
        _serve(channel)
    # No finalisers: nothing is left to save, and workers of a scan are killed with the group.
    os._exit(0)


def _serve(channel: _Channel) -> None:
    first = channel.read_one(frames.TRUST, frames.CANDIDATE, frames.WATCH)
    if first.kind == frames.WATCH:
        importlib.import_module("agent.runtime.watching").watch(channel, first.body)
        return
    if first.kind == frames.CANDIDATE:
        channel.write(frames.VERDICT, _judge_candidate(first.body))
        return
    trust = _read_trust(first.body)
    channel.write(frames.READY, encode_json({"refusal": trust.refusal[:1000]}))
    load_shared_parts()
    while True:
        told = decode_json(channel.read(frames.FACTS), max_bytes=frames.MAX_BODY_BYTES[frames.FACTS])
        now = datetime.fromisoformat(told["now"])
        delivery = channel.read_one(frames.ENVELOPE, frames.CANCEL)
        if delivery.kind == frames.CANCEL:
            verdict = judge_cancel(delivery.body, trust, now)
            channel.write(frames.VERDICT, encode_cancel_verdict(verdict))
            continue
        gate = Gate(delivery.body, trust=trust, endpoint=make_endpoint(told["facts"]), now=now)
        try:
            admission = gate.admit()
        except Refusal as refusal:
            channel.write(frames.VERDICT, _encode_refusal(gate, refusal))
            continue
        _serve_admitted(channel, admission, trust, told)
        return


def _encode_refusal(gate: Gate, refusal: Refusal) -> bytes:
    return encode_refused(
        step=refusal.step,
        code=refusal.code,
        detail=gate.tell(refusal),
        action_id=refusal.action_id,
        occurrence=refusal.occurrence,
    )


def _serve_admitted(channel: _Channel, admission: Admission, trust: Trust, told: Dict[str, Any]) -> None:
    action = admission.action
    admitted = encode_admitted(
        action_id=action.id,
        name=action.name,
        signers=admission.signers,
        modules=(operation.module for operation in action.operations),
        expireafter=expiry_seconds(admission.expires),
        sealed_to=(recipient.fingerprint for recipient in admission.recipients),
        occurrence=admission.occurrence,
    )
    cancelled = Cancelled()
    cancelled.listen()
    channel.write(frames.VERDICT, admitted)
    channel.read(frames.PERMIT)
    reporter = Reporter(lambda said: channel.write(frames.PROGRESS, said))
    # Of what is sealed nothing is told in the clear, not even counts.
    report = _tell_nothing if admission.recipients else reporter.report
    operations = Operations(admission, trust=trust, told=told, cancelled=cancelled, report=report)
    channel.write(frames.ANSWER, operations.run())
    if admission.recipients:
        channel.write(frames.SEALED, seal(channel.read(frames.SEAL), admission.recipients))


def _tell_nothing(_operation: int, _statistics: Mapping[str, Any]) -> None:
    """Keep progress to oneself."""


def load_shared_parts() -> None:
    """Import, while there is nothing to do, what most actions need: 50 ms that the gate then does without.

    No module: one that is broken must cost nobody else's action.
    """
    for name in ("re2", "agent.scan.scan", "agent.scan.pool"):
        with contextlib.suppress(ImportError):  # said by the gate, of an action that needs it
            importlib.import_module(name)


def _read_trust(body: bytes) -> Trust:
    """Bind this process to its limits, then read whom to obey."""
    told = decode_told_trust(body)
    _bind(AgentLimits(**told.limits), keeps_digests=told.digest_cache is not None)
    return resolve_trust(told)


def _judge_candidate(body: bytes) -> bytes:
    """Judge a trust bundle, within the limits of a command."""
    told = decode_told_candidate(body)
    _bind(AgentLimits(**told.limits))
    try:
        opened = judge_candidate(told)
    except InvalidInput as error:
        return encode_bundle_refused(error.code, error.detail)
    return encode_bundle_accepted(opened.bundle.version, opened.digest)


def _bind(limits: AgentLimits, *, keeps_digests: bool = False) -> None:
    die_with_parent()
    yield_to_others()
    bound = ProcessLimits(cpu_s=limits.cpu_s, memory_bytes=limits.memory_bytes, open_files=limits.open_files)
    # The limit on written files is one of offsets: digests are written anywhere in a file that is long.
    apply_limits(bound._replace(file_bytes=FILE_BYTES) if keeps_digests else bound)
