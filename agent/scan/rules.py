"""YARA rules by yara-x: compiled once, applied to bytes; what they say is bounded and never holds content.

Rules:

1. Nothing reaches out: no includes, and of yara-x's modules only those that look at the bytes given.
   `console` would write where nobody reads, `cuckoo` and `vt` wait for what somebody else has to provide.
2. Rules are compiled in a process that may die, within a time: an expression can be made that takes minutes
   or all memory. What comes back from there is compiled code, which is loaded far faster than it is made.
3. A scanner belongs to one process: yara-x counts time in a thread that it starts at the first scan, and a
   process that is forked afterwards has no such thread, so that nothing would ever time out there.
4. yara-x is optional. This file imports without it, and says `unsupported` where it is needed.

Source: https://virustotal.github.io/yara-x/docs/api/python/
"""

import io
import re
from contextlib import closing
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple, Union

import msgspec

from agent.scan.helper import Helper, HelperLost
from agent.scan.texts import path_text
from protocol.errors import InvalidInput

Variable = Union[bool, int, float, str]
Meta = Union[bool, int, float, str]

MODULES = ("crx", "dex", "dotnet", "elf", "hash", "lnk", "macho", "math", "pe", "string", "time", "zip")
COMPILE_S = 30.0
# Of one file or process, what is told in all: rules that match everywhere must not fill the answer.
MAX_RULES = 100
MAX_PATTERNS = 500
MAX_MATCHES = 1000
MATCHES_PER_PATTERN = 20
# As many are counted of one pattern in one scan; a count that high means "at least".
COUNTED_PER_PATTERN = 1000
_TOLD_ERRORS = 5
_TOLD_META = 32
_META_CHARACTERS = 256
# What rules written for other scanners expect to be given for each file.
FILE_VARIABLES = ("filename", "filepath", "extension")


class PatternHit(msgspec.Struct, array_like=True, frozen=True):
    """A pattern of a rule that matched: how often, and where at first (offset, length)."""

    identifier: str
    count: int
    matches: Tuple[Tuple[int, int], ...]


class RuleHit(msgspec.Struct, array_like=True, frozen=True):
    """A rule that matched, by the label of its source and its name."""

    source: str
    rule: str
    patterns: Tuple[PatternHit, ...]


class RuleFacts(msgspec.Struct, array_like=True, frozen=True):
    """What a rule says of itself."""

    tags: Tuple[str, ...]
    meta: Dict[str, Meta]


class _Compiled(msgspec.Struct, array_like=True, frozen=True):
    """What comes back from compiling: code, or what is wrong, and what was noticed."""

    code: bytes
    errors: Tuple[str, ...]
    warnings: Tuple[str, ...]


class ScanTimedOut(Exception):
    """The rules took longer than allowed."""


class ScanFailed(Exception):
    """The engine could not scan; the text says why."""


class RuleSet(NamedTuple):
    """Compiled rules: yara-x's object, what each says of itself, and which variables to set for each file."""

    rules: Any
    facts: Mapping[Tuple[str, str], RuleFacts]
    file_variables: Tuple[str, ...]
    warnings: Tuple[str, ...]


def load_engine() -> Optional[Any]:
    """Return the module yara_x, or None in a build without it."""
    try:
        import yara_x  # noqa: PLC0415  (an optional part of a build)
    except ImportError:
        return None
    return yara_x


def require_engine() -> Any:
    """Return the module yara_x.

    Raises:
        InvalidInput: `unsupported`.

    """
    engine = load_engine()
    if engine is None:
        raise InvalidInput("unsupported", "yara-x is not part of this build (build_zipapp.py --with yara)")
    return engine


def compile_rules(
    sources: Mapping[str, str],
    variables: Mapping[str, Variable],
    *,
    check: Callable[[], None] = lambda: None,
    compile_s: float = COMPILE_S,
) -> RuleSet:
    """Compile rules, in a process that may die.

    Args:
        sources: text of rules by a label, which becomes their namespace.
        variables: what rules may use, by name.
        check: called while waiting; may raise.
        compile_s: how long it may take, in seconds.

    Raises:
        InvalidInput: `unsupported` without yara-x; `bad-parameters` with the place in the rules.

    """
    engine = require_engine()

    def serve(_request: bytes, _descriptor: Optional[int], _say: Callable[[], None]) -> bytes:
        return msgspec.msgpack.encode(_compile(engine, sources, variables))

    with closing(Helper(serve, silence_s=compile_s, check=check)) as helper:
        try:
            compiled = msgspec.msgpack.decode(helper.ask(b"rules"), type=_Compiled)
        except HelperLost as lost:
            said = f"they take longer than {compile_s:g} s" if lost.is_silent else str(lost)
            raise InvalidInput("bad-parameters", f"the rules cannot be compiled: {said}") from None
    if compiled.errors:
        raise InvalidInput("bad-parameters", "; ".join(compiled.errors))
    rules = engine.Rules.deserialize_from(io.BytesIO(compiled.code))
    facts = {(rule.namespace, rule.identifier): _facts(rule) for rule in rules}
    return RuleSet(rules, facts, _file_variables(sources, variables), compiled.warnings)


def _compile(engine: Any, sources: Mapping[str, str], variables: Mapping[str, Variable]) -> _Compiled:
    compiler = engine.Compiler(includes_enabled=False)
    for name in _file_variables(sources, variables):
        compiler.define_global(name, "")
    errors: List[str] = []
    try:
        for name, value in variables.items():
            compiler.define_global(name, value)
        for label, text in sources.items():
            compiler.new_namespace(label)
            compiler.add_source(text, origin=label)
    except engine.CompileError:
        errors.extend(map(_place, compiler.errors()))
    except ValueError as error:
        errors.append(f"a variable cannot be used: {error}")
    warnings = tuple(map(_place, compiler.warnings()))[:_TOLD_ERRORS]
    if errors:
        return _Compiled(b"", tuple(errors[:_TOLD_ERRORS]), warnings)
    rules = compiler.build()
    refused = [name for name in rules.imports() if name not in MODULES]
    if refused:
        said = f"module {refused[0]!r} is not allowed: it is none of {', '.join(MODULES)}"
        return _Compiled(b"", (f"{_import_place(sources, refused[0])}{said}",), warnings)
    code = io.BytesIO()
    rules.serialize_into(code)
    return _Compiled(code.getvalue(), (), warnings)


def _place(report: Mapping[str, Any]) -> str:
    """Write what the compiler says of a rule on one line, with its place."""
    labels = report.get("labels") or [{}]
    where = f"rules {labels[0].get('code_origin')}, line {report.get('line')}, column {report.get('column')}"
    said = labels[0].get("text")
    return f"{where}: {report.get('title')}" + (f" ({said})" if said else "")


def _import_place(sources: Mapping[str, str], module: str) -> str:
    for label, text in sources.items():
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(rf'\bimport\s*"{re.escape(module)}"', line):
                return f"rules {label}, line {number}: "
    return ""


def _file_variables(sources: Mapping[str, str], variables: Mapping[str, Variable]) -> Tuple[str, ...]:
    """Return those variables about the file that some rule may use and that are not given another meaning."""
    return tuple(
        name
        for name in FILE_VARIABLES
        if name not in variables and any(re.search(rf"\b{name}\b", text) for text in sources.values())
    )


def _facts(rule: Any) -> RuleFacts:
    meta: Dict[str, Meta] = {}
    for name, value in rule.metadata[:_TOLD_META]:
        text = path_text(value) if isinstance(value, bytes) else value
        meta[name] = text[:_META_CHARACTERS] if isinstance(text, str) else text
    return RuleFacts(tuple(rule.tags), meta)


class RuleScanner:
    """Applies rules to bytes; for one process, see rule 3 of this file.

    Args:
        rules: compiled.
        timeout_s: whole seconds that one scan may take.

    """

    def __init__(self, rules: RuleSet, *, timeout_s: int) -> None:
        engine = require_engine()
        self._timed_out = engine.TimeoutError
        self._failed = engine.ScanError
        self._scanner = engine.Scanner(rules.rules)
        self._scanner.set_timeout(timeout_s)
        self._scanner.max_matches_per_pattern(COUNTED_PER_PATTERN)
        self._file_variables = rules.file_variables

    def name_file(self, path: bytes) -> None:
        """Tell the rules which file the bytes to come are of."""
        name = path.rpartition(b"/")[2]
        values = {
            "filepath": path_text(path),
            "filename": path_text(name),
            # With its dot, as the scanners have it that such rules were written for.
            "extension": path_text(b"." + name.rpartition(b".")[2]) if b"." in name else "",
        }
        for variable in self._file_variables:
            self._scanner.set_global(variable, values[variable])

    def scan(self, data: bytes) -> List[RuleHit]:
        """Return the rules that match, all of them; offsets count from the start of `data`.

        Raises:
            ScanTimedOut: it took longer than allowed.
            ScanFailed: the engine gave up for another reason.

        """
        try:
            matching = self._scanner.scan(data).matching_rules
        except self._timed_out:
            raise ScanTimedOut from None
        except self._failed as error:
            raise ScanFailed(str(error)) from None
        return [RuleHit(rule.namespace, rule.identifier, _pattern_hits(rule)) for rule in matching]


def _pattern_hits(rule: Any) -> Tuple[PatternHit, ...]:
    hits = []
    for pattern in rule.patterns:
        found = pattern.matches
        if found:
            places = tuple((match.offset, match.length) for match in found)
            hits.append(PatternHit(pattern.identifier, len(places), places))
    return tuple(hits)


def bound_hits(hits: Iterable[RuleHit]) -> Tuple[Tuple[RuleHit, ...], bool]:
    """Return as much of what matched as is told of one file or process, and whether that is less than all."""
    rules: List[RuleHit] = []
    patterns, matches, is_cut = MAX_PATTERNS, MAX_MATCHES, False
    for hit in hits:
        if len(rules) == MAX_RULES:
            return tuple(rules), True
        told = []
        for pattern in hit.patterns[:patterns]:
            places = pattern.matches[: min(MATCHES_PER_PATTERN, matches)]
            matches -= len(places)
            told.append(PatternHit(pattern.identifier, pattern.count, places))
        is_cut = is_cut or len(told) < len(hit.patterns)
        patterns -= len(told)
        rules.append(RuleHit(hit.source, hit.rule, tuple(told)))
    return tuple(rules), is_cut
