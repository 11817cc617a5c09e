"""The certificate that the broker shows to agents, looked at before it is used."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from protocol.errors import InvalidInput

_SOON = timedelta(days=30)


class TlsFiles(NamedTuple):
    """Files in PEM: the certificate with its chain, its key, and the authority that agents are to trust."""

    certificate: Path
    key: Path
    ca: Path


def describe_certificate(files: TlsFiles, now: datetime | None = None) -> str:
    """Return one line about a certificate that can be used: its names, and until when.

    Raises:
        InvalidInput: `bad-config` where the files do not belong together, or it has expired or has no name.

    """
    now = now or datetime.now(UTC)
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        context.load_verify_locations(files.ca)
        certificate = x509.load_pem_x509_certificates(files.certificate.read_bytes())[0]
        names = _names(certificate)
    except OSError as error:  # ssl.SSLError is one
        where = error.filename or f"{files.certificate}, {files.key}, {files.ca}"
        raise InvalidInput("bad-config", f"{where}: {error.strerror or error}") from None
    except (ValueError, IndexError) as error:
        raise InvalidInput("bad-config", f"{files.certificate}: {error}") from None
    left = certificate.not_valid_after_utc - now
    if left <= timedelta(0):
        raise InvalidInput("bad-config", f"{files.certificate} expired at {certificate.not_valid_after_utc}")
    if not names:
        raise InvalidInput("bad-config", f"{files.certificate} names no host (subjectAltName)")
    word = "warn " if left < _SOON else "ok   "
    until = f"{certificate.not_valid_after_utc:%Y-%m-%d}"
    return f"{word} certificate for {', '.join(names)}, until {until}: relay must name the broker so"


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    hosts = extension.value.get_values_for_type(x509.DNSName)
    return [*hosts, *map(str, extension.value.get_values_for_type(x509.IPAddress))]
