"""An agent in a directory of its own, as the builder would bake it: sources, configuration, keys."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.config import Baked
from tests.support.gpg import Investigator

ROOT = Path(__file__).resolve().parents[2]


class AgentTree:
    """`mig-agent` that trusts given investigators, run from its own copy of the sources."""

    def __init__(self, directory: Path, baked: Baked, investigators: Sequence[Investigator]) -> None:
        self.directory = directory
        self.state = directory / "state"
        for package in ("agent", "protocol"):
            # With its byte code, if there is some: an isolated interpreter looks for it nowhere else.
            shutil.copytree(ROOT / package, directory / package)
        resources = directory / "agent" / "baked"
        (resources / "keys").mkdir(parents=True)
        config = {name: value for name, value in baked.config._asdict().items() if value is not None}
        config["limits"] = baked.config.limits._asdict()
        config["trust"] = baked.config.trust._asdict()
        config["scan"] = baked.config.scan._asdict()
        config["alerts"] = baked.config.alerts._asdict()
        config.update(baked.config.watched())
        (resources / "config.json").write_text(json.dumps(config))
        names = [f"{investigator.fingerprint}.asc" for investigator in investigators]
        for name, key in zip(names, baked.keys, strict=True):
            (resources / "keys" / name).write_bytes(key)
        (resources / "roots").mkdir()
        for fingerprint, root in zip(baked.config.trust.roots, baked.roots, strict=True):
            (resources / "roots" / f"{fingerprint}.asc").write_bytes(root)
        build = {"version": "1.2.3", "platform": "test", "build": "f" * 64, "keys": names}
        (resources / "build.json").write_text(json.dumps(build))

    def argv(self, *words: str) -> list[str]:
        """Return the command that runs `mig-agent WORDS`."""
        code = f"import sys; sys.path.insert(0, {str(self.directory)!r}); from agent.main import main; main()"
        return [sys.executable, "-I", "-B", "-c", code, *words]

    def run(self, *words: str, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run `mig-agent WORDS` to its end."""
        return subprocess.run(
            self.argv(*words), input=data, capture_output=True, check=False, cwd=self.directory
        )
