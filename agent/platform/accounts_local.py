"""The accounts and groups that a system keeps in files of its own, and the state of their passwords.

What is said of a password is its state, age and the kind of its hash; the hash stays where it is.

Sources: passwd(5), group(5), shadow(5), crypt(5).
"""

from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

from agent.platform.rooted import Rooted

PASSWD, GROUP, SHADOW = b"/etc/passwd", b"/etc/group", b"/etc/shadow"
_MOST_BYTES = 32 << 20
_PASSWD_FIELDS, _GROUP_FIELDS, _SHADOW_FIELDS = 7, 4, 8
_DAY_S = 86_400
_KINDS = (
    (b"$1$", "md5crypt"),
    (b"$2", "bcrypt"),
    (b"$3$", "nthash"),
    (b"$5$", "sha256crypt"),
    (b"$6$", "sha512crypt"),
    (b"$7$", "scrypt"),
    (b"$y$", "yescrypt"),
    (b"$gy$", "gost-yescrypt"),
    (b"$sm3$", "sm3crypt"),
    (b"$md5", "sunmd5"),
    (b"$sha1", "sha1crypt"),
    (b"_", "bsdicrypt"),
)
_DES_CHARACTERS = 13
# With these nobody gets a shell; of a path its last part counts.
_NO_SHELLS = (b"nologin", b"false", b"true", b"sync", b"halt", b"shutdown")


class Password(NamedTuple):
    """What is known of a password: `state` is none, set, locked, unset or unknown; times in seconds."""

    state: str
    kind: Optional[str] = None
    changed_s: Optional[int] = None
    expires_s: Optional[int] = None
    account_expires_s: Optional[int] = None
    must_change: bool = False


class Account(NamedTuple):
    """An entry of passwd(5), as it is written."""

    name: bytes
    uid: int
    gid: int
    home: bytes
    shell: bytes
    password: Password

    def has_shell(self) -> bool:
        """Tell whether the account's shell lets anybody in; where none is named it is /bin/sh."""
        return self.shell.rpartition(b"/")[2] not in _NO_SHELLS


class Group(NamedTuple):
    """An entry of group(5)."""

    name: bytes
    gid: int
    members: Tuple[bytes, ...]


class LocalAccounts:
    """The accounts and groups of one system, read when this is made."""

    def __init__(self, files: Rooted) -> None:
        self._files = files
        self.groups = list(self._read_groups())
        shadow = self._read_shadow()
        self.accounts = list(self._read_accounts(shadow))
        self._by_gid: Dict[int, bytes] = {}
        for group in self.groups:
            self._by_gid.setdefault(group.gid, group.name)

    def group_name(self, gid: int) -> Optional[bytes]:
        """Return what a group is called."""
        return self._by_gid.get(gid)

    def groups_of(self, account: Account) -> List[Group]:
        """Return the groups that an account is in: its own first, then those that list it."""
        own = [group for group in self.groups if group.gid == account.gid]
        return own + [group for group in self.groups if account.name in group.members and group not in own]

    def _rows(self, path: bytes, fields: int) -> Iterator[List[bytes]]:
        for number, line in enumerate((self._files.read(path, _MOST_BYTES) or b"").split(b"\n"), 1):
            row = line.split(b":")
            if not line.strip() or line.startswith((b"#", b"+", b"-")):
                # Comments, and what asks other sources of names (nsswitch.conf(5), compat).
                continue
            if len(row) < fields:
                self._files.lose(path, f"line {number} is not understood")
                continue
            yield row

    def _read_accounts(self, shadow: Optional[Dict[bytes, List[bytes]]]) -> Iterator[Account]:
        for name, secret, uid, gid, _gecos, home, shell, *_ in self._rows(PASSWD, _PASSWD_FIELDS):
            if not (uid.isdigit() and gid.isdigit()) or max(len(uid), len(gid)) > 10:  # noqa: PLR2004  (32 bits)
                self._files.lose(PASSWD, "an account has no number")
                continue
            yield Account(name, int(uid), int(gid), home, shell, _password(secret, name, shadow))

    def _read_groups(self) -> Iterator[Group]:
        for name, _secret, gid, members, *_ in self._rows(GROUP, _GROUP_FIELDS):
            if gid.isdigit() and len(gid) <= 10:  # noqa: PLR2004  (32 bits)
                listed = tuple(member for member in members.strip().split(b",") if member)
                yield Group(name, int(gid), listed)

    def _read_shadow(self) -> Optional[Dict[bytes, List[bytes]]]:
        """Return the rows of shadow(5) by name; None where they cannot be read."""
        before = self._files.files_read
        rows: Dict[bytes, List[bytes]] = {}
        for row in self._rows(SHADOW, _SHADOW_FIELDS):
            # Of a name that stands twice the first counts, as for the C library.
            rows.setdefault(row[0], row)
        return rows if self._files.files_read > before else None


def _password(secret: bytes, name: bytes, shadow: Optional[Dict[bytes, List[bytes]]]) -> Password:
    if secret != b"x":
        return Password(*_state(secret))
    if shadow is None:
        return Password("unknown")
    row = shadow.get(name)
    if row is None:
        # No password is accepted for it.
        return Password("unset")
    changed, maximum, expires = _days(row[2]), _days(row[4]), _days(row[7])
    state, kind = _state(row[1])
    return Password(
        state=state,
        kind=kind,
        changed_s=changed * _DAY_S if changed else None,
        expires_s=(changed + maximum) * _DAY_S if changed and maximum is not None else None,
        account_expires_s=expires * _DAY_S if expires is not None else None,
        must_change=changed == 0,
    )


def _days(field: bytes) -> Optional[int]:
    # 99999 days are how "never" is written.
    return int(field) if field.isdigit() and len(field) <= 7 and int(field) < 99_999 else None  # noqa: PLR2004


def _state(secret: bytes) -> Tuple[str, Optional[str]]:
    if not secret:
        return "none", None
    kind = _kind(secret.lstrip(b"!*"))
    if secret.startswith((b"!", b"*")):
        # Locked, with the hash kept behind the mark; or there never was one.
        return ("locked", kind) if kind else ("unset", None)
    return ("set", kind) if kind else ("unset", None)


def _kind(secret: bytes) -> Optional[str]:
    for prefix, name in _KINDS:
        if secret.startswith(prefix):
            return name
    if secret.startswith(b"$"):
        return "unknown"
    is_des = len(secret) == _DES_CHARACTERS and secret.replace(b".", b"").replace(b"/", b"").isalnum()
    return "descrypt" if is_des else None
