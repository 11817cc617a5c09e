"""The cases of the module pkg: this system's packages listed, and some of them verified, as dpkg does."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from cases import Case, Figure, Made, Measured, Tool

# dpkg is compiled, and its databases are its own.
MOST_TIMES = 5.0
_VERIFIED = ("coreutils", "dpkg", "libc6", "perl-base", "util-linux")


def _case(title: str, params: dict[str, Any], command: str) -> Case:
    @contextmanager
    def make(_directory: Path) -> Iterator[Made]:
        yield Made(params, {"dpkg": Tool(command, "dpkg")})

    def figure(measured: Measured) -> Figure:
        cpu = measured.statistics["cpu_s"]
        seen = measured.statistics.get("files_seen") or measured.statistics["packages_seen"]
        times = cpu / measured.tools["dpkg"].cpu_s if "dpkg" in measured.tools else 0.0
        return Figure(
            f"{cpu:.3f} s of processor time over {seen}, {times:.2f} times dpkg", is_met=times <= MOST_TIMES
        )

    made: Callable[[Path], AbstractContextManager[Made]] = make
    return Case(title, "pkg", f"≤ {MOST_TIMES} times dpkg's processor time", made, figure)


CASES = {
    "pkg-list": _case("all packages of dpkg", {"types": ["dpkg"]}, "dpkg-query -W"),
    "pkg-verify": _case(
        "the files of five packages against their digests",
        {"names": [f"^{name}$" for name in _VERIFIED], "types": ["dpkg"], "verify": True},
        f"dpkg --verify {' '.join(_VERIFIED)}",
    ),
}
