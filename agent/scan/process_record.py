"""How records name a process and a mapping of its memory: alike in every module that tells of them."""

from typing import Annotated, Optional

from msgspec import Meta

from agent.module import ModuleRecord
from agent.scan.texts import path_text


class ProcessRecord(ModuleRecord, frozen=True, kw_only=True):
    """What tells which process a record is about."""

    pid: Annotated[int, Meta(description="number of the process")]
    process: Annotated[
        str,
        Meta(
            description=r"what it calls itself, 15 bytes at most; where it is not UTF-8, escaped with \xff"
            r" for a byte and \\ for a backslash"
        ),
    ]
    executable: Annotated[
        Optional[str],
        Meta(description="path of its program, escaped as process is; none of threads of the kernel"),
    ] = None
    executable_b64: Annotated[
        Optional[str], Meta(description="bytes of that path in base64, only where it is not UTF-8")
    ] = None
    deleted: Annotated[
        bool, Meta(description="whether the program's file was deleted or replaced since it began")
    ] = False


class RegionRecord(ModuleRecord, frozen=True, kw_only=True):
    """A mapping in the memory of a process."""

    address: Annotated[str, Meta(description="where it begins, in hexadecimal")]
    size_bytes: Annotated[int, Meta(description="its size in bytes")]
    permissions: Annotated[str, Meta(description="read, write, execute, and p for private, such as r-xp")]
    path: Annotated[
        Optional[str], Meta(description="the file that is mapped, or a name of the kernel's such as [heap]")
    ] = None


def region_record(start: int, end: int, permissions: str, path: bytes) -> RegionRecord:
    """Return the record of a mapping."""
    return RegionRecord(
        address=f"{start:#x}",
        size_bytes=end - start,
        permissions=permissions,
        path=path_text(path) if path else None,
    )
