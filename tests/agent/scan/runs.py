"""How the tests run searches: through the executor, as an action would."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.execute import run_operation
from agent.module import Context, decode_params
from agent.modules import file
from protocol.result import OperationResult

Tree = Mapping[str, bytes]


def grow(root: Path, tree: Tree) -> Path:
    """Make files below a directory, by their relative paths."""
    for path, content in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    return root


def run(context: Context | None = None, **searches: Mapping[str, Any]) -> OperationResult:
    """Run searches by label; each must have been answered."""
    result = run_operation("file", {"searches": searches}, context or Context())
    assert result.status in ("ok", "limit"), result
    return result


def find(root: Path, *, matchall: bool = True, context: Context | None = None, **search: Any) -> list[str]:
    """Run one search below a directory and return the paths found, relative to it, in their order."""
    options = {"matchall": matchall, **search.pop("options", {})}
    result = run(context, s1={"paths": [str(root)], **search, "options": options})
    return paths(result, root)


def paths(result: OperationResult, root: Path, label: str = "s1") -> list[str]:
    """Return the paths that a search found, relative to a directory."""
    return [record["path"].removeprefix(f"{root}/") for record in result.records if record["search"] == label]


def refused(**search: Any) -> str:
    """Return the reason for which a search is refused."""
    result = run_operation("file", {"searches": {"s1": {"paths": ["/"], **search}}}, Context())
    assert (result.status, result.records) == ("invalid-parameters", ())
    return result.notes[0]


def step(context: Context, root: Path, **search: Any) -> Iterator[str]:
    """Run one search record by record, so that a test can act while the scan is under way."""
    options = {"matchall": True, **search.pop("options", {})}
    searches = {"s1": {"paths": [str(root)], **search, "options": options}}
    for record in file.run(decode_params(file.Params, {"searches": searches}), context):
        yield record.path.removeprefix(f"{root}/")
