"""The investigator's configuration: the table `[client]` of one TOML file.

The file is `$MIG_CONFIG`, else `mig/config.toml` below `$XDG_CONFIG_HOME` or `~/.config`. A name that is not
known is refused, so that a misspelt setting is never silently the default. No secret stands in it: keys stay
with gpg.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from protocol.errors import EnvironmentFailure, InvalidInput

_EXAMPLE = '[client] with server = "https://mig.example.net" and fingerprint = "the 40 digits of your key"'


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `[client]` may hold.

    `server` is the address of the API as the investigator types it (it is signed into each login),
    `fingerprint` names the investigator's primary key, `gpg_home` is empty for gpg's own default, `gpg` is
    the program to run.
    """

    server: Annotated[str, Meta(min_length=1, max_length=1024)]
    fingerprint: Annotated[str, Meta(pattern=r"^[0-9A-F]{40}\Z")]
    gpg_home: str = ""
    gpg: Annotated[str, Meta(min_length=1)] = "gpg"


def config_path() -> Path:
    """Return where the configuration is read from."""
    override = os.environ.get("MIG_CONFIG")
    if override:
        return Path(override)
    return _base("XDG_CONFIG_HOME", ".config") / "config.toml"


def cache_dir() -> Path:
    """Return the directory for what can be made again at any time: session tokens."""
    return _base("XDG_CACHE_HOME", ".cache")


def data_dir() -> Path:
    """Return the directory for what is remembered: which agent bore which name."""
    return _base("XDG_DATA_HOME", ".local/share")


def _base(variable: str, default: str) -> Path:
    configured = os.environ.get(variable, "")
    # The XDG base directory specification: a relative path is to be ignored.
    root = Path(configured) if configured.startswith("/") else Path.home() / default
    return root / "mig"


def load_config() -> ClientConfig:
    """Read and check the configuration.

    Raises:
        InvalidInput: `bad-config`, with what is wrong; a missing file says how to make one.

    """
    path = config_path()
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        raise InvalidInput("bad-config", f"there is no {path}: make one, {_EXAMPLE}") from None
    except OSError as error:
        raise EnvironmentFailure("bad-config", f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("bad-config", f"{path}: {error}") from None
    if "client" not in document:
        raise InvalidInput("bad-config", f"{path} has no {_EXAMPLE}")
    return convert_config(document["client"], str(path))


def convert_config(table: Any, where: str) -> ClientConfig:
    """Turn the decoded table `[client]` into the configuration.

    Raises:
        InvalidInput: `bad-config`, with the setting that is wrong.

    """
    if isinstance(table, dict) and isinstance(table.get("fingerprint"), str):
        # gpg prints fingerprints in groups of four; people paste them so.
        table = {**table, "fingerprint": table["fingerprint"].replace(" ", "").upper()}
    try:
        config = msgspec.convert(table, ClientConfig)
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-config", f"{where} [client]: {error}") from None
    try:
        parts = urlsplit(config.server)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or parts.query or parts.fragment or parts.username is not None:
        raise InvalidInput("bad-config", f"{where} [client]: server is not an address like https://host:port")
    return config
