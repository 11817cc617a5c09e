"""The actions that come with the project are ones that agents take."""

from pathlib import Path

import pytest

from agent.module import decode_params
from agent.registry import canonical_name, load_module
from protocol.strictjson import decode_json

PUBLISHED = sorted((Path(__file__).parents[2] / "actions").glob("*.json"))


@pytest.mark.parametrize("path", PUBLISHED, ids=[path.stem for path in PUBLISHED])
def test_every_operation_of_a_published_action_is_one_that_its_module_takes(path: Path) -> None:
    action = decode_json(path.read_bytes())
    assert isinstance(action, dict)
    assert action["operations"]
    for operation in action["operations"]:
        module = load_module(canonical_name(operation["module"]))
        decode_params(module.params, module.upgrade(operation["parameters"]))
