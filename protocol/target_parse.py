"""Parsing targets: hostile text in, a tree or a refusal out.

Grammar, keywords and column names without regard to case; docs/targets.md has it for people:

    or        = and { OR and }
    and       = factor { AND factor }
    factor    = NOT factor | "(" or ")" | condition
    condition = TRUE
              | "heartbeattime" comparison NOW ( ) [ - INTERVAL 'number unit' ]
              | field ( comparison | [NOT] LIKE | [NOT] ILIKE | ~ | ~* | !~ | !~* ) string
              | field [NOT] IN ( string { , string } )
              | field IS [NOT] NULL
    field     = [ agents . ] ( column | tags ->> string | environment ->> string )

Limits, each so that the worst target that still parses is cheap to match and to print, and fits what
databases take: see the constants. Every refusal names the character, counted from 1.
"""

import re
from typing import List, NamedTuple, NoReturn, Optional, Tuple

from protocol.action import MAX_TARGET
from protocol.errors import InvalidInput
from protocol.target_like import parse_like
from protocol.target_match import compile_regex
from protocol.target_tree import (
    INTERVAL_UNITS,
    MAP_COLUMNS,
    TEXT_COLUMNS,
    Always,
    And,
    Compare,
    Field,
    IsNull,
    Leaf,
    Like,
    Node,
    Not,
    OneOf,
    Or,
    Regex,
    Seen,
    is_platform_only,
    print_node,
)
from protocol.target_upgrade import ANCESTRAL_COLUMNS, upgrade_leaf

MAX_DEPTH = 32  # parentheses and NOT; each costs four frames here
MAX_TERMS = 512  # SQLite takes expressions 1,000 deep, and a chain of ORs is as deep as it is long
MAX_IDS = 500  # explicit ids in one action (design: who commands more says whom by a condition)
MAX_PATTERN = 1024  # characters of one LIKE pattern or regular expression
MAX_REGEXES = 64  # each may take target_match.REGEX_MEMORY_BYTES
MAX_INTERVAL_S = 10 * 366 * 86400

_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SYMBOL = re.compile(r"->>|!~\*|!~|!=|~\*|~|<>|<=|>=|[=<>(),.\-]")
_INTERVAL = re.compile(r" *([0-9]{1,9}) +(second|minute|hour|day|week)s? *\Z", re.IGNORECASE)
_COMPARISONS = {"=": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


class _Token(NamedTuple):
    kind: str  # word (in lower case), string (its value), symbol, end
    text: str
    at: int  # offset of its first character


def parse_node(text: str, *, ancestral: bool = False) -> Node:
    """Parse the text of a target; with `ancestral`, the ancestor's spellings are rewritten.

    Raises:
        InvalidInput: `bad-target`, with the character.

    """
    _require_sound_text(text)
    tree = _Parser(_read_tokens(text), ancestral=ancestral).parse()
    if len(print_node(tree)) > MAX_TARGET:  # what is shown and signed again must parse again
        _refuse(f"longer than {MAX_TARGET} characters when written out", len(text))
    return tree


def _refuse(problem: str, at: int) -> NoReturn:
    raise InvalidInput("bad-target", f"{problem}, at character {at + 1}")


def _require_sound_text(text: str) -> None:
    if len(text) > MAX_TARGET:
        _refuse(f"longer than {MAX_TARGET} characters", MAX_TARGET)
    if "\0" in text:  # no database takes it
        _refuse("a NUL character", text.index("\0"))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        _refuse("a character that is not Unicode", error.start)


def _read_tokens(text: str) -> List[_Token]:
    tokens = []
    at = 0
    while True:
        space = _SPACE.match(text, at)
        at = space.end() if space else at
        if at == len(text):
            tokens.append(_Token("end", "", at))
            return tokens
        if text[at] == "'":
            value, end = _read_string(text, at)
            tokens.append(_Token("string", value, at))
        else:
            token = _read_word_or_symbol(text, at)
            end = at + len(token.text)
            tokens.append(token)
        at = end


def _read_word_or_symbol(text: str, at: int) -> _Token:
    word = _WORD.match(text, at)
    if word:
        return _Token("word", word.group().lower(), at)
    symbol = _SYMBOL.match(text, at)
    if symbol:
        return _Token("symbol", symbol.group(), at)
    if text[at] == '"':
        _refuse("text stands in single quotes, and names without any", at)
    return _refuse(f"{text[at]!r} is not part of the language", at)


def _read_string(text: str, start: int) -> Tuple[str, int]:
    """Return the value of the quoted string at `start` and the offset behind it."""
    end = start + 1
    while True:
        end = text.find("'", end)
        if end < 0:
            _refuse("a quoted string without an end", start)
        if not text.startswith("''", end):
            return text[start + 1 : end].replace("''", "'"), end + 1
        end += 2


class _Parser:
    def __init__(self, tokens: List[_Token], *, ancestral: bool) -> None:
        self._tokens = tokens
        self._next = 0
        self._columns = TEXT_COLUMNS + (ANCESTRAL_COLUMNS if ancestral else ())
        self._is_ancestral = ancestral
        self._terms = 0
        self._ids = 0
        self._regexes = 0
        self._platform_terms: List[Tuple[Leaf, int]] = []

    def parse(self) -> Node:
        tree = self._or(0)
        if self._peek().kind != "end":
            self._refuse_next("AND, OR or the end is expected")
        top = tree.terms if isinstance(tree, And) else (tree,)
        for leaf, at in self._platform_terms:
            if not any(term is leaf for term in top):
                problem = "only the platform knows status and heartbeattime: not allowed under OR or NOT"
                _refuse(problem, at)
        return tree

    # Tokens

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _accept(self, kind: str, *texts: str) -> Optional[_Token]:
        token = self._peek()
        if token.kind == kind and token.text in texts:
            return self._take()
        return None

    def _expect(self, kind: str, text: str) -> None:
        if not self._accept(kind, text):
            self._refuse_next(f"{text.upper()} is expected")

    def _expect_string(self, what: str) -> _Token:
        if self._peek().kind != "string":
            self._refuse_next(f"{what} in single quotes is expected")
        return self._take()

    def _refuse_next(self, problem: str) -> NoReturn:
        token = self._peek()
        found = "the end" if token.kind == "end" else repr(token.text[:40])
        _refuse(f"{problem}, not {found}", token.at)

    # Structure

    def _or(self, depth: int) -> Node:
        terms: List[Node] = []
        while True:
            term = self._and(depth)
            terms.extend(term.terms if isinstance(term, Or) else (term,))
            if not self._accept("word", "or"):
                return terms[0] if len(terms) == 1 else Or(terms=tuple(terms))

    def _and(self, depth: int) -> Node:
        terms: List[Node] = []
        while True:
            term = self._factor(depth)
            terms.extend(term.terms if isinstance(term, And) else (term,))
            if not self._accept("word", "and"):
                return terms[0] if len(terms) == 1 else And(terms=tuple(terms))

    def _factor(self, depth: int) -> Node:
        opening = self._accept("word", "not") or self._accept("symbol", "(")
        if not opening:
            return self._condition()
        if depth == MAX_DEPTH:
            _refuse(f"nested deeper than {MAX_DEPTH}", opening.at)
        if opening.text == "not":
            return Not(term=self._factor(depth + 1))
        inner = self._or(depth + 1)
        self._expect("symbol", ")")
        return inner

    # Conditions

    def _condition(self) -> Node:
        start = self._peek().at
        self._terms += 1
        if self._terms > MAX_TERMS:
            _refuse(f"more than {MAX_TERMS} terms", start)
        if self._accept("word", "true"):
            return Always()
        leaf = self._on_field(self._field())
        if is_platform_only(leaf):
            self._platform_terms.append((leaf, start))
        if self._is_ancestral:
            try:
                return upgrade_leaf(leaf)
            except ValueError as error:
                _refuse(str(error), start)
        return leaf

    def _field(self) -> Field:
        if self._accept("word", "agents"):
            self._expect("symbol", ".")
        token = self._peek()
        if token.kind == "word" and token.text in MAP_COLUMNS:
            self._take()
            if not self._accept("symbol", "->>"):
                self._refuse_next(f"{token.text}->>'key' is expected")
            return Field(column=token.text, key=self._expect_string("a key").text)
        if token.kind == "word" and (token.text in self._columns or token.text == "heartbeattime"):
            return Field(column=self._take().text)
        return self._refuse_next(
            f"one of {' '.join(self._columns)} heartbeattime tags environment is expected"
        )

    def _on_field(self, field: Field) -> Leaf:
        if self._accept("word", "is"):
            negated = self._accept("word", "not") is not None
            self._expect("word", "null")
            return IsNull(field=field, negated=negated)
        token = self._peek()
        if token.kind == "symbol" and token.text in _COMPARISONS:
            operator = _COMPARISONS[self._take().text]
            if field.column == "heartbeattime":
                return Seen(operator=operator, age_s=self._age())
            value = self._expect_string("text").text
            self._count_ids(field, 1, token.at)
            return Compare(field=field, operator=operator, value=value)
        if field.column == "heartbeattime":
            self._refuse_next("a comparison with NOW() is expected")
        return self._on_text(field)

    def _on_text(self, field: Field) -> Leaf:
        symbol = self._accept("symbol", "~", "~*", "!~", "!~*")
        if symbol:
            return self._regex(field, symbol.text)
        negated = self._accept("word", "not") is not None
        word = self._accept("word", "like", "ilike", "in")
        if not word:
            self._refuse_next("LIKE, ILIKE or IN is expected" if negated else "a comparison is expected")
        if word.text == "in":
            values = self._values()
            self._count_ids(field, len(values), word.at)
            return OneOf(field=field, values=values, negated=negated)
        pattern = self._pattern()
        try:
            parse_like(pattern.text)
        except ValueError as error:
            _refuse(str(error), pattern.at)
        return Like(field=field, pattern=pattern.text, ignore_case=word.text == "ilike", negated=negated)

    def _regex(self, field: Field, symbol: str) -> Regex:
        pattern = self._pattern()
        self._regexes += 1
        if self._regexes > MAX_REGEXES:
            _refuse(f"more than {MAX_REGEXES} regular expressions", pattern.at)
        ignore_case = symbol.endswith("*")
        try:
            compile_regex(pattern.text, ignore_case=ignore_case)
        except ValueError as error:
            _refuse(str(error), pattern.at)
        return Regex(
            field=field, pattern=pattern.text, ignore_case=ignore_case, negated=symbol.startswith("!")
        )

    def _pattern(self) -> _Token:
        pattern = self._expect_string("a pattern")
        if len(pattern.text) > MAX_PATTERN:
            _refuse(f"a pattern longer than {MAX_PATTERN} characters", pattern.at)
        return pattern

    def _values(self) -> Tuple[str, ...]:
        self._expect("symbol", "(")
        values = [self._expect_string("text").text]
        while self._accept("symbol", ","):
            values.append(self._expect_string("text").text)
        self._expect("symbol", ")")
        return tuple(values)

    def _count_ids(self, field: Field, count: int, at: int) -> None:
        self._ids += count if field.column == "id" else 0
        if self._ids > MAX_IDS:
            _refuse(f"more than {MAX_IDS} ids", at)

    def _age(self) -> int:
        """Read `NOW() [- INTERVAL '5 minutes']` and return the seconds before now."""
        self._expect("word", "now")
        self._expect("symbol", "(")
        self._expect("symbol", ")")
        if not self._accept("symbol", "-"):
            return 0
        self._expect("word", "interval")
        interval = self._expect_string("an interval")
        parts = _INTERVAL.match(interval.text)
        if not parts:
            _refuse("an interval is like '5 minutes': a number, then seconds to weeks", interval.at)
        age_s = int(parts.group(1)) * INTERVAL_UNITS[parts.group(2).lower()]
        if age_s > MAX_INTERVAL_S:
            _refuse("an interval longer than ten years", interval.at)
        return age_s
