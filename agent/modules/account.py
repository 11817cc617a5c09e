"""List local users and groups: shells, sudo, password state and age, keys, logins; never a password's hash.

Every account that satisfies all filters is a record; without a filter, all users are. `found` means that
there is one. `root` names another system's root directory, such as a mounted image.

Accounts are those of /etc/passwd, /etc/group and /etc/shadow; what a directory service knows is not asked
for. A password's state is `none` (nobody is asked for one), `set`, `locked` (there is one, and a mark before
it keeps it from being accepted), `unset` (there never was one that could be accepted) or `unknown`
(/etc/shadow could not be read). `can_log_in`: the shell lets people in, the account has not expired, and a
password is set or none is needed, or an SSH key lets in.

sudo is read from /etc/sudoers with what it includes, aliases and `!` taken into account. `sudo_all` is a
right to run any command as root; exceptions behind it are not believed in. Rules of directory services, of
polkit and of doas are not seen. Keys are counted in the files that AuthorizedKeysFile of sshd_config names;
keys that a command gives, and certificates, are not.

Last logins are the latest of wtmp, lastlog, lastlog2 and wtmpdb; failed ones are counted in btmp; who is
logged in now is told by utmp and systemd-logind. These are records that the system keeps and root can change.
On macOS and Windows only those logged in now are told, by the system's own interface.

Statistics: `accounts_seen`, `groups_seen`, `failed_logins` (those of names without an account included),
`files_read`, `skipped` by reason, `errors`.
"""

import sys
import time
from typing import Annotated, Any, Dict, Iterator, List, Literal, NamedTuple, Optional, Tuple

from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord
from agent.platform.accounts_local import Account, Group, LocalAccounts
from agent.platform.accounts_logins import Login, Logins
from agent.platform.accounts_portable import is_alive, logged_in
from agent.platform.accounts_sudoers import Person, Right, Sudoers
from agent.platform.authorized_keys import AuthorizedKeys, hostname_of
from agent.platform.rooted import Rooted
from agent.scan.fence import Fence
from agent.scan.patterns import require_engine, require_pattern, split_inverse
from agent.scan.plain_flags import plain_flags, plural_parameters
from agent.scan.process_checks import TextFilter
from agent.scan.search import Regex, RootPath
from agent.scan.texts import path_text, time_text

PATHS = ("root",)
EXAMPLES = (
    "mig account --uid0 --name '!^root$'   who is root under another name",
    "mig account --no-password --can-log-in   who gets in without a password",
    "mig account --sudo --nopasswd   who becomes root without being asked",
    "mig account --group '^docker$'   who is in a group that is as good as root",
    "mig account --kind group --name '^(sudo|wheel|admin)$'   who is in these groups",
    "mig account --logged-in   who is there now, and from where",
)
_S = 1_000_000_000
_DAY_S = 86_400
_MOST_LISTED = 64
_SINGULAR = {"names": "name", "uids": "uid", "groups": "group", "shells": "shell", "kinds": "kind"}
Uid = Annotated[int, Meta(ge=0, le=2**32 - 1)]
State = Literal["none", "set", "locked", "unset", "unknown"]
Kind = Literal["user", "group"]


class Params(ModuleParams, frozen=True, kw_only=True):
    """Which accounts to tell of; all filters must hold, several values of one are alternatives."""

    names: Annotated[
        Tuple[Regex, ...],
        Meta(description="regular expressions (RE2) on the name; a leading ! leaves out", max_length=1000),
    ] = ()
    uids: Annotated[
        Tuple[Uid, ...],
        Meta(description="numbers of users, or of groups where these are asked for", max_length=1000),
    ] = ()
    groups: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on the names of the groups that a user is in; a leading !"
            " leaves out who is in such a one",
            max_length=1000,
        ),
    ] = ()
    shells: Annotated[
        Tuple[Regex, ...],
        Meta(description="regular expressions (RE2) on the shell; a leading ! leaves out", max_length=1000),
    ] = ()
    kinds: Annotated[Tuple[Kind, ...], Meta(description="user, group; without it users", max_length=2)] = ()
    uid0: Annotated[bool, Meta(description="users whose number is 0")] = False
    no_password: Annotated[bool, Meta(description="users who are not asked for a password")] = False
    can_log_in: Annotated[bool, Meta(description="users who can log in")] = False
    sudo: Annotated[bool, Meta(description="users who may run any command as root by sudo")] = False
    nopasswd: Annotated[
        bool, Meta(description="users who may run something as root by sudo without their password")
    ] = False
    keys: Annotated[bool, Meta(description="users with SSH keys that let in")] = False
    logged_in: Annotated[bool, Meta(description="users who are logged in now")] = False
    root: Annotated[
        RootPath, Meta(description="root directory of the system to look at, such as a mounted image")
    ] = "/"

    def __post_init__(self) -> None:
        """Refuse expressions that are none; msgspec turns the ValueError into its own error."""
        for field in ("names", "groups", "shells"):
            for expression in getattr(self, field):
                require_pattern(split_inverse(expression)[0], field)


class SessionRecord(ModuleRecord, frozen=True, kw_only=True):
    """A login."""

    time: Annotated[str, Meta(description="when, RFC 3339 in UTC")]
    terminal: Annotated[Optional[str], Meta(description="on which terminal, where known")] = None
    remote_address: Annotated[
        Optional[str], Meta(description="from which host, by name or address, where it was one")
    ] = None


class Record(ModuleRecord, frozen=True, kw_only=True):
    """A user or a group."""

    kind: Annotated[Kind, Meta(description="user or group")]
    name: Annotated[str, Meta(description="its name")]
    uid: Annotated[Optional[int], Meta(description="number of the user")] = None
    gid: Annotated[Optional[int], Meta(description="number of the group, or of the user's own group")] = None
    groups: Annotated[
        Optional[Tuple[str, ...]],
        Meta(description="names of the groups that the user is in, the own one first"),
    ] = None
    members: Annotated[
        Optional[Tuple[str, ...]], Meta(description="users that are in the group, of a group")
    ] = None
    home: Annotated[Optional[str], Meta(description="home directory")] = None
    shell: Annotated[Optional[str], Meta(description="shell; where none is named it is /bin/sh")] = None
    can_log_in: Annotated[Optional[bool], Meta(description="whether the user can log in")] = None
    password: Annotated[
        Optional[State], Meta(description="state of the password: none set locked unset unknown")
    ] = None
    password_kind: Annotated[
        Optional[str], Meta(description="name of the algorithm of its hash, such as yescrypt or sha512crypt")
    ] = None
    password_changed: Annotated[
        Optional[str], Meta(description="day when it was last changed, RFC 3339 in UTC")
    ] = None
    password_age_days: Annotated[Optional[int], Meta(description="age of the password in days")] = None
    password_expires: Annotated[
        Optional[str], Meta(description="day when it expires, where it does, RFC 3339 in UTC")
    ] = None
    must_change: Annotated[bool, Meta(description="it must be changed at the next login")] = False
    account_expires: Annotated[
        Optional[str], Meta(description="day when the account expires, where it does, RFC 3339 in UTC")
    ] = None
    sudo_all: Annotated[bool, Meta(description="may run any command as root by sudo")] = False
    sudo_nopasswd: Annotated[
        bool, Meta(description="may run something as root by sudo without a password")
    ] = False
    sudo_rules: Annotated[
        Optional[Tuple[str, ...]],
        Meta(description="where the rules about the user stand, as path:line; the first 64"),
    ] = None
    authorized_keys: Annotated[Optional[int], Meta(description="number of SSH keys that let in")] = None
    last_login: Annotated[Optional[SessionRecord], Meta(description="the last login on record")] = None
    failed_logins: Annotated[
        Optional[int], Meta(description="failed logins on record, where there is one")
    ] = None
    sessions: Annotated[
        Optional[Tuple[SessionRecord, ...]], Meta(description="logins that are open now; the first 64")
    ] = None


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each user or group.

    Raises:
        InvalidInput: `unsupported` where regular expressions are asked for and there is no engine for them.

    """
    if params.names or params.groups or params.shells:
        require_engine("a search for accounts by regular expressions")
    if not sys.platform.startswith("linux"):
        yield from _portable(params, context)
        return
    files = Rooted(params.root, fence=Fence(context.paths), note=context.note)
    filters = _Filters(params)
    try:
        local = LocalAccounts(files)
        context.statistics.update(accounts_seen=len(local.accounts), groups_seen=len(local.groups))
        kinds = params.kinds or ("user",)
        if "user" in kinds:
            facts = _Facts(local, files, context, is_here=params.root == "/")
            for account in local.accounts:
                context.check()
                record = facts.record(account)
                if filters.hold(record):
                    yield record
        if "group" in kinds and not filters.asks_of_users:
            for group in local.groups:
                context.check()
                record = _group_record(group, local)
                if filters.hold(record):
                    yield record
    finally:
        context.statistics.update(
            files_read=files.files_read, skipped=dict(sorted(files.skipped.items())), errors=files.errors
        )


class _Filters:
    """What accounts must satisfy."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._names = TextFilter(params.names)
        self._groups = TextFilter(params.groups)
        self._shells = TextFilter(params.shells)
        self._wanted: List[Tuple[bool, str]] = [
            (params.can_log_in, "can_log_in"),
            (params.sudo, "sudo_all"),
            (params.nopasswd, "sudo_nopasswd"),
            (params.keys, "authorized_keys"),
            (params.logged_in, "sessions"),
        ]
        self.asks_of_users = (
            any(is_asked for is_asked, _ in self._wanted)
            or params.uid0
            or params.no_password
            or bool(params.groups or params.shells)
        )

    def hold(self, record: Record) -> bool:
        params = self._params
        number = record.gid if record.kind == "group" else record.uid
        if params.uids and number not in params.uids:
            return False
        if params.uid0 and record.uid != 0:
            return False
        if params.no_password and record.password != "none":  # noqa: S105  (a state, no password)
            return False
        if not all(getattr(record, field) for is_asked, field in self._wanted if is_asked):
            return False
        return (
            self._names.holds([_encoded(record.name)])
            and self._groups.holds([_encoded(group) for group in record.groups or ()])
            and self._shells.holds([_encoded(record.shell or "")])
        )


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class _Sources(NamedTuple):
    sudoers: Sudoers
    keys: AuthorizedKeys
    last: Dict[bytes, Login]
    failed: Optional[Dict[bytes, int]]
    now: Dict[bytes, List[Login]]


class _Facts:
    """All that is known of users, gathered once."""

    def __init__(self, local: LocalAccounts, files: Rooted, context: Context, *, is_here: bool) -> None:
        self._local = local
        self._now_s = int(time.time())
        logins = Logins(files, context.check)
        numbers: Dict[int, bytes] = {}
        for account in local.accounts:
            numbers.setdefault(account.uid, account.name)
        last, failed = logins.last(numbers), logins.failed()
        # In an image nobody is logged in, whatever it has kept of its last hours.
        now = logins.now(is_alive) if is_here else {}
        self._sources = _Sources(Sudoers(files, hostname_of(files)), AuthorizedKeys(files), last, failed, now)
        if failed is not None:
            context.statistics["failed_logins"] = sum(failed.values())
        if not logins.sources:
            context.note("the system keeps no record of logins: no wtmp, lastlog, lastlog2, wtmpdb or btmp")

    def record(self, account: Account) -> Record:
        sources, secret = self._sources, account.password
        groups = self._local.groups_of(account)
        keys = sources.keys.count(account)
        right = sources.sudoers.right_of(_person(account, groups))
        login, sessions = sources.last.get(account.name), sources.now.get(account.name, [])
        return Record(
            kind="user",
            name=path_text(account.name),
            uid=account.uid,
            gid=account.gid,
            groups=tuple(path_text(group.name) for group in groups) or None,
            home=path_text(account.home),
            shell=path_text(account.shell),
            can_log_in=self._can_log_in(account, keys),
            password=secret.state,  # type: ignore[arg-type]  # one of State, which a test holds to it
            password_kind=secret.kind,
            password_changed=_day(secret.changed_s),
            password_age_days=_age(secret.changed_s, self._now_s),
            password_expires=_day(secret.expires_s),
            must_change=secret.must_change,
            account_expires=_day(secret.account_expires_s),
            authorized_keys=keys,
            last_login=_session(login) if login is not None else None,
            failed_logins=sources.failed.get(account.name, 0) if sources.failed is not None else None,
            sessions=tuple(map(_session, sessions[:_MOST_LISTED])) or None,
            **_sudo(right),
        )

    def _can_log_in(self, account: Account, keys: Optional[int]) -> bool:
        expires = account.password.account_expires_s
        if not account.has_shell() or (expires is not None and expires <= self._now_s):
            return False
        return account.password.state in ("none", "set", "unknown") or bool(keys)


def _person(account: Account, groups: List[Group]) -> Person:
    return Person(
        path_text(account.name),
        account.uid,
        frozenset(path_text(group.name) for group in groups),
        frozenset((account.gid, *(group.gid for group in groups))),
    )


def _sudo(right: Optional[Right]) -> Dict[str, Any]:
    if right is None:
        return {}
    return {
        "sudo_all": right.has_all,
        "sudo_nopasswd": right.without_password,
        "sudo_rules": right.places[:_MOST_LISTED],
    }


def _day(seconds: Optional[int]) -> Optional[str]:
    return time_text(seconds * _S) if seconds is not None else None


def _age(changed_s: Optional[int], now_s: int) -> Optional[int]:
    return (now_s - changed_s) // _DAY_S if changed_s is not None else None


def _session(login: Login) -> SessionRecord:
    return SessionRecord(
        time=time_text(login.time_s * _S),
        terminal=path_text(login.terminal) or None,
        remote_address=path_text(login.host) or None,
    )


def _group_record(group: Group, local: LocalAccounts) -> Record:
    own = [account.name for account in local.accounts if account.gid == group.gid]
    members = dict.fromkeys([*own, *group.members])
    return Record(
        kind="group",
        name=path_text(group.name),
        gid=group.gid,
        members=tuple(map(path_text, members)),
    )


def _portable(params: Params, context: Context) -> Iterator[Record]:
    """Yield who is logged in, where the system keeps its accounts in other ways."""
    context.note(
        "only who is logged in now is told: accounts, passwords and sudo are not read on this system"
    )
    names = TextFilter(params.names)
    found = logged_in()
    context.statistics.update(accounts_seen=len(found), errors=0, skipped={})
    if params.kinds == ("group",) or params.uids or params.groups or params.shells or params.root != "/":
        return
    for name, sessions in found.items():
        context.check()
        if names.holds([name]):
            yield Record(kind="user", name=path_text(name), sessions=tuple(map(_session, sessions)))


def upgrade(parameters: Any) -> Any:
    """Rewrite looser spellings: a name in the singular, a lone value."""
    return plural_parameters(parameters, _SINGULAR)


FLAGS = plain_flags(Params, _SINGULAR)


def from_flags(values: Dict[str, Any]) -> Any:
    """Make the parameters of the command line's flags."""
    return plural_parameters(values, _SINGULAR)
