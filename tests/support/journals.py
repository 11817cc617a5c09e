"""Makes real files of systemd's journal, with systemd's own tool."""

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

REMOTE = "/lib/systemd/systemd-journal-remote"
# 2026-01-02T03:04:05Z
START_US = 1_767_323_045_000_000


def export(entries: Iterable[Mapping[str, bytes]], *, step_us: int = 1_000_000) -> bytes:
    """Return entries in the export format (https://systemd.io/JOURNAL_EXPORT_FORMATS/), one second apart."""
    lines: list[bytes] = []
    for number, entry in enumerate(entries):
        lines.append(b"__REALTIME_TIMESTAMP=%d\n" % (START_US + number * step_us))
        lines.append(b"__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=%s\n" % (number + 1, b"5d4c1d2e" * 4))
        for name, value in entry.items():
            lines.append(name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n")
        lines.append(b"\n")
    return b"".join(lines)


def make_journal(
    path: Path,
    entries: Iterable[Mapping[str, bytes]],
    *,
    is_compact: bool = True,
    is_packed: bool = True,
    step_us: int = 1_000_000,
) -> Path:
    """Write a journal of these entries."""
    source = path.with_suffix(".export")
    source.write_bytes(export(entries, step_us=step_us))
    subprocess.run(
        [REMOTE, "-o", str(path), f"--compress={'yes' if is_packed else 'no'}", str(source)],
        check=True,
        capture_output=True,
        env={**os.environ, "SYSTEMD_JOURNAL_COMPACT": "1" if is_compact else "0"},
    )
    source.unlink()
    return path


def count_by_journalctl(path: Path, *words: str) -> int:
    """Return how many entries journalctl shows."""
    shown = subprocess.run(
        ["journalctl", "--file", str(path), "-q", "-o", "export", *words], check=False, capture_output=True
    )
    return shown.stdout.count(b"__CURSOR=")
