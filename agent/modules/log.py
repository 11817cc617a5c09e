r"""Count the lines of logs that match, and tell when the first and the last of them were written.

Looks into text logs below `paths`, also where gzip, xz, bzip2 or zstd packed them, and with `journal` into
systemd's journals, read directly: journalctl need not be there. A journal's file is known by its first bytes,
wherever it lies.

There is one record for each file, and of journals one for each unit (or, without a unit, for each identifier)
over all their files: `found` means that at least one line matched. `matches` are RE2 regular expressions,
found anywhere in a line; any one is enough, and what matches one with a leading `!` is left out. Without any,
all lines count. Answers are counts and times; the text of a line is never given. `fields` gives the values of
named groups, as in `(?P<user>\w+)`, or of a journal's fields, with their counts: only where the endpoint's
access rules say `fields = true` for this module.

A line says itself when it was written: ISO 8601, RFC 3164, RFC 5424, Apache's and nginx' forms, seconds since
1970, the kernel's audit, and JSON lines are known. A time without a zone is taken as the endpoint's own, a
year that is missing is told by the order of lines and the file's last change. With `since` or `until`, lines
that do not say their time are in `undated` and not in `count`; a line that begins with a blank belongs to the
one before it. Journal entries have the time at which they were received. A clock that was wrong, and whoever
may write to a log, can make any of it.

Files that could not be read or unpacked as a whole, damaged journals, and fields packed with what this
endpoint's Python cannot unpack (zstd needs Python 3.14) are in the notes. Statistics: `lines_seen`,
`files_seen`, `files_read`, `bytes_read`, `skipped` by reason, `errors`.
"""

import os
import time
from contextlib import closing
from typing import Annotated, Dict, Iterator, List, Optional, Tuple

from msgspec import Meta

from agent.module import Context, ModuleRecord
from agent.scan.budget import BudgetParams
from agent.scan.coverage import Coverage
from agent.scan.items import Match
from agent.scan.log_look import Findings, Reading, decode, encode, look_at_log, tally_of
from agent.scan.log_params import JournalField, Moment, Priority, require_moment, window_of
from agent.scan.log_question import OTHERS, Captures, LineFilter, Question, Tally
from agent.scan.patterns import require_pattern, split_inverse
from agent.scan.plan import make_plan
from agent.scan.run import Effort
from agent.scan.scan import scan, usable_workers
from agent.scan.search import Options, Regex, RootPath, Selection
from agent.scan.texts import path_base64, path_text, time_text
from agent.scan.throttle import Throttle

PATHS = ("paths",)
FIELDS = ("fields",)
PLATFORMS = ("linux", "darwin")
EXAMPLES = (
    "mig log --path /var/log/auth.log --match 'Failed password' --since 1d   how often, and since when",
    "mig log --path '/var/log/nginx/access.log*' --match ' 203\\.0\\.113\\.7 '   in rotated logs too",
    "mig log --journal --unit '^ssh' --match 'Accepted .* for root'   by unit, in the journal",
    "mig log --journal --priority 3 --since '<1h'   what failed within an hour, by unit",
    "mig log --journal --match 'Invalid user (?P<user>\\S+)' --field user   which names were tried",
)
_JOURNALS = ("/run/log/journal", "/var/log/journal")
_EFFORT = Effort(here_files=8, here_bytes=4 << 20)


class Params(BudgetParams, frozen=True, kw_only=True):
    """Where to look and what to count."""

    paths: Annotated[
        Tuple[RootPath, ...],
        Meta(
            description="files or directories with logs: absolute paths; may hold * ? [...] and **",
            max_length=1000,
        ),
    ] = ()
    names: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on the names of files below the paths; ! inverts",
            max_length=100,
        ),
    ] = ()
    journal: Annotated[
        bool, Meta(description="look into systemd's journals in /var/log/journal and /run/log/journal")
    ] = False
    matches: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions (RE2) on lines, or on a journal's messages, any of them;"
            " a leading ! leaves out",
            max_length=100,
        ),
    ] = ()
    since: Annotated[
        Optional[Moment],
        Meta(description="count what was written then or later: RFC 3339, or an age in s m h d, such as <1h"),
    ] = None
    until: Annotated[
        Optional[Moment],
        Meta(description="count what was written before: RFC 3339, or an age in s m h d, such as >1h"),
    ] = None
    units: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions on a journal's _SYSTEMD_UNIT, any of them; ! leaves out",
            max_length=100,
        ),
    ] = ()
    identifiers: Annotated[
        Tuple[Regex, ...],
        Meta(
            description="regular expressions on a journal's SYSLOG_IDENTIFIER, any of them; ! leaves out",
            max_length=100,
        ),
    ] = ()
    priority: Annotated[
        Optional[Priority],
        Meta(description="a journal's entries as urgent as that or more: 0 emerg, 3 err, 7 debug"),
    ] = None
    fields: Annotated[
        Tuple[JournalField, ...],
        Meta(
            description="named groups of matches, or fields of a journal, whose values to give with their"
            " counts; takes fields = true in the endpoint's access rules",
            max_length=16,
        ),
    ] = ()
    maxvalues: Annotated[
        int, Meta(description="give at most so many values of a field, the most frequent ones", ge=1, le=1000)
    ] = 100
    remotefs: Annotated[
        bool, Meta(description="also look into network, FUSE and automounted file systems")
    ] = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant; msgspec turns the ValueError into its own error."""
        if not (self.paths or self.journal):
            raise ValueError("name paths, or say journal")
        for name in ("names", "matches", "units", "identifiers"):
            for value in getattr(self, name):
                require_pattern(split_inverse(value)[0], name, on_lines=name != "names")
        for name in ("since", "until"):
            require_moment(getattr(self, name), name)


class Record(ModuleRecord, frozen=True, kw_only=True):
    """What matched in one file, or of one unit in the journals."""

    path: Annotated[
        Optional[str],
        Meta(description=r"path of the file; escaped with \xff for a byte where it is not UTF-8"),
    ] = None
    path_b64: Annotated[
        Optional[str], Meta(description="bytes of the path in base64, only where it is not UTF-8")
    ] = None
    unit: Annotated[Optional[str], Meta(description="unit of systemd whose entries these are")] = None
    identifier: Annotated[
        Optional[str], Meta(description="what a program without a unit calls itself, such as kernel")
    ] = None
    count: Annotated[int, Meta(description="number of matching lines or entries, within the window of time")]
    undated: Annotated[
        int, Meta(description="number of matching lines that do not say when they were written")
    ] = 0
    first: Annotated[Optional[str], Meta(description="time of the earliest one counted, RFC 3339 in UTC")] = (
        None
    )
    last: Annotated[Optional[str], Meta(description="time of the latest one counted, RFC 3339 in UTC")] = None
    form: Annotated[
        str,
        Meta(
            description="journal, or how the file writes times: iso, rfc3164, common, epoch, ctime, audit,"
            " json; empty where it does not"
        ),
    ] = ""
    fields: Annotated[
        Optional[Dict[str, Dict[str, int]]],
        Meta(description="number of matching lines by the value of each field that was asked for"),
    ] = None
    other_values: Annotated[
        Optional[Dict[str, int]],
        Meta(description="number of matching lines whose value is none of those given, by field"),
    ] = None


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each file with matching lines, then one for each unit of the journals.

    Raises:
        InvalidInput: `unsupported`, where there is no engine for regular expressions.

    """
    now_ns = time.time_ns()
    question = _question(params, now_ns)
    budget = params.budget(context)
    plan = make_plan(_selections(params, context), now_ns)
    coverage = Coverage(context.note, max_errors=plan.max_errors)
    reading = _Reader(context)
    throttle = Throttle(budget, usable_workers(budget) + 1, bytes_read=lambda: reading.bytes_read)
    reading.pulse = lambda: throttle.keep(reading.check)
    report = _Report(params, context, coverage)
    found = scan(
        plan,
        coverage=coverage,
        rules=context.paths,
        check=context.check,
        truncate=context.truncate,
        examine=lambda descriptor, status, _: encode(look_at_log(descriptor, status, question, reading)),
        budget=budget,
        effort=_EFFORT,
        progress=report.tell,
    )
    with closing(found):
        try:
            for match in found:
                yield from report.take(match)
            yield from report.units()
        finally:
            report.finish()


class _Reader(Reading):
    """Counts what this process reads; one that was forked of it is ended by others when the time is over."""

    def __init__(self, context: Context) -> None:
        super().__init__(lambda: None)
        self._check = context.check
        self._owner = os.getpid()

    def check(self) -> None:
        if os.getpid() == self._owner:
            self._check()


class _Report:
    """Puts together what was found in the files."""

    def __init__(self, params: Params, context: Context, coverage: Coverage) -> None:
        self._params = params
        self._context = context
        self._coverage = coverage
        self._lines = self._files = self._bytes = 0
        self._units: Dict[Tuple[Optional[str], Optional[str]], Tally] = {}

    def take(self, match: Match) -> Iterator[Record]:
        """Take a file: yield its record, where it is a text that has something."""
        if not match.examined:
            # Why it could not be opened is said by the coverage.
            return
        findings = decode(match.examined)
        if findings.skipped:
            self._coverage.skip(findings.skipped)
            return
        self._files += 1
        self._lines += findings.lines
        self._bytes += findings.bytes
        for problem in findings.problems:
            self._coverage.lose(match.path, problem)
        if findings.form == "journal":
            self._merge(findings)
        else:
            for group in findings.groups:
                yield self._record(tally_of(group), findings.form, path=match.path)

    def _merge(self, findings: Findings) -> None:
        for group in findings.groups:
            key = (group.unit, group.identifier)
            self._units.setdefault(key, Tally(self._params.fields)).merge(tally_of(group))

    def units(self) -> Iterator[Record]:
        """Yield the records of the journals."""
        for (unit, identifier), tally in sorted(
            self._units.items(), key=lambda item: [part or "" for part in item[0]]
        ):
            yield self._record(tally, "journal", unit=unit, identifier=identifier)

    def _record(
        self,
        tally: Tally,
        form: str,
        *,
        path: Optional[bytes] = None,
        unit: Optional[str] = None,
        identifier: Optional[str] = None,
    ) -> Record:
        is_counted = self._params.since is None and self._params.until is None
        fields, others = _told_values(self._params, tally)
        return Record(
            path=None if path is None else path_text(path),
            path_b64=None if path is None else path_base64(path),
            unit=unit,
            identifier=identifier,
            count=tally.count + (tally.undated if is_counted else 0),
            undated=tally.undated,
            first=None if tally.first_ns is None else time_text(tally.first_ns),
            last=None if tally.last_ns is None else time_text(tally.last_ns),
            form=form,
            fields=fields or None,
            other_values=others or None,
        )

    def tell(self) -> None:
        """Have the counts told while the scan goes on."""
        self._count()
        self._context.progress()

    def finish(self) -> None:
        """Put the counts into the statistics."""
        self._count()

    def _count(self) -> None:
        counted = {"lines_seen": self._lines, "files_read": self._files, "bytes_read": self._bytes}
        self._context.statistics.update({**self._coverage.statistics(), **counted})


def _told_values(params: Params, tally: Tally) -> Tuple[Dict[str, Dict[str, int]], Dict[str, int]]:
    fields: Dict[str, Dict[str, int]] = {}
    others: Dict[str, int] = {}
    for name, counter in zip(params.fields, tally.values):
        left = counter.pop(OTHERS, 0)
        ranked = sorted(
            ((value, times) for value, times in counter.items() if value is not None),
            key=lambda item: (-item[1], item[0]),
        )
        fields[name] = dict(ranked[: params.maxvalues])
        left += sum(times for _, times in ranked[params.maxvalues :])
        if left:
            others[name] = left
    return fields, others


def _question(params: Params, now_ns: int) -> Question:
    return Question(
        messages=LineFilter(params.matches),
        window=window_of(params.since, params.until, now_ns),
        units=LineFilter(params.units),
        identifiers=LineFilter(params.identifiers),
        max_priority=params.priority,
        fields=params.fields,
        captures=Captures(params.matches if params.fields else ()),
    )


def _selections(params: Params, context: Context) -> Dict[str, Selection]:
    chosen: Dict[str, Selection] = {}
    options = Options(matchall=True, remotefs=params.remotefs)
    if params.paths:
        chosen["logs"] = Selection(paths=params.paths, names=params.names, options=options)
    if params.journal:
        there: List[str] = [path for path in _JOURNALS if os.path.isdir(path)]  # noqa: PTH112  (bytes later)
        if there:
            chosen["journals"] = Selection(paths=tuple(there), names=(r"\.journal~?$",), options=options)
        else:
            context.note(f"there is no journal: neither {' nor '.join(_JOURNALS)} is there")
    return chosen
