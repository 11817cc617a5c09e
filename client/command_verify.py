"""`mig verify`: what our OpenPGP policy says of a detached signature."""

from datetime import UTC, datetime
from pathlib import Path

import click

from client.screen import printable
from protocol.errors import InvalidInput
from protocol.openpgp import parse_certificate, parse_signature_file, require_detached_signature

_ACCEPTED, _REFUSED = 0, 1


@click.command()
@click.option("--cert", required=True, type=click.Path(path_type=Path), help="The signer's certificate.")
@click.option("--signature", required=True, type=click.Path(path_type=Path), help="The detached signature.")
@click.argument("file", type=click.Path(path_type=Path))
def verify(cert: Path, signature: Path, file: Path) -> int:
    """Verify a detached OpenPGP signature under the policy that agents enforce.

    Prints `accepted FINGERPRINT` (the primary key's) and exits with 0, or `refused: REASON` and exits with 1.
    """
    certificate_data, signature_data, message = _read(cert), _read(signature), _read(file)
    try:
        certificate = parse_certificate(certificate_data)
        packet = parse_signature_file(signature_data)
        require_detached_signature(certificate, packet, message, datetime.now(UTC))
    except InvalidInput as error:
        click.echo(f"refused: {printable(error.detail)}")
        return _REFUSED
    click.echo(f"accepted {certificate.fingerprint}")
    return _ACCEPTED


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput("usage", f"{path}: {error.strerror}") from None
