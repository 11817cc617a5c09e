"""Tests of the kernel's audit records: recorded ones, hostile ones, and what is never read of them."""

from hypothesis import given
from hypothesis import strategies as st

from agent.platform.audit_records import Assembler, AuditEvent, parse_fields
from agent.platform.netlink import AuditRecord

SYSCALL = (
    b"audit(1732000000.123:77): arch=c000003e syscall=59 success=yes ppid=10 pid=11"
    b' auid=1000 uid=0 gid=0 euid=0 tty=pts0 ses=1 comm="sh" exe="/usr/bin/dash" key="rootcmd"'
)
EXECVE = b'audit(1732000000.123:77): argc=3 a0="mysql" a1="-psecret" a2="uid=7"'
LOGIN = (
    b'audit(1732000001.500:78): pid=20 uid=0 auid=1000 ses=2 msg=\'op=login acct="ada"'
    b' exe="/usr/sbin/sshd" hostname=? addr=10.0.0.1 terminal=ssh res=success\''
)


def assemble(*records: tuple[int, bytes]) -> list[AuditEvent]:
    assembler = Assembler()
    events = [event for kind, text in records for event in assembler.take(AuditRecord(kind, text))]
    return events + list(assembler.flush())


def test_records_of_one_serial_are_one_event_and_arguments_are_not_read() -> None:
    [event] = assemble((1300, SYSCALL), (1309, EXECVE), (1320, b"audit(1732000000.123:77): "))
    assert (event.serial, event.time_ms, event.types) == (77, 1732000000123, ("SYSCALL", "EXECVE"))
    assert event.fields == {
        "syscall": "59",
        "success": "yes",
        "ppid": "10",
        "pid": "11",
        "auid": "1000",
        "uid": "0",
        "euid": "0",
        "comm": "sh",
        "exe": "/usr/bin/dash",
        "key": "rootcmd",
    }


def test_an_event_of_user_space_is_whole_by_its_one_record() -> None:
    assembler = Assembler()
    [event] = assembler.take(AuditRecord(1112, LOGIN))
    assert event.types == ("USER_LOGIN",)
    assert (event.fields["acct"], event.fields["exe"], event.fields["res"]) == (
        "ada",
        "/usr/sbin/sshd",
        "success",
    )
    assert not assembler.is_open


def test_names_that_somebody_chose_are_read_from_their_digits_and_forge_no_field() -> None:
    name = b'x" uid=0 exe="/bin/good'
    fields = parse_fields(b"uid=1000 comm=" + name.hex().upper().encode() + b' exe="/tmp/bad"')
    assert fields == {"uid": "1000", "comm": name.decode(), "exe": "/tmp/bad"}


def test_the_first_of_a_field_counts_so_that_none_that_follows_can_replace_it() -> None:
    assert parse_fields(b"uid=1000 pid=5 msg='op=x uid=0 pid=1'") == {"uid": "1000", "pid": "5"}


def test_a_missing_key_is_none_and_other_types_have_their_number() -> None:
    assert parse_fields(b"key=(null) acct=?") == {"key": "", "acct": ""}
    [event] = assemble((1999, b"audit(1.000:1): pid=1"))
    assert event.types == ("1999",)


def test_events_that_never_end_are_bounded() -> None:
    events = assemble(*((1300, b"audit(1.000:%d): pid=1" % serial) for serial in range(1000)))
    assert len(events) == 1000
    assembler = Assembler()
    for serial in range(1000):
        list(assembler.take(AuditRecord(1300, b"audit(1.000:%d): pid=1" % serial)))
    assert len(list(assembler.flush())) <= 256


@given(st.binary(max_size=300), st.integers(1000, 2000))
def test_any_bytes_are_an_event_or_none(text: bytes, kind: int) -> None:
    for event in assemble((kind, text), (kind, b"audit(1.000:1): " + text)):
        assert all(len(value) <= 4 * 4096 for value in event.fields.values())
