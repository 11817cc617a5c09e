"""What reads hostile bytes, each as a function that takes any bytes; only `MigError` may come out of it.

Each has seeds: documents that are nearly right, so that mutations reach what lies behind the first check.
"""

import bz2
import gzip
import io
import json
import lzma
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backports import zstd

from agent.module import decode_params
from agent.progress import decode_progress
from agent.registry import load_module
from agent.runtime import frames
from agent.runtime.journal import Journal, JournalEntry, read_journal
from agent.runtime.verdict import decode_cancel_verdict, decode_verdict, encode_admitted, encode_refused
from agent.scan.lines import LineQuestion
from agent.scan.magic import magic_of
from agent.scan.pattern_set import PatternSet
from agent.scan.patterns import compile_lines
from agent.scan.unpacking import SIGNATURE_BYTES, Limits, open_packed
from client.action import Completion, complete_action
from client.sse import decode_events
from protocol.action import decode_action
from protocol.envelope import ACTION, Envelope, Signature, decode_envelope, encode_envelope, peek_type
from protocol.errors import MigError
from protocol.openpgp import parse_certificate, parse_signature_file, require_detached_signature
from protocol.schedule import parse_occurrence
from protocol.strictjson import decode_json
from protocol.target import parse_target
from tests.fuzz.signed import SIGNED
from tests.fuzz.target import FuzzTarget, of_text, vector
from tests.support import documents

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def _json(*values: Any) -> tuple[bytes, ...]:
    return tuple(json.dumps(value).encode() for value in values)


def _verify(data: bytes) -> None:
    certificate = parse_certificate(vector("good-ed25519-24", "cert.asc"))
    require_detached_signature(certificate, data, vector("good-ed25519-24", "msg"), NOW)


def _feed(data: bytes) -> None:
    reader = frames.FrameReader(frozenset({frames.READY, frames.VERDICT, frames.ANSWER}))
    for start in range(0, len(data), 7):
        list(reader.feed(data[start : start + 7]))


def _file_parameters(data: bytes) -> None:
    module = load_module("file")
    value = decode_json(data)
    decode_params(module.params, value)
    complete_action({"name": "x", "operations": [{"module": "file", "parameters": value}]}, Completion(NOW))


def _content(data: bytes) -> None:
    """A file whose first line is an expression: it is refused, or searched for in the rest."""
    expression, _, rest = data.decode("latin-1").partition("\n")
    search = {"paths": ["/"], "contents": [expression]}
    decode_params(load_module("file").params, {"searches": {"s": search}})
    patterns = PatternSet([compile_lines(one) for one in (expression, "root", "[a-z]+:")])
    question = LineQuestion(patterns, some=frozenset(range(3)), every=frozenset([0]), check=lambda: None)
    scan = question.begin()
    for start in range(0, len(rest), 7):
        scan.feed(rest[start : start + 7].encode("latin-1"))
    scan.finish()
    if scan.answers != question.answer(rest.encode("latin-1")):
        raise AssertionError("in pieces and at once differ")


def _unpack(data: bytes) -> None:
    unpacker = open_packed(data[:SIGNATURE_BYTES], Limits(free_bytes=1 << 20))
    if unpacker is not None:
        for _ in unpacker.feed(data):
            pass
        unpacker.finish()


def _journal(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        path.write_bytes(data)
        path.chmod(0o600)
        read_journal(path)
        Journal(path, clock=lambda: NOW).close()


def _journal_seed() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        journal = Journal(path, clock=lambda: NOW)
        journal.insert(JournalEntry("a" * 64, "", "b" * 32, documents.ACTION_ID, "x", (), (), 1796083200))
        journal.mark_started("a" * 64, "")
        journal.close()
        return path.read_bytes()


def _schedule(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for member in ("cron", "every"):
        decode_action(json.dumps({**documents.ACTION, "schedule": {member: text}}).encode())


ENVELOPE = encode_envelope(
    Envelope(ACTION, json.dumps(documents.ACTION).encode(), (Signature("A" * 40, b"s"),))
)
SEARCH = {"paths": ["/etc"], "names": ["^passwd$"], "sizes": ["<1k"], "contents": ["root"], "options": {}}

TARGETS: dict[str, FuzzTarget] = {
    **SIGNED,
    "strict-json": FuzzTarget(decode_json, _json({"a": [1, 2.5, "x\u00e9", None, True]}, [[[[]]]])),
    "envelope": FuzzTarget(lambda data: decode_envelope(data, ACTION), (ENVELOPE,)),
    "envelope-type": FuzzTarget(peek_type, (ENVELOPE,)),
    "action": FuzzTarget(decode_action, _json(documents.ACTION)),
    "schedule": FuzzTarget(_schedule, (b"0 3 * * *", b"*/5 1-4 1,15 * MON", b"6h")),
    "occurrence": FuzzTarget(of_text(parse_occurrence), (b"2026-12-01T00:00:00Z", b"")),
    "target": FuzzTarget(
        of_text(parse_target),
        (
            b"os = 'linux' AND name LIKE 'web%' AND tags->>'operator' IN ('ops','it')",
            b"NOT (id IS NULL OR name ~* 'a+') AND heartbeattime > NOW() - INTERVAL '5 minutes'",
        ),
    ),
    "openpgp-certificate": FuzzTarget(
        parse_certificate,
        tuple(vector(f"good-{kind}-24", "cert.asc") for kind in ("ed25519", "defaultkey", "dsa2048")),
    ),
    "openpgp-signature-file": FuzzTarget(parse_signature_file, (vector("good-ed25519-24", "sig.asc"),)),
    "openpgp-signature": FuzzTarget(_verify, (parse_signature_file(vector("good-ed25519-24", "sig.asc")),)),
    "progress": FuzzTarget(decode_progress, (b'{"operation":0,"statistics":{"files_seen":1,"cpu_s":0.5}}',)),
    "frames": FuzzTarget(
        _feed, (frames.encode_frame(frames.READY) + frames.encode_frame(frames.ANSWER, b"[]"),)
    ),
    "verdict": FuzzTarget(
        decode_verdict,
        (
            encode_refused(step=7, code="not-targeted", detail="x", action_id=documents.ACTION_ID),
            encode_admitted(
                action_id=documents.ACTION_ID, name="x", signers=["A" * 40], modules=["file"], expireafter=9
            ),
        ),
    ),
    "cancel-verdict": FuzzTarget(decode_cancel_verdict, _json({"step": 0, "signers": []})),
    "journal": FuzzTarget(_journal, (_journal_seed(),)),
    "events": FuzzTarget(
        lambda data: list(decode_events(io.BytesIO(data))), (b": ping\n\nevent: result\nid: 1\ndata: {}\n\n",)
    ),
    "content": FuzzTarget(
        _content, (b"^root:[^:]*:0\nroot:x:0:0\r\nbin:x:1:1\n", b"(a|b)+?c\nac\n\xff\x00abc")
    ),
    "unpacking": FuzzTarget(
        _unpack,
        tuple(
            pack(b"content" * 9) * 2 for pack in (gzip.compress, bz2.compress, lzma.compress, zstd.compress)
        ),
    ),
    "magic": FuzzTarget(
        magic_of, (b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0", b"\xca\xfe\xba\xbe\0\0\0=", b"x\n-----BEGIN A")
    ),
    "file-parameters": FuzzTarget(_file_parameters, _json({"searches": {"s": SEARCH}})),
}

# What once came out of a reader as something else than a value or a refusal, or was believed; it stays here.
FOUND: tuple[tuple[str, bytes], ...] = (
    ("strict-json", b'{"a":1,"a":2}'),
    ("strict-json", b'"\\ud800"'),
    ("strict-json", b"[" * 100_000),
    ("strict-json", b"1" * 5000),
    ("strict-json", b"1e999"),
    ("action", json.dumps({**documents.ACTION, "validfrom": "0001-01-01T00:00:00+23:59"}).encode()),
    ("events", b"id: 1\r2\ndata: \xff\n\n"),
    ("target", b"(" * 20_000),
    ("openpgp-signature", b""),
    ("openpgp-signature", b"\xc2\x00"),
)


def is_refusal(error: Exception) -> bool:
    """Tell whether an exception is one of ours."""
    return isinstance(error, MigError)
