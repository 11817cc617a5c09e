"""Tests of what the kernel tells over netlink: recorded messages, and what the kernel here really says."""

import os
import select
import socket
import struct
import subprocess
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.platform.netlink import (
    AuditListener,
    AuditRecord,
    ProcEvent,
    ProcListener,
    parse_audit,
    parse_proc,
    split_messages,
)
from protocol.errors import InvalidInput

_L = TypeVar("_L", AuditListener, ProcListener)
# As Linux 6.18 sent them: the answer to the request to listen, and the start of a program by process 17542.
ACKNOWLEDGED = bytes.fromhex(
    "4c0000000300000000000000000000000100000001000000000000000000000028000000"
    "00000000000000" + "00" + "8c18b01da2000000" + "00000000" + "00" * 20
)
EXEC = bytes.fromhex(
    "4c0000000300000000000000000000000100000001000000000000000000000028000000"
    "0200000000000000a6ce1e1ea2000000" + "8644000086440000" + "00" * 16
)


def test_recorded_messages_of_the_proc_connector_are_read() -> None:
    assert list(parse_proc(ACKNOWLEDGED)) == [ProcEvent(0, 0)]
    assert list(parse_proc(EXEC)) == [ProcEvent(2, 17542)]


def test_a_recorded_audit_message_is_read_whatever_length_its_header_says() -> None:
    text = b"audit(1364481363.243:24287): pid=1 uid=0"
    for length in (len(text), len(text) + 16):
        data = struct.pack("=IHHII", length, 1112, 0, 0, 0) + text + b"\0"
        assert parse_audit(data) == AuditRecord(1112, text)


@given(st.binary(max_size=200))
def test_any_bytes_are_some_messages_or_none(data: bytes) -> None:
    assert len(list(split_messages(data))) <= len(data) // 16
    assert len(list(parse_proc(data))) <= len(data) // 16
    record = parse_audit(data)
    assert record is None or len(record.text) <= len(data)


def listen(kind: type[_L]) -> _L | None:
    """Listen; None where the kernel here does not let us, and says so."""
    problem: InvalidInput | None = None
    try:
        return kind()
    except InvalidInput as error:
        problem = error
    assert problem.code == "unsupported"
    assert "listened to" in problem.detail or "connector" in problem.detail or "audit" in problem.detail
    return None


def wait_for(descriptor: int, is_there: Callable[[], bool]) -> None:
    while not is_there():
        assert select.select([descriptor], [], [], 30)[0], "nothing came"


def test_the_kernel_here_tells_of_programs_that_start_or_why_it_does_not() -> None:
    listener = listen(ProcListener)
    if listener is None:
        return
    started = subprocess.Popen(["/bin/true"])
    found: list[int] = []

    def is_there() -> bool:
        found.extend(one.pid for one in listener.read())
        return started.pid in found

    wait_for(listener.descriptor, is_there)
    started.wait()
    assert listener.lost == 0
    listener.close()


def test_the_kernel_here_tells_of_audit_or_why_it_does_not() -> None:
    listener = listen(AuditListener)
    if listener is None:
        return
    try:
        # A message of user space, of the one type that is recorded also while audit is off.
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9) as sender:
            text = b"mig test \0"
            sender.send(struct.pack("=IHHII", 16 + len(text), 1107, 5, 1, os.getpid()) + text)
            answer = sender.recv(4096)
    except OSError as error:
        pytest.fail(f"who may listen to audit may write to it: {error.strerror}")
    (refused,) = struct.unpack_from("=i", answer, 16)
    if refused == 0:
        found: list[AuditRecord] = []

        def is_there() -> bool:
            found.extend(listener.read())
            return any(record.type == 1107 and b"mig test" in record.text for record in found)

        wait_for(listener.descriptor, is_there)
    listener.close()
