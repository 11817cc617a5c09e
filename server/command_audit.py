"""`mig-server audit ...`: archives the audit log, and keeps it from growing for ever."""

from pathlib import Path

import click

from server.archive import cut, write_archive
from server.options import config_option, open_store, parse_duration
from server.parts import utc_now

_output = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="A new file for all of the log; it verifies by itself: mig audit verify --file FILE.",
)


@click.group()
def audit() -> None:
    """Archive the audit log, and cut what is archived. To read and verify it: mig audit."""


@audit.command("export")
@config_option
@_output
def audit_export(config_path: Path, output: Path) -> None:
    """Write the whole log to a file, as it was hashed, one entry per line, and check it there."""
    with open_store(config_path) as store:
        archive = write_archive(store, output)
    click.echo(f"entries {archive.first} to {archive.head.seq}, head {archive.head.sha256}")
    click.echo(f"{archive.sha256}  {output}")


@audit.command("cut")
@config_option
@_output
@click.option("--keep", default="90d", show_default=True, help="Keep what is younger: 12h, 30d, 52w.")
def audit_cut(config_path: Path, output: Path, keep: str) -> None:
    """Archive the whole log to a file, and then cut off the entries that are older; servers may be running.

    What remains begins behind a checkpoint and verifies by itself. Keep the files: what agents have seen of
    entries that were cut can only be compared with them (mig audit verify --archive FILE).
    """
    now = utc_now()
    with open_store(config_path) as store:
        archive = write_archive(store, output, now - parse_duration(keep))
        count = cut(store, archive, now)
    click.echo(f"entries {archive.first} to {archive.head.seq}, head {archive.head.sha256}")
    click.echo(f"{archive.sha256}  {output}")
    begins = "" if archive.keeps is None else f"; the log begins at entry {archive.keeps.seq}"
    click.echo(f"cut {count} entries{begins}")
