"""`mig-server trust ...`: which trust bundle agents are sent, and how one in the way is taken out.

Nothing here can make an agent obey anybody: each judges by its roots what it is sent.
"""

from pathlib import Path

import click

from protocol.envelope import MAX_ENVELOPE_BYTES
from protocol.errors import InvalidInput
from server.config import load_config
from server.options import config_option, open_database
from server.parts import utc_now
from server.store import Store
from server.trust import check_bundle

_ALL = 1000


@click.group()
def trust() -> None:
    """Which trust bundle agents are sent. Composed and signed elsewhere: mig trust."""


@trust.command("list")
@config_option
def trust_list(config_path: Path) -> None:
    """List bundles, the newest first: version, expiry, publication, publisher, how many agents hold it."""
    with open_database(load_config(config_path)) as database:
        store = Store(database)
        held = store.count_trust()
        for row in store.list_trust(_ALL):
            times = f"until {row.expires:%Y-%m-%dT%H:%M:%SZ}  published {row.published:%Y-%m-%dT%H:%M:%SZ}"
            click.echo(
                f"{row.version}  {times}  by {row.publisher}  held by {held.get(row.version, 0)} agents"
            )


@trust.command("publish")
@config_option
@click.option("--force", is_flag=True, help="Also where it leaves out more versions than a mistake would.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def trust_publish(config_path: Path, file: Path, *, force: bool) -> None:
    """Publish the signed bundle in FILE, as `mig trust publish` does; running servers send it soon."""
    config, now = load_config(config_path), utc_now()
    with file.open("rb") as stream:
        body = stream.read(MAX_ENVELOPE_BYTES + 1).strip()
    bundle, digest = check_bundle(body, config, now)
    with open_database(config) as database:
        is_new = Store(database).publish_trust(bundle, body, digest, "operator", now, is_forced=force)
    click.echo(f"bundle {bundle.version} " + ("is published" if is_new else "was published before"))


@trust.command("withdraw")
@config_option
@click.option("--force", is_flag=True, help="Also where agents say that they hold it.")
@click.argument("version", type=click.IntRange(min=1))
def trust_withdraw(config_path: Path, version: int, *, force: bool) -> None:
    """Take a bundle out, so that the one before it is sent again and others of a lower version may come.

    For one that no agent takes: not signed by enough roots, or by others. One that agents hold is good, and
    they take nothing older ever again, whatever is withdrawn.
    """
    with open_database(load_config(config_path)) as database:
        store = Store(database)
        holders = store.count_trust().get(version, 0)
        if holders and not force:
            raise InvalidInput(
                "conflict", f"{holders} agents say that they hold bundle {version}: see --force"
            )
        store.withdraw_trust(version, utc_now())
    click.echo(f"bundle {version} is withdrawn")
