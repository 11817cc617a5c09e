"""Puts together what a command needs to speak to the server: configuration, signer, API."""

from typing import NamedTuple

from client.api import Api
from client.config import ClientConfig, cache_dir, load_config
from client.signing import Signer
from client.unsealing import Unsealer


class Connection(NamedTuple):
    """One investigator and one server."""

    config: ClientConfig
    signer: Signer
    api: Api

    @property
    def opener(self) -> Unsealer:
        """What opens the answers that are sealed to this investigator."""
        return Unsealer(self.signer.gpg, self.signer.fingerprint)


def make_signer(config: ClientConfig) -> Signer:
    """Return the signer of the configured investigator."""
    return Signer(fingerprint=config.fingerprint, program=config.gpg, home=config.gpg_home)


def connect() -> Connection:
    """Read the configuration and return the connection; nothing is sent yet.

    Raises:
        InvalidInput: `bad-config`.

    """
    config = load_config()
    signer = make_signer(config)
    return Connection(config, signer, Api(server=config.server, signer=signer, cache=cache_dir()))
