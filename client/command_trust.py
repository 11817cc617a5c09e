"""`mig trust ...`: whom agents obey, as a bundle that the holders of root keys sign."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import msgspec

from client.action import parse_duration
from client.config import load_config
from client.connect import connect, make_signer
from client.files import write_file
from client.follow import say
from client.keys import judge_signatures, load_key_directory
from client.options import Choices, require_confirmable
from client.render import dump_json
from client.screen import printable
from client.trust_bundle import (
    Draft,
    ReadBundle,
    decode_bundle_file,
    describe_bundle,
    read_certificates,
    read_file,
)
from protocol.envelope import encode_envelope
from protocol.errors import EXIT_FOUND, EXIT_REFUSED, InvalidInput

_PATH = click.Path(path_type=Path)
_YES = click.option("-y", "--yes", "assume_yes", is_flag=True, help="Do not ask for confirmation.")


@click.group()
def trust() -> None:
    """Say whom agents obey, without a new build of them: compose, sign, check and publish trust bundles."""


@trust.command("new")
@click.option("--from", "base", type=_PATH, metavar="FILE", help="Start from this bundle.")
@click.option("--config", type=_PATH, help="Take ACL and manage from [agent] of this configuration.")
@click.option(
    "--keys", type=_PATH, multiple=True, help="Certificate, or directory of them, to trust; repeatable."
)
@click.option("--revoke", multiple=True, metavar="FINGERPRINT", help="Whom to take out; repeatable.")
@click.option("--manage", multiple=True, metavar="FINGERPRINT", help="Who may cancel what others signed.")
@click.option("--version", type=click.IntRange(1, 2**31 - 1), help="Default: 1, or that of --from plus 1.")
@click.option("--expires", default="90d", help="How long agents may obey it. Default: 90d.")
@click.option("-o", "--output", type=_PATH, required=True, help="Where to write it.")
def new(
    *,
    base: Path | None,
    config: Path | None,
    keys: tuple[Path, ...],
    revoke: tuple[str, ...],
    manage: tuple[str, ...],
    version: int | None,
    expires: str,
    output: Path,
) -> int:
    """Compose a bundle; nobody has signed it yet.

    \b
    mig trust new --config config.toml --keys keys/ -o trust.json
    mig trust new --from trust.json --revoke FINGERPRINT -o trust-2.json
    """  # noqa: D301  (\b is click's mark for lines to be kept)
    now = datetime.now(UTC).replace(microsecond=0)
    draft = Draft(now)
    number = version or 1
    if base is not None:
        known = decode_bundle_file(read_file(base)).bundle
        draft.start_from(known)
        number = version or known.version + 1
        if number <= known.version:
            raise InvalidInput("usage", f"version {number} is not above that of {base}, {known.version}")
    elif config is None:
        raise InvalidInput("usage", "start --from a bundle, or give --config and --keys")
    if config is not None:
        draft.read_rights(config)
    for data in read_certificates(keys):
        draft.add_certificate(data)
    for fingerprint in manage:
        draft.allow_manage(_fingerprint(fingerprint))
    for fingerprint in revoke:
        draft.revoke(_fingerprint(fingerprint))
    envelope = draft.finish(number, now + timedelta(seconds=parse_duration(expires)))
    if output.exists():
        raise InvalidInput("usage", f"{output} is there already")
    data = encode_envelope(envelope)
    write_file(output, data + b"\n")
    _say_bundle(decode_bundle_file(data), now)
    say(f"not signed yet: mig trust sign {output}")
    click.echo(str(output))
    return EXIT_FOUND


def _fingerprint(text: str) -> str:
    return text.replace(" ", "").upper()


def _say_bundle(read: ReadBundle, now: datetime) -> None:
    for line in describe_bundle(read, now):
        say(line)


@trust.command("sign")
@click.argument("file", type=_PATH)
@_YES
def sign(file: Path, *, assume_yes: bool) -> int:
    """Add your signature, as the holder of a root key, to the bundle in FILE.

    What is signed is shown first, read from the very bytes.
    """
    require_confirmable(Choices(assume_yes=assume_yes))
    read = decode_bundle_file(read_file(file))
    now = datetime.now(UTC)
    _say_bundle(read, now)
    if now >= read.bundle.expires:
        raise InvalidInput("trust-expired", f"{file} has expired")
    if not assume_yes:
        click.confirm("Sign this?", abort=True, err=True)
    envelope = make_signer(load_config()).add_signature(read.envelope)
    write_file(file, encode_envelope(envelope) + b"\n")
    click.echo(str(file))
    return EXIT_FOUND


@trust.command("show")
@click.argument("file", type=_PATH, required=False)
@click.option("--roots", type=_PATH, help="Directory of the root certificates. Default: your gpg's own keys.")
@click.option("--threshold", type=click.IntRange(1, 8), default=1, help="How many roots must have signed.")
@click.option("--json", "as_json", is_flag=True, help="The bundle as JSON, as it was signed.")
@click.option("-o", "--output", type=_PATH, help="Also write the bundle with its signatures to a file.")
def show(file: Path | None, *, roots: Path | None, threshold: int, as_json: bool, output: Path | None) -> int:
    """Show who may run what, until when, and who signed that; without FILE, of the newest on the server.

    With --roots the exit code says whether agents with these roots would take it.
    """
    data = read_file(file) if file is not None else connect().api.get_trust().envelope.encode()
    read = decode_bundle_file(data)
    now = datetime.now(UTC)
    if output is not None:
        write_file(output, data)
    if as_json:
        click.echo(dump_json(msgspec.to_builtins(read.bundle)))
    else:
        for line in describe_bundle(read, now):
            click.echo(line)
    return _show_signatures(read, roots, threshold, now, quiet=as_json)


def _show_signatures(
    read: ReadBundle, roots: Path | None, threshold: int, now: datetime, *, quiet: bool
) -> int:
    if roots is None:
        find = make_signer(load_config()).export
    else:
        directory = load_key_directory(roots)

        def find(fingerprint: str) -> bytes:
            return directory.get(fingerprint, b"")

    verdicts = judge_signatures(read.envelope, find, now)
    for verdict in verdicts:
        who = f"{verdict.keyid} {verdict.user_id}".rstrip()
        said = f"refused {who}: {printable(verdict.reason)}" if verdict.reason else f"signed by {who}"
        click.echo(said, err=quiet)
    accepted = len({verdict.keyid for verdict in verdicts if not verdict.reason})
    if not verdicts:
        click.echo("not signed yet", err=quiet)
    if roots is None:
        return EXIT_FOUND
    if accepted < threshold:
        raise InvalidInput("unsigned", f"signed by {accepted} of {threshold} roots needed")
    return EXIT_FOUND if now < read.bundle.expires else EXIT_REFUSED


@trust.command("publish")
@click.argument("file", type=_PATH)
@_YES
def publish(file: Path, *, assume_yes: bool) -> int:
    """Hand the signed bundle in FILE to the server, which brings it to every agent."""
    require_confirmable(Choices(assume_yes=assume_yes))
    data = read_file(file)
    read = decode_bundle_file(data)
    _say_bundle(read, datetime.now(UTC))
    if not read.envelope.signatures:
        raise InvalidInput("unsigned", f"nobody has signed it: mig trust sign {file}")
    if not assume_yes:
        click.confirm("Publish this?", abort=True, err=True)
    published = connect().api.publish_trust(encode_envelope(read.envelope))
    state = "on its way" if published.new else "was published before"
    say(f"bundle {published.version} {state}; who holds it: mig agents")
    click.echo(str(published.version))
    return EXIT_FOUND
