"""The transcript in docs/api.md is true: its commands are run, and what they print is compared."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from protocol.action import encode_action
from protocol.envelope import ACTION, encode_envelope
from tests.support.api import ApiServer
from tests.support.fleet import FleetAgent, make_action
from tests.support.gpg import Investigator

DOCUMENT = Path(__file__).parents[3] / "docs" / "api.md"


def transcript() -> list[tuple[str, str]]:
    """Return the commands of the document and what each is said to print."""
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", DOCUMENT.read_text(), re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            length = 1
            while lines[length - 1].endswith("\\"):
                length += 1
            command = "\n".join(line.removeprefix("> ") for line in lines[:length])
            steps.append((command, "\n".join(lines[length:])))
    return steps


@pytest.mark.system
def test_the_commands_of_the_document_print_what_it_says(
    api: ApiServer, ada: Investigator, tmp_path: Path
) -> None:
    api.store.add_investigator(ada.fingerprint, "Ada", ada.public_key, ["read", "submit"], api.now())
    agent = FleetAgent(api.store, "web1", now=api.now())
    action = make_action(now=api.now())
    (tmp_path / "look.json.signed.json").write_bytes(encode_envelope(ada.sign(ACTION, encode_action(action))))
    steps = transcript()
    assert len(steps) == 14
    script = "set -eu -o pipefail\n"
    for command, _ in steps:
        written = command.replace("http://127.0.0.1:1664", api.url)
        if written.endswith("/events"):
            script += "echo answer >&2; read -r _\n"
        script += f"{written}\necho\necho =====\n"
    environment = {
        "FPR": ada.fingerprint,
        "GNUPGHOME": str(ada.home),
        "ID": action.id,
        "PATH": os.environ["PATH"],
    }
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as shell:
        assert shell.stdin is not None
        assert shell.stderr is not None
        assert shell.stdout is not None
        assert shell.stderr.readline() == "answer\n"
        api.publish(api.store.save_results([agent.answer(action)], api.now()))
        shell.stdin.write("\n")
        shell.stdin.close()
        printed = shell.stdout.read().split("=====\n")
        assert shell.wait() == 0, shell.stderr.read()
    for (command, said), output in zip(steps, printed, strict=False):
        pattern = ".*".join(map(re.escape, said.strip().split("…")))
        assert re.fullmatch(pattern, output.strip(), re.DOTALL), (command, output)
