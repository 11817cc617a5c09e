"""A RabbitMQ as the package leaves it: `guest`, no virtual host of ours, no plugin; and certificates."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.broker import PrivateBroker
from server.certificates import TlsFiles


class PlainBroker(PrivateBroker):
    """A node whose configuration is `etc/rabbitmq.conf`, empty at first, and what is in `etc/conf.d`."""

    @property
    def etc(self) -> Path:
        """The directory that /etc/rabbitmq would be."""
        return self.directory / "etc"

    @property
    def port(self) -> int:
        """Where it listens without TLS."""
        return self._read_state().amqp

    def _write_files(self) -> None:
        for name in ("log", "data", "home", "etc", "etc/conf.d"):
            (self.directory / name).mkdir(mode=0o700, exist_ok=True)
        (self.etc / "rabbitmq.conf").touch()
        plugins = self.directory / "enabled_plugins"
        if not plugins.exists():
            plugins.write_text("[].\n")

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {
            "RABBITMQ_CONFIG_FILE": str(self.etc / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(self.etc / "conf.d" / "*.conf"),
        }

    def restart(self) -> None:
        """Let it read its configuration again."""
        self.stop()
        self.start()


class Authority(NamedTuple):
    """A certificate authority of the tests."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @classmethod
    def make(cls, name: str = "test authority") -> "Authority":
        """Make one."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, subject, key.public_key())
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        return cls(key, builder.add_extension(identifier, critical=False).sign(key, hashes.SHA256()))

    def issue(self, directory: Path, *names: str, days: float = 300) -> TlsFiles:
        """Write a certificate for these hosts and addresses, its key, and ours."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
        builder = _builder(subject, self.certificate.subject, key.public_key(), days=days)
        hosts = [
            x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
        ]
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        certificate = builder.add_extension(issuer, critical=False).sign(self.key, hashes.SHA256())
        files = TlsFiles(directory / "broker.pem", directory / "broker.key", directory / "ca.pem")
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        files.ca.write_text(self.pem)
        return files


def _general_name(name: str) -> x509.GeneralName:
    return x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, days: float = 300
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
    )
