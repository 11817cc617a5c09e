"""The agents' files and their checksums: a convenience, never an authority.

Whoever installs an agent compares its hash with the one that the builder printed.
"""

import asyncio
import hashlib
import re
from pathlib import Path

from litestar import MediaType, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import File

from protocol.errors import InvalidInput
from server.api.described import refusals
from server.services import Services

_PLATFORM = re.compile(r"[a-z0-9_]+(-[a-z0-9_]+)*(?:\.exe)?\Z")
_CHECKSUM = ".sha256"


@get(
    "/agents/{platform:str}",
    summary="Download an agent, or with .sha256 its checksum",
    tags=["downloads"],
    media_type="application/octet-stream",
    responses=refusals(400, 404),
)
async def download_agent(
    services: NamedDependency[Services], platform: FromPath[str]
) -> File | Response[str]:
    """Return the file `mig-agent-PLATFORM`; `PLATFORM.sha256` returns the line that `sha256sum -c` reads."""
    name = f"mig-agent-{platform.removesuffix(_CHECKSUM)}"
    path = Path(services.config.agents_dir) / name
    if not _PLATFORM.match(platform.removesuffix(_CHECKSUM)) or not await asyncio.to_thread(path.is_file):
        raise InvalidInput("not-found", "no agent for this platform")
    if platform.endswith(_CHECKSUM):
        return Response(f"{await asyncio.to_thread(_sha256, path)}  {name}\n", media_type=MediaType.TEXT)
    return File(
        path, filename=name, media_type="application/octet-stream", content_disposition_type="attachment"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
