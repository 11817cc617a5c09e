"""The API's description (OpenAPI 3.1) and an interactive page of it, complete without any other site.

The page is Swagger UI, whose bundled release reads OpenAPI 3.0 only; it is given the same description in that
spelling. What differs, for what our declarations use, is how a value says that it may be null.
"""

from importlib.resources import files
from typing import Any

import msgspec
from litestar import Litestar, MediaType, Response, get
from litestar.di import NamedDependency, Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.params import FromPath
from litestar.types import ControllerRouterHandler

from protocol.errors import InvalidInput
from server.api.described import COMPONENTS

_ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>MIG API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """\
SwaggerUIBundle({
  url: "docs/openapi-3.0.json",
  dom_id: "#page",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
# Scripts and requests of this site only; Swagger UI writes its styles into the page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Pages:
    """The description of some routes and the page of it; made at the first request for it."""

    def __init__(
        self, routes: list[ControllerRouterHandler], dependencies: dict[str, Provide], version: str
    ) -> None:
        self._routes = routes
        self._dependencies = dependencies
        self._version = version
        self._description: dict[str, Any] | None = None

    def description(self) -> dict[str, Any]:
        """Return the OpenAPI 3.1 description of the routes."""
        if self._description is None:
            config = OpenAPIConfig(title="MIG API", version=self._version, components=COMPONENTS)
            described = Litestar(
                self._routes, dependencies=self._dependencies, openapi_config=config, logging_config=None
            )
            self._description = described.openapi_schema.to_schema()
        return self._description


@get("/openapi.json", include_in_schema=False, sync_to_thread=True)
def show_description(pages: NamedDependency[Pages]) -> Response[bytes]:
    """Return the OpenAPI 3.1 description."""
    return Response(msgspec.json.encode(pages.description()), media_type="application/json")


@get("/docs", include_in_schema=False, sync_to_thread=False)
def show_page() -> Response[str]:
    """Return the interactive page."""
    return Response(_PAGE, media_type=MediaType.HTML, headers={"Content-Security-Policy": _POLICY})


@get("/docs/{asset:str}", include_in_schema=False, sync_to_thread=True)
def show_asset(asset: FromPath[str], pages: NamedDependency[Pages]) -> Response[bytes]:
    """Return a part of the page."""
    if asset == "start.js":
        return Response(_START.encode(), media_type="text/javascript")
    if asset == "openapi-3.0.json":
        return Response(
            msgspec.json.encode(to_openapi_3_0(pages.description())), media_type="application/json"
        )
    if asset not in _ASSETS:
        raise InvalidInput("not-found")
    return Response(asset_bytes(asset), media_type=_ASSETS[asset], headers={"Cache-Control": "max-age=86400"})


def asset_bytes(asset: str) -> bytes:
    """Return one file of Swagger UI; it is package data, which may lie in a zip file."""
    releases = (files("swagger_ui_bundle") / "vendor").iterdir()
    release = next(entry for entry in releases if entry.name.startswith("swagger-ui-"))
    return (release / asset).read_bytes()


def to_openapi_3_0(description: dict[str, Any]) -> dict[str, Any]:
    """Return a 3.1 description in the spelling of 3.0 (OpenAPI Initiative, "Migrating from 3.0 to 3.1")."""
    return {**_without_null_types(description), "openapi": "3.0.3"}


def _without_null_types(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_null_types(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _without_null_types(member) for key, member in value.items()}
    if isinstance(value.get("type"), list):
        others = [name for name in value["type"] if name != "null"]
        return {**value, "type": others[0], "nullable": True}
    for key in ("oneOf", "anyOf"):
        choices = value.get(key)
        if isinstance(choices, list) and {"type": "null"} in choices:
            others = [choice for choice in choices if choice != {"type": "null"}]
            rest = {name: member for name, member in value.items() if name != key}
            return {**rest, "nullable": True, **({"allOf": others} if len(others) == 1 else {key: others})}
    return value
