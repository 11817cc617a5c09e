"""What is watched all the time: the tables `[agent.fswatch]`, `[agent.audit]` and `[agent.alerts]`.

A persistent module runs where its table stands in the configuration, and nowhere else. Strict, as all of
`agent.config`, which reads them from here. Standard library only: the resident agent imports this module.
"""

from typing import Any, Dict, NamedTuple, Optional, Tuple

from agent.config_values import read_flag, read_number, read_text, read_texts, refuse, require_table

SEVERITIES = ("low", "medium", "high", "critical")
_MAX_PATHS = 256
_MAX_RULES = 64
_DAY_S = 86400


class AlertsConfig(NamedTuple):
    """The table `[agent.alerts]`: how many alerts are made in a minute, and how many are kept unsent."""

    per_minute: int = 60
    max_kept: int = 10_000


class FswatchConfig(NamedTuple):
    """The table `[agent.fswatch]`.

    Of `paths` the directory itself and what stands in it is watched, of `recursive` all that is below;
    `excludes` are globs as the module `file` knows them. A change is looked at when nothing more has come for
    `settle_s`; every `rescan_s` all is compared again. Of files above `max_hash_bytes` no digest is made.
    """

    paths: Tuple[str, ...] = (
        "/boot",
        "/var/spool/cron",
        "/bin",
        "/sbin",
        "/usr/bin",
        "/usr/sbin",
    )
    # With /etc/cron.d, /etc/init.d and /etc/systemd, which the ancestor named one by one.
    recursive: Tuple[str, ...] = ("/etc",)
    excludes: Tuple[str, ...] = ()
    settle_s: int = 2
    rescan_s: int = 3600
    max_entries: int = 200_000
    max_hash_bytes: int = 256 << 20
    cpu_percent: int = 25


class AuditRule(NamedTuple):
    """One `[[agent.audit.rules]]`: what is told. All that is given must hold; an empty text holds always.

    `executable` is a regular expression (RE2) on the whole path of the program, `user` a name or a number,
    `key` that of a rule of the kernel's audit (auditctl -k), `types` are record types (USER_LOGIN, ...).
    """

    name: str
    executable: str = ""
    user: str = ""
    key: str = ""
    types: Tuple[str, ...] = ()
    severity: str = "medium"


class AuditConfig(NamedTuple):
    """The table `[agent.audit]`: which of the kernel's sources are listened to, and what of them is told."""

    rules: Tuple[AuditRule, ...] = ()
    process_starts: bool = True
    kernel_audit: bool = True


_PLAIN = FswatchConfig()


def read_alerts(agent: Dict[str, Any]) -> AlertsConfig:
    """Read `[agent.alerts]`, or what it is without one."""
    table = require_table(agent.get("alerts", {}), "[agent.alerts]", AlertsConfig._fields)
    return AlertsConfig(
        per_minute=read_number(table, "per_minute", 60, 1, 6000),
        max_kept=read_number(table, "max_kept", 10_000, 10, 100_000),
    )


def read_fswatch(agent: Dict[str, Any]) -> Optional[FswatchConfig]:
    """Read `[agent.fswatch]`; None where it is not there."""
    if "fswatch" not in agent:
        return None
    table = require_table(agent["fswatch"], "[agent.fswatch]", FswatchConfig._fields)
    # Who names places of their own wants these alone.
    named = bool({"paths", "recursive"} & set(table))
    config = FswatchConfig(
        paths=read_texts(table, "paths", () if named else _PLAIN.paths, _MAX_PATHS, prefix="/"),
        recursive=read_texts(table, "recursive", () if named else _PLAIN.recursive, _MAX_PATHS, prefix="/"),
        excludes=read_texts(table, "excludes", (), _MAX_PATHS),
        settle_s=read_number(table, "settle_s", _PLAIN.settle_s, 1, 300),
        rescan_s=read_number(table, "rescan_s", _PLAIN.rescan_s, 60, 7 * _DAY_S),
        max_entries=read_number(table, "max_entries", _PLAIN.max_entries, 1, 5_000_000),
        max_hash_bytes=read_number(table, "max_hash_bytes", _PLAIN.max_hash_bytes, 0, 1 << 40),
        cpu_percent=read_number(table, "cpu_percent", _PLAIN.cpu_percent, 1, 100),
    )
    if not config.paths and not config.recursive:
        refuse("fswatch", "names nothing to watch")
    return config


def read_audit(agent: Dict[str, Any]) -> Optional[AuditConfig]:
    """Read `[agent.audit]`; None where it is not there."""
    if "audit" not in agent:
        return None
    table = require_table(agent["audit"], "[agent.audit]", AuditConfig._fields)
    rules = table.get("rules")
    if not isinstance(rules, list) or not 0 < len(rules) <= _MAX_RULES:
        refuse("audit.rules", f"must be 1 to {_MAX_RULES} tables: without a rule nothing is told")
    config = AuditConfig(
        rules=tuple(_read_rule(rule) for rule in rules),
        process_starts=read_flag(table, "process_starts", default=True),
        kernel_audit=read_flag(table, "kernel_audit", default=True),
    )
    if not config.process_starts and not config.kernel_audit:
        refuse("audit", "listens to nothing")
    if len({rule.name for rule in config.rules}) != len(config.rules):
        refuse("audit.rules", "names a rule twice")
    return config


def _read_rule(value: Any) -> AuditRule:
    table = require_table(value, "[[agent.audit.rules]]", AuditRule._fields)
    texts = {name: read_text(table, name) for name in ("name", "executable", "user", "key") if name in table}
    if "name" not in texts:
        refuse("audit.rules.name", "is missing")
    severity = table.get("severity", "medium")
    if severity not in SEVERITIES:
        refuse("audit.rules.severity", f"must be one of {', '.join(SEVERITIES)}")
    types = read_texts(table, "types", (), _MAX_PATHS)
    if not types and set(texts) == {"name"}:
        refuse("audit.rules", f"{texts['name'][:64]!r} has no condition: it would tell everything")
    return AuditRule(**texts, types=types, severity=severity)
