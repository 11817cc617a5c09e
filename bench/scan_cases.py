"""What `bench/scan.py` measures: searches, what an investigator would type instead, and the goals.

A digest is searched for as an indicator is: everything is hashed, one file is found. The shell commands are
given the same set of files, also where links to files are followed.
"""

import shlex
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from measure import Sample

Search = dict[str, Any]
NOTHING = "0" * 64
# MIG at its last commit, one core: what its regular expressions do with one that begins with a class.
ANCESTOR_BYTES_PER_S = 49e6


class Tool(NamedTuple):
    """A shell command to compare with, and the program that it needs."""

    command: str
    needs: str


class Times(NamedTuple):
    """Medians of one way of running our searches, and of the tools; `total_bytes` is of what is searched."""

    ours: Mapping[str, Sample]
    tools: Mapping[str, Sample]
    total_bytes: int
    openssl_bytes_per_s: float


class Goal(NamedTuple):
    """A figure and its bound. `figure` raises KeyError where what it needs was left out."""

    text: str
    bound: float
    figure: Callable[[Times], float]
    is_least: bool = False
    unit: str = " x"

    def is_met(self, figure: float) -> bool:
        """Tell whether a figure reaches the bound."""
        return figure >= self.bound if self.is_least else figure <= self.bound


class Case(NamedTuple):
    """Searches by name, of which the first is told; tools; goals. `counts` is a tool that finds the same."""

    title: str
    corpora: tuple[str, ...]
    searches: Mapping[str, dict[str, Search]]
    tools: Mapping[str, Tool]
    goals: tuple[Goal, ...]
    counts: str = ""


def _faster(tool: str, bound: float) -> Goal:
    """Be at least so many times as fast as a tool."""
    return Goal(
        f"≥ {bound:g} x as fast as {tool}", bound, lambda t: _wall(t.tools[tool]) / _first(t), is_least=True
    )


def _slower(tool: str, bound: float) -> Goal:
    """Take at most so many times a tool's time."""
    return Goal(f"≤ {bound:g} x the time of {tool}", bound, lambda t: _first(t) / _wall(t.tools[tool]))


def _first(times: Times) -> float:
    return _wall(next(iter(times.ours.values())))


def _wall(sample: Sample) -> float:
    return sample.wall_s


def _one(*paths: str, matchall: bool = True, **search: Any) -> dict[str, Search]:
    return {"s1": {"paths": list(paths), **search, "options": {"matchall": matchall}}}


def _hashers(path: str, batch: int = 256) -> dict[str, Tool]:
    files = f"find {path} -xtype f -print0 | xargs -0 -P2 -n {batch}"
    return {
        "openssl -P2": Tool(f"{files} openssl sha256 -r", "openssl"),
        "sha256sum -P2": Tool(f"{files} sha256sum", "sha256sum"),
        "hashdeep -j2": Tool(f"hashdeep -j2 -r -c sha256 {path}", "hashdeep"),
    }


def _rg(path: str, *patterns: str) -> Tool:
    words = " ".join(f"-e {shlex.quote(pattern)}" for pattern in patterns)
    return Tool(f"rg -uuu -a -l --no-messages -j2 {words} {path}", "rg")


def hashing(many: str, large: str) -> dict[str, Case]:
    """Return the cases that read everything."""
    digests = {"md5": ["0" * 32], "sha1": ["0" * 40], "sha256": [NOTHING]}
    on_usr = {name: tool for name, tool in _hashers("/usr").items() if name != "hashdeep -j2"}
    on_large = {name: tool for name, tool in _hashers(large, batch=1).items() if name == "openssl -P2"}
    return {
        "sha256-many": Case(
            "sha256, 200,000 small files",
            ("many",),
            {"sha256": _one(many, sha256=[NOTHING])},
            _hashers(many),
            (_faster("openssl -P2", 1.4), _faster("sha256sum -P2", 2.5), _faster("hashdeep -j2", 5)),
        ),
        "sha256-usr": Case(
            "sha256, /usr",
            (),
            {"sha256": _one("/usr", sha256=[NOTHING])},
            on_usr,
            (_faster("openssl -P2", 1.0),),
        ),
        "sha256-large": Case(
            "sha256, 4 x 1 GiB",
            ("large",),
            {"sha256": _one(large, sha256=[NOTHING])},
            on_large,
            (
                Goal(
                    "≥ 88 % of openssl speed on all cores",
                    88,
                    lambda t: 100 * t.total_bytes / _first(t) / t.openssl_bytes_per_s,
                    is_least=True,
                    unit=" %",
                ),
                _faster("openssl -P2", 1.0),
            ),
        ),
        "three-hashes": Case(
            "md5 + sha1 + sha256 in one go, small files",
            ("many",),
            {"three": _one(many, matchall=False, **digests), "sha256": _one(many, sha256=[NOTHING])},
            {},
            (
                Goal(
                    "≤ 1.9 x sha256 alone",
                    1.9,
                    lambda t: _wall(t.ours["three"]) / _wall(t.ours["sha256"]),
                ),
            ),
        ),
    }


def finding(many: str) -> dict[str, Case]:
    """Return the cases that read nothing."""
    few, headers = r"^00.*\.sql$", r"\.h$"
    find = f"find {many} -type f"
    return {
        "name-many": Case(
            "name, small files",
            ("many",),
            {"few": _one(many, names=[few]), "headers": _one(many, names=[headers])},
            {"find": Tool(rf"{find} -regex '.*/00[^/]*\.sql'", "find")},
            (
                _slower("find", 1.3),
                Goal("≤ 10 µs for each further match", 10, _cost_of_a_match, unit=" µs"),
            ),
            counts="find",
        ),
        "name-usr": Case(
            "name, /usr",
            (),
            {"name": _one("/usr", names=[r"^libcrypto.*\.so"])},
            {"find": Tool(r"find /usr -regex '.*/libcrypto[^/]*\.so[^/]*' -xtype f", "find")},
            (_slower("find", 1.3),),
            counts="find",
        ),
        "size": Case(
            "size, small files",
            ("many",),
            {"size": _one(many, sizes=[">12k"])},
            {"find": Tool(f"{find} -size +12287c", "find")},
            (_slower("find", 1.0),),
            counts="find",
        ),
        "mode": Case(
            "mode, small files",
            ("many",),
            {"mode": _one(many, modes=["^u"])},
            {"find": Tool(f"{find} -perm -4000", "find")},
            (_slower("find", 1.0),),
            counts="find",
        ),
        "mtime": Case(
            "mtime, small files",
            ("many",),
            {"mtime": _one(many, mtimes=["<60d"])},
            {"find": Tool(f"{find} -newermt '60 days ago'", "find")},
            (_slower("find", 1.0),),
            counts="find",
        ),
    }


def _cost_of_a_match(times: Times) -> float:
    few, headers = times.ours["few"], times.ours["headers"]
    if headers.lines == few.lines:
        raise KeyError("lines")  # the agent prints one answer, which its limits would cut
    return 1e6 * (headers.wall_s - few.wall_s) / (headers.lines - few.lines)


def matching(many: str, text: str) -> dict[str, Case]:
    """Return the cases on content."""
    by_class = "[a-z]+-needle-[0-9]+ Accepted"
    fifty = [by_class, *(f"[a-z]+_evil{number:02d}[0-9]+ port" for number in range(49))]
    return {
        "content-many": Case(
            "content, one literal, small files",
            ("many",),
            {"literal": _one(many, contents=["migbench-needle"])},
            {"rg -j2": _rg(many, "migbench-needle")},
            (_slower("rg -j2", 1.3),),
            counts="rg -j2",
        ),
        "content-class": Case(
            "content, class first, 1 GiB of log lines",
            ("text",),
            {"class": _one(text, contents=[by_class])},
            {"rg -j2": _rg(text, by_class)},
            (
                Goal(
                    "≥ 10 x the ancestor's 49 MB/s per core-second",
                    10,
                    lambda t: t.total_bytes / t.ours["class"].cpu_s / ANCESTOR_BYTES_PER_S,
                    is_least=True,
                ),
            ),
            counts="rg -j2",
        ),
        "content-fifty": Case(
            "50 patterns, 1 GiB of log lines",
            ("text",),
            {"fifty": _one(text, matchall=False, contents=fifty), "class": _one(text, contents=[by_class])},
            {"rg -j2": _rg(text, *fifty)},
            (
                Goal(
                    "≤ 1.5 x one class-first pattern",
                    1.5,
                    lambda t: _wall(t.ours["fifty"]) / _wall(t.ours["class"]),
                ),
            ),
            counts="rg -j2",
        ),
    }


def together(many: str) -> dict[str, Case]:
    """Return the case of ten searches of different kinds over the same files, and of each by itself."""
    names: list[Search] = [
        {"names": [expression]} for expression in (r"\.php$", r"^1.*\.key$", r"^00.*\.sql$")
    ]
    sizes: list[Search] = [{"sizes": [">15k"]}, {"sizes": ["0"]}]
    contents: list[Search] = [{"contents": ["migbench-needle"]}, {"contents": ["[a-z]+-needle-1[0-9]+"]}]
    digests: list[Search] = [{"sha256": [NOTHING]}, {"sha256": ["1" * 64]}, {"md5": ["0" * 32]}]
    ten = {
        f"s{number}": _one(many, **search)["s1"]
        for number, search in enumerate([*names, *sizes, *contents, *digests])
    }
    return {
        "mixed": Case(
            "10 mixed searches together",
            ("many",),
            {"together": ten, **{label: {label: search} for label, search in ten.items()}},
            {},
            (Goal("≥ 2 x as fast as one after the other", 2, _gain, is_least=True),),
        )
    }


def _gain(times: Times) -> float:
    return sum(times.ours[label].wall_s for label in times.ours if label != "together") / _first(times)


def all_cases(many: str, large: str, text: str) -> dict[str, Case]:
    """Return every case that compares times."""
    return {**hashing(many, large), **finding(many), **matching(many, text), **together(many)}
