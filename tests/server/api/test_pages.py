"""Health, downloads, the description and its page, and the shape of every failure."""

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from server.api.pages import to_openapi_3_0
from tests.support.api import ApiServer

ROOT = Path(__file__).parents[3]


def test_health_needs_no_login_and_says_what_is_away(api: ApiServer) -> None:
    assert api.ask("GET", "/api/v1/health").json == {
        "status": "ok",
        "database": "ok",
        "broker": "ok",
        "version": "1.2.3",
    }
    api.is_broker_connected = False
    assert api.ask("GET", "/api/v1/health").json["status"] == "degraded"


def test_a_database_that_is_away_is_said_and_leaks_nothing(api: ApiServer, token: str) -> None:
    with api.database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE results")
        connection.exec_driver_sql("DROP TABLE commands")
        connection.exec_driver_sql("DROP TABLE actions")
    answer = api.ask("GET", "/api/v1/actions", token=token)
    assert answer.refusal == (503, "database-away")
    assert b"SELECT" not in answer.body


def test_a_programming_error_answers_without_its_insides(
    api: ApiServer, token: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(api.store, "list_actions", lambda *_: 1 // 0)
    answer = api.ask("GET", "/api/v1/actions", token=token)
    assert answer.refusal == (500, "internal")
    assert b"division" not in answer.body
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "refusal"),
    [
        ("GET", "/", (404, "not-found")),
        ("GET", "/api/v1", (404, "not-found")),
        ("GET", "/api/v1/nothing", (404, "not-found")),
        ("GET", "/api/v1/docs/nothing", (404, "not-found")),
        ("GET", "/api/v1/docs/..%2f..%2fetc%2fpasswd", (404, "not-found")),
        ("DELETE", "/api/v1/actions", (405, "bad-method")),
        ("GET", "/api/v1/session", (405, "bad-method")),
        ("GET", "/agents/..%2fserver", (404, "not-found")),
        ("GET", "/agents/linux-x86_64.sha256", (404, "not-found")),
        ("GET", "/agents/%00", (404, "not-found")),
    ],
)
def test_what_is_not_there_is_refused_in_the_one_shape(
    shared_api: ApiServer, method: str, path: str, refusal: tuple[int, str]
) -> None:
    assert shared_api.ask(method, path).refusal == refusal


def test_agents_are_downloaded_with_their_checksum(api: ApiServer) -> None:
    content = bytes(range(256)) * 1000
    (api.agents_dir / "mig-agent-linux-x86_64").write_bytes(content)
    (api.agents_dir / "secret").write_bytes(b"secret")
    answer = api.ask("GET", "/agents/linux-x86_64")
    assert answer.body == content
    assert answer.headers["Content-Type"] == "application/octet-stream"
    line = api.ask("GET", "/agents/linux-x86_64.sha256").body.decode()
    assert line == f"{hashlib.sha256(content).hexdigest()}  mig-agent-linux-x86_64\n"


def test_the_description_is_openapi_3_1_and_names_every_route(shared_api: ApiServer) -> None:
    description = shared_api.ask("GET", "/api/v1/openapi.json").json
    assert description["openapi"].startswith("3.1")
    assert {path: sorted(item) for path, item in description["paths"].items()} == {
        "/agents/{platform}": ["get"],
        "/api/v1/actions": ["get", "post"],
        "/api/v1/actions/{action_id}": ["get"],
        "/api/v1/actions/{action_id}/cancel": ["post"],
        "/api/v1/actions/{action_id}/commands": ["get"],
        "/api/v1/actions/{action_id}/events": ["get"],
        "/api/v1/actions/{action_id}/results": ["get"],
        "/api/v1/agents": ["get"],
        "/api/v1/agents/approvals": ["post"],
        "/api/v1/agents/{agent_id}": ["get"],
        "/api/v1/alerts": ["get"],
        "/api/v1/alerts/events": ["get"],
        "/api/v1/audit": ["get"],
        "/api/v1/audit/witnesses": ["get"],
        "/api/v1/trust": ["get", "post"],
        "/api/v1/challenge": ["post"],
        "/api/v1/health": ["get"],
        "/api/v1/investigators": ["get"],
        "/api/v1/session": ["post"],
    }
    for item in description["paths"].values():
        for operation in item.values():
            assert operation["summary"]
            refusals = {
                status: response for status, response in operation["responses"].items() if int(status) >= 400
            }
            for response in refusals.values():
                [content] = response["content"].values()
                assert content["schema"] == {"$ref": "#/components/schemas/ErrorDocument"}


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*map(_references, value.values()))
    return set().union(*map(_references, value)) if isinstance(value, list) else set()


def test_the_description_refers_to_nothing_that_is_missing(shared_api: ApiServer) -> None:
    description = shared_api.ask("GET", "/api/v1/openapi.json").json
    known = {f"#/components/schemas/{name}" for name in description["components"]["schemas"]}
    assert _references(description) <= known


def test_the_page_works_without_any_other_site(shared_api: ApiServer) -> None:
    page = shared_api.ask("GET", "/api/v1/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "http" not in page.body.decode()
    parts = re.findall(r'(?:href|src)="([^"]+)"', page.body.decode())
    assert len(parts) == 4
    for part in parts:
        answer = shared_api.ask("GET", f"/api/v1/{part}")
        assert answer.status == 200
        assert answer.body
    start = shared_api.ask("GET", "/api/v1/docs/start.js").body.decode()
    assert "http" not in start
    [described] = re.findall(r'url: "([^"]+)"', start)
    assert shared_api.ask("GET", f"/api/v1/{described}").json["openapi"] == "3.0.3"
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "http" not in policy


def test_the_older_spelling_says_null_in_its_own_way() -> None:
    old = to_openapi_3_0(
        {
            "openapi": "3.1.0",
            "a": {"oneOf": [{"type": "string"}, {"type": "null"}], "description": "d"},
            "b": {"type": ["integer", "null"]},
            "c": {"oneOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
            "d": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        }
    )
    assert old == {
        "openapi": "3.0.3",
        "a": {"description": "d", "nullable": True, "allOf": [{"type": "string"}]},
        "b": {"type": "integer", "nullable": True},
        "c": {"nullable": True, "oneOf": [{"type": "string"}, {"type": "integer"}]},
        "d": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
    }


_FROM_ZIP = """
import sys
sys.path.insert(0, sys.argv[1])
import server, swagger_ui_bundle
assert sys.argv[1] in server.__file__ and sys.argv[1] in swagger_ui_bundle.__file__
from litestar import Litestar
from server.api import pages
from server.database import Database
from server.migrations import migrate
from server.store import Store
assert len(pages.asset_bytes("swagger-ui-bundle.js")) > 100000
database = Database(f"sqlite:///{sys.argv[2]}")
migrate(database)
print(Store(database).list_actions(1, 0))
database.close()
"""


def test_pages_and_migrations_work_from_a_zip_file(tmp_path: Path) -> None:
    import swagger_ui_bundle  # noqa: PLC0415  (only its place matters here)

    bundle = Path(swagger_ui_bundle.__file__).parent
    archive = tmp_path / "server.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for root in (ROOT / "server", ROOT / "protocol", bundle):
            for path in root.rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    packed.write(path, path.relative_to(root.parent))
    done = subprocess.run(
        [sys.executable, "-B", "-c", _FROM_ZIP, str(archive), str(tmp_path / "mig.sqlite")],
        cwd=tmp_path,
        env={"TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "(0, [])\n"), done.stderr
