"""`mig-server` as its operator has it: a configuration, a state directory, commands in this process."""

from pathlib import Path
from typing import NamedTuple

import pytest

from server.config import load_config
from server.database import Database
from server.main import main
from server.migrations import migrate
from server.store import Store
from tests.support.ports import free_port


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Installation:
    """A configuration, and `mig-server` run in this process on it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.config = directory / "config.toml"
        self.state = directory / "state"
        self._capsys = capsys

    def __call__(self, *words: str, config: bool = True) -> Done:
        """Run a command."""
        options = ["--config", str(self.config)] if config else []
        with pytest.raises(SystemExit, match=r"\d") as ended:
            main([*words, *options])
        out, err = self._capsys.readouterr()
        return Done(int(str(ended.value.code)), out, err)

    def init(self) -> None:
        """Make a configuration with ports that are free, and a broker that is away."""
        assert self("init", "--state-dir", str(self.state)).code == 0
        text = self.config.read_text()
        for port in ("1664", "1665", "5672"):
            text = text.replace(f":{port}", f":{free_port()}")
        self.config.write_text(text)

    @property
    def store(self) -> Store:
        """The store, migrated; closed with the process."""
        database = Database(load_config(self.config).database)
        migrate(database)
        return Store(database)
