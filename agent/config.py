"""The agent's configuration and what the builder baked into the file beside it.

Rules:
1. `decode_config` is strict: an unknown member, a wrong type or a senseless value refuses, naming the member.
2. Everything comes from the file that is being run: no environment variable and no file of the endpoint adds
   to it. In a source tree, where nothing is baked, the project's `config.toml` and `keys/*.asc` stand in.
3. The entries of the ACL are only carried here; `protocol.acl` decodes and judges them, in the child.

Standard library only: the resident agent imports this module.
"""

import json
import os
import pkgutil
import re
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit

from agent.config_values import read_flag as _read_flag
from agent.config_values import read_number as _read_number
from agent.config_values import read_text as _read_text
from agent.config_values import refuse as _refuse
from agent.config_values import require_table as _require_table
from agent.watch_config import (
    AlertsConfig,
    AuditConfig,
    FswatchConfig,
    read_alerts,
    read_audit,
    read_fswatch,
)
from protocol.errors import InvalidInput
from protocol.names import TOKEN_SHAPE, is_fingerprint
from protocol.sealing import MAX_RECIPIENTS

DAY_S = 86400
MAX_SCHEDULE_S = 90 * DAY_S
_KNOWN_NATIVE = ("memfd", "directory")
_MAX_RELAYS = 8
_UTC_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z\Z")
_MAX_TAG = 1024  # what `protocol.heartbeat` lets a server accept


class AgentLimits(NamedTuple):
    """What one command may use: wall and processor time in seconds, memory in bytes, and counts.

    Processor time and memory are each process's; `concurrent_operations` of one action run at once.
    """

    wall_s: int = 300
    memory_bytes: int = 1 << 30
    cpu_s: int = 600
    open_files: int = 1024
    max_records: int = 100_000
    max_operations: int = 64
    concurrent_operations: int = 2


class ScanConfig(NamedTuple):
    """The table `[agent.scan]`: `digest_cache` keeps digests of files between scans (`agent.scan.cache`).

    The others are what a scan may take at most, 0 for without a bound (`agent.module.Budget`): percent of one
    processor, bytes read per second, processes beside the first.
    """

    digest_cache: bool = False
    cpu_percent: int = 0
    read_bytes_per_s: int = 0
    workers: int = 0

    def budget(self) -> Dict[str, int]:
        """Return the bounds, under the names of `agent.module.Budget`."""
        return {
            "cpu_percent": self.cpu_percent,
            "read_bytes_per_s": self.read_bytes_per_s,
            "workers": self.workers,
        }


class TrustConfig(NamedTuple):
    """The table `[agent.trust]`: who may replace keys and ACL later, and how long those baked in are good.

    `roots` are fingerprints of the keys of which `threshold` must sign a trust bundle; without any, no bundle
    is ever accepted. `expires` is RFC 3339 in UTC, empty for never. `manage` may cancel what others signed.
    """

    roots: Tuple[str, ...] = ()
    threshold: int = 1
    expires: str = ""
    manage: Tuple[str, ...] = ()


class AgentConfig(NamedTuple):
    """The table `[agent]`. `broker` is the server's name, bound into logins.

    `relay` are the URLs of the broker's nodes; they hold no credentials.

    `seal_to` are investigators to whom every answer is sealed, beside those whom an action names;
    `require_sealed` refuses an action that names nobody.
    `relay_ca` is PEM text: the only authorities that may vouch for the broker; empty for those of the system.
    `enrolment_token` is for a new agent to show; it is as public as the agent's file.
    `fswatch` and `audit` are persistent modules, off where they are None; `alerts` bounds what they tell.
    """

    relay: Tuple[str, ...]
    broker: str
    acl: Dict[str, Any]
    tags: Dict[str, str]
    limits: AgentLimits = AgentLimits()
    heartbeat_s: int = 60
    warm_child: bool = True
    max_validity_s: int = 7 * DAY_S
    max_schedule_s: int = MAX_SCHEDULE_S
    native: Tuple[str, ...] = _KNOWN_NATIVE
    seal_to: Tuple[str, ...] = ()
    require_sealed: bool = False
    trust: TrustConfig = TrustConfig()
    scan: ScanConfig = ScanConfig()
    relay_ca: str = ""
    enrolment_token: str = ""
    alerts: AlertsConfig = AlertsConfig()
    fswatch: Optional[FswatchConfig] = None
    audit: Optional[AuditConfig] = None

    def watched(self) -> Dict[str, Dict[str, Any]]:
        """Return what each persistent module that is on is told, as plain members."""
        watched: Dict[str, Dict[str, Any]] = {}
        if self.fswatch is not None:
            watched["fswatch"] = self.fswatch._asdict()
        if self.audit is not None:
            rules = [rule._asdict() for rule in self.audit.rules]
            watched["audit"] = {**self.audit._asdict(), "rules": rules}
        return watched


class Baked(NamedTuple):
    """What the agent's file carries: configuration, certificates (armoured or binary), version.

    `keys` are the investigators', `roots` those of who may sign trust bundles.
    """

    config: AgentConfig
    keys: Tuple[bytes, ...]
    version: str
    build: str
    acl: Dict[str, Any]
    roots: Tuple[bytes, ...] = ()


def _read_bound(table: Dict[str, Any], name: str, lowest: int) -> int:
    """Return a number that is 0 where there is no bound."""
    value = _read_number(table, name, 0, 0, 1 << 50)
    if 0 < value < lowest:
        _refuse(name, f"must be 0 for no bound, or at least {lowest}")
    return value


def _read_relay(table: Dict[str, Any]) -> Tuple[str, ...]:
    """Return the URLs of `relay`, which is one or a list of them: the nodes of a cluster."""
    value = table.get("relay")
    listed = value if isinstance(value, list) else [_read_text(table, "relay")]
    if not 0 < len(listed) <= _MAX_RELAYS or not all(isinstance(one, str) for one in listed):
        _refuse("relay", f"must be a URL, or a list of 1 to {_MAX_RELAYS}")
    # Of one scheme and virtual host: a login is signed for the one, and TLS that may be left out is none.
    if len({_relay_kind(one) for one in listed}) > 1 or len(set(listed)) < len(listed):
        _refuse("relay", "must be nodes of one cluster, each once: of one scheme and one virtual host")
    return tuple(listed)


def _relay_kind(relay: str) -> Tuple[str, str]:
    try:
        parts = urlsplit(relay)
        port = parts.port
    except ValueError as error:
        _refuse("relay", str(error))
    if parts.scheme not in {"amqp", "amqps"} or not parts.hostname or port == 0:
        _refuse("relay", "must be amqp://HOST:PORT/VHOST or amqps://HOST:PORT/VHOST")
    if parts.username is not None or parts.password is not None:
        _refuse("relay", "holds credentials; agents log in with their own identity")
    return parts.scheme, parts.path


def _read_relay_ca(table: Dict[str, Any], relay: Tuple[str, ...]) -> str:
    text = table.get("relay_ca", "")
    if not isinstance(text, str):
        _refuse("relay_ca", "must be a text")
    if text and "-----BEGIN CERTIFICATE-----" not in text:
        _refuse("relay_ca", "holds no certificate in PEM; the builder puts a file's content for its name")
    if text and not relay[0].startswith("amqps:"):
        _refuse("relay_ca", "is of no use without amqps:// in relay")
    return text


def _read_enrolment_token(table: Dict[str, Any]) -> str:
    token = table.get("enrolment_token", "")
    if not isinstance(token, str) or (token and not TOKEN_SHAPE.match(token)):
        _refuse("enrolment_token", "is not what `mig-server agent token new` prints")
    return token


def _read_tags(table: Dict[str, Any]) -> Dict[str, str]:
    tags = table.get("tags", {})
    if not isinstance(tags, dict):
        _refuse("tags", "must be a table")
    for name, value in tags.items():
        if not isinstance(value, str) or len(value) > _MAX_TAG:
            _refuse(f"tags.{name}", f"must be a text of at most {_MAX_TAG} characters")
    return tags


def _read_native(table: Dict[str, Any]) -> Tuple[str, ...]:
    value = table.get("native", list(_KNOWN_NATIVE))
    if not isinstance(value, list) or not value or any(way not in _KNOWN_NATIVE for way in value):
        _refuse("native", f"must be a list of {', '.join(_KNOWN_NATIVE)}")
    return tuple(value)


def _read_seal_to(table: Dict[str, Any]) -> Tuple[str, ...]:
    value = table.get("seal_to", [])
    if not isinstance(value, list) or not all(isinstance(one, str) and is_fingerprint(one) for one in value):
        _refuse("seal_to", "must be a list of fingerprints, 40 upper-case hex digits each")
    if len(set(value)) != len(value) or len(value) > MAX_RECIPIENTS:
        _refuse("seal_to", f"must name at most {MAX_RECIPIENTS} investigators, each once")
    return tuple(value)


def _read_limits(table: Dict[str, Any]) -> AgentLimits:
    limits = _require_table(table.get("limits", {}), "[agent.limits]", AgentLimits._fields)
    plain = AgentLimits()
    return AgentLimits(
        wall_s=_read_number(limits, "wall_s", plain.wall_s, 1, DAY_S),
        # Below 128 MiB the interpreter with its libraries does not start reliably.
        memory_bytes=_read_number(limits, "memory_bytes", plain.memory_bytes, 1 << 27, 1 << 46),
        cpu_s=_read_number(limits, "cpu_s", plain.cpu_s, 1, DAY_S),
        open_files=_read_number(limits, "open_files", plain.open_files, 64, 1 << 20),
        max_records=_read_number(limits, "max_records", plain.max_records, 1, 10_000_000),
        max_operations=_read_number(limits, "max_operations", plain.max_operations, 1, 64),
        concurrent_operations=_read_number(
            limits, "concurrent_operations", plain.concurrent_operations, 1, 64
        ),
    )


def _read_scan(table: Dict[str, Any]) -> ScanConfig:
    scan = _require_table(table.get("scan", {}), "[agent.scan]", ScanConfig._fields)
    return ScanConfig(
        digest_cache=_read_flag(scan, "digest_cache", default=False),
        cpu_percent=_read_number(scan, "cpu_percent", 0, 0, 100_000),
        # Less would not get through a system within the longest time that a command may take.
        read_bytes_per_s=_read_bound(scan, "read_bytes_per_s", 1 << 16),
        workers=_read_number(scan, "workers", 0, 0, 64),
    )


def _read_fingerprints(table: Dict[str, Any], name: str) -> Tuple[str, ...]:
    value = table.get(name, [])
    if not isinstance(value, list) or any(
        not isinstance(one, str) or not is_fingerprint(one) for one in value
    ):
        _refuse(f"trust.{name}", "must be a list of fingerprints, 40 upper-case hex digits each")
    if len(set(value)) != len(value):
        _refuse(f"trust.{name}", "names a key twice")
    return tuple(value)


def _read_expiry(table: Dict[str, Any]) -> str:
    value = table.get("expires", "")
    if value == "":
        return ""
    # Written with Z, which datetime.fromisoformat reads from Python 3.11 only.
    if not isinstance(value, str) or not _UTC_TIME.match(value):
        _refuse("trust.expires", 'must be a time in UTC, such as "2027-01-31T00:00:00Z"')
    try:
        datetime.fromisoformat(value.replace("Z", "+00:00")) - timedelta(days=1)
    except (ValueError, OverflowError) as error:
        _refuse("trust.expires", str(error))
    return value


def _read_trust(table: Dict[str, Any]) -> TrustConfig:
    trust = _require_table(table.get("trust", {}), "[agent.trust]", TrustConfig._fields)
    roots = _read_fingerprints(trust, "roots")
    threshold = _read_number(trust, "threshold", 1, 1, 8)
    if roots and threshold > len(roots):
        _refuse("trust.threshold", f"is {threshold}, and there are {len(roots)} roots")
    return TrustConfig(roots, threshold, _read_expiry(trust), _read_fingerprints(trust, "manage"))


def decode_config(value: Any) -> AgentConfig:
    """Decode the table `[agent]` of `config.toml`.

    Raises:
        InvalidInput: `bad-config`, with the member that is wrong.

    """
    table = _require_table(value, "[agent]", AgentConfig._fields)
    acl = table.get("acl")
    if not isinstance(acl, dict) or not acl:
        _refuse("acl", "is missing or empty: nobody could run anything")
    relay = _read_relay(table)
    return AgentConfig(
        relay=relay,
        broker=_read_text(table, "broker"),
        acl=acl,
        tags=_read_tags(table),
        limits=_read_limits(table),
        heartbeat_s=_read_number(table, "heartbeat_s", 60, 1, 3600),
        warm_child=_read_flag(table, "warm_child", default=True),
        max_validity_s=_read_number(table, "max_validity_s", 7 * DAY_S, 60, 90 * DAY_S),
        max_schedule_s=_read_number(table, "max_schedule_s", MAX_SCHEDULE_S, 60, MAX_SCHEDULE_S),
        native=_read_native(table),
        seal_to=_read_seal_to(table),
        require_sealed=_read_flag(table, "require_sealed", default=False),
        trust=_read_trust(table),
        scan=_read_scan(table),
        relay_ca=_read_relay_ca(table, relay),
        enrolment_token=_read_enrolment_token(table),
        alerts=read_alerts(table),
        fswatch=read_fswatch(table),
        audit=read_audit(table),
    )


def with_relay_ca(table: Any, directory: Path) -> Any:
    """Return the table `[agent]` with the content of the file that `relay_ca` names, from `directory`.

    Raises:
        InvalidInput: `bad-config`.

    """
    named = table.get("relay_ca", "") if isinstance(table, dict) else ""
    if not isinstance(named, str) or not named or "-----BEGIN" in named:
        return table
    try:
        return {**table, "relay_ca": (directory / named).read_text(encoding="ascii")}
    except (OSError, ValueError) as error:
        _refuse("relay_ca", f"{named}: {getattr(error, 'strerror', None) or error}")


def _read_resource(name: str) -> bytes:
    data = pkgutil.get_data("agent", f"baked/{name}")
    if data is None:
        raise InvalidInput("bad-config", f"this agent carries no {name}")
    return data


def _load_package() -> Baked:
    build = json.loads(_read_resource("build.json"))
    config = decode_config(json.loads(_read_resource("config.json")))
    keys = tuple(_read_resource(f"keys/{Path(name).name}") for name in build["keys"])
    roots = tuple(_read_resource(f"roots/{fingerprint}.asc") for fingerprint in config.trust.roots)
    return Baked(config, keys, str(build["version"]), str(build["build"]), config.acl, roots)


def _read_toml(path: Path) -> Dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib  # noqa: PLC0415  (only in a source tree)

        return tomllib.loads(path.read_text(encoding="utf-8"))
    raise InvalidInput("bad-config", "nothing is baked in; a source tree needs Python 3.11 or newer")


def _load_source_tree(root: Path) -> Baked:

    path = root / "config.toml"
    try:
        document = _read_toml(path)
        project = _read_toml(root / "pyproject.toml")
        keys: List[bytes] = [key.read_bytes() for key in sorted((root / "keys").glob("*.asc"))]
        roots = [key.read_bytes() for key in sorted((root / "keys" / "roots").glob("*.asc"))]
    except (OSError, ValueError) as error:
        raise InvalidInput("bad-config", f"{path}: {error}") from None
    config = decode_config(with_relay_ca(document.get("agent"), root))
    version = str(project["project"]["version"])
    return Baked(config, tuple(keys), version, "source", config.acl, tuple(roots))


def load_baked() -> Baked:
    """Load what the builder baked into this file; in a source tree, the project's own configuration and keys.

    Raises:
        InvalidInput: `bad-config`.

    """
    try:
        return _load_package()
    except FileNotFoundError:
        # Nothing is baked, so this is a source tree: an archive always holds the three resources.
        return _load_source_tree(Path(__file__).resolve().parent.parent)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput("bad-config", f"what is baked into this file is damaged: {error}") from None


def default_state_directory() -> Path:
    """Return where the agent keeps its state: /var/lib/mig-agent for root, else under the user's home.

    The home comes from the password database, not from the environment.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/mig-agent")
    import pwd  # noqa: PLC0415  (not there on every system)

    return Path(pwd.getpwuid(os.geteuid()).pw_dir) / ".local" / "state" / "mig-agent"
