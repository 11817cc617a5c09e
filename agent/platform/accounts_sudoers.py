"""Who may what by sudo, from sudoers(5) and all that it includes.

Rules:

* Lists are read as sudo reads them: aliases are opened up, `!` takes away, the last entry that fits decides.
* What cannot be told here is taken to fit, so that nobody with a right is missed: hosts by address or
  netgroup, users by netgroup. A right that later entries narrow (`ALL, !/bin/su`) is still one to all
  commands: such exceptions do not hold anybody back (sudoers(5), "Limitations of the '!' operator").
* Rules of LDAP and of plug-ins are not seen.

Source: sudoers(5).
"""

from typing import Callable, Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from agent.platform.rooted import Rooted
from agent.scan.roots import join
from agent.scan.texts import path_text

MAIN = b"/etc/sudoers"
_MOST_FILES = 256
_MOST_BYTES = 4 << 20
_MOST_DEPTH = 16
_MOST_ALIASES = 256
_ALIASES = {"User_Alias": "user", "Runas_Alias": "runas", "Host_Alias": "host", "Cmnd_Alias": "command"}
_ALIASES["Cmd_Alias"] = "command"
_TAGS = frozenset(
    (
        "EXEC", "NOEXEC", "FOLLOW", "NOFOLLOW", "LOG_INPUT", "NOLOG_INPUT", "LOG_OUTPUT", "NOLOG_OUTPUT",
        "MAIL", "NOMAIL", "INTERCEPT", "NOINTERCEPT", "PASSWD", "NOPASSWD", "SETENV", "NOSETENV",
    )
)  # fmt: skip
_SIGNS = ",=:()!"
_Is = Callable[[str], bool]


class Rule(NamedTuple):
    """One entry: these users may, as these people, run these commands; the first place is `path:line`."""

    users: Tuple[str, ...]
    hosts: Tuple[str, ...]
    runas: Tuple[str, ...]
    commands: Tuple[str, ...]
    needs_password: bool
    place: str


class Right(NamedTuple):
    """What an account may: all commands as root, without a password, and by how many rules from where."""

    has_all: bool
    without_password: bool
    rules: int
    places: Tuple[str, ...]


class Person(NamedTuple):
    """Who asks: by name, number, and the names and numbers of all groups."""

    name: str
    uid: int
    groups: FrozenSet[str]
    gids: FrozenSet[int]


class Sudoers:
    """The rules of one system, read when this is made."""

    def __init__(self, files: Rooted, hostname: str, main: bytes = MAIN) -> None:
        self._files = files
        self._hostname = hostname
        self._aliases: Dict[str, Dict[str, Tuple[str, ...]]] = {kind: {} for kind in _ALIASES.values()}
        self.rules: List[Rule] = []
        self._authenticates = True
        self._authenticates_for: List[Tuple[Tuple[str, ...], bool]] = []
        self._read_count = 0
        self._read(main, 0)

    def right_of(self, person: Person) -> Optional[Right]:
        """Return what an account may; None where no rule is about it."""
        rules = [rule for rule in self.rules if self._is_about(rule, person)]
        if not rules:
            return None
        has_all = False
        without = False
        needs_by_default = self._needs_password(person)
        for rule in rules:
            can_root = self._fits(rule.runas, "runas", lambda word: word in ("ALL", "root", "#0"))
            verdict = self._verdict(rule.commands, "command", lambda word: word == "ALL")
            if verdict is not None and can_root:
                has_all = verdict
            if can_root and not (rule.needs_password and needs_by_default) and rule.commands:
                without = True
        return Right(has_all, without, len(rules), tuple(dict.fromkeys(rule.place for rule in rules)))

    def _is_about(self, rule: Rule, person: Person) -> bool:
        return self._fits(rule.users, "user", lambda word: _is_person(word, person)) and self._fits(
            rule.hosts, "host", self._is_host
        )

    def _needs_password(self, person: Person) -> bool:
        needs = self._authenticates
        for users, verdict in self._authenticates_for:
            if self._fits(users, "user", lambda word: _is_person(word, person)):
                needs = verdict
        return needs

    def _is_host(self, word: str) -> bool:
        if word == "ALL" or word.startswith("+") or ":" in word or word[:1].isdigit():
            return True
        return word.lower() in (self._hostname.lower(), self._hostname.partition(".")[0].lower())

    def _fits(self, words: Sequence[str], kind: str, is_it: _Is) -> bool:
        return bool(self._verdict(words, kind, is_it))

    def _verdict(
        self, words: Sequence[str], kind: str, is_it: _Is, known: Optional[Dict[str, Optional[bool]]] = None
    ) -> Optional[bool]:
        """Return what the last word that fits says: allowed or not; None where none fits."""
        verdict: Optional[bool] = None
        known = {} if known is None else known
        for word in words:
            bare = word.lstrip("!")
            is_allowed = (len(word) - len(bare)) % 2 == 0
            alias = self._aliases[kind].get(bare)
            if alias is None:
                verdict = is_allowed if is_it(bare) else verdict
                continue
            if bare not in known:
                # Each is opened up once; one that leads back to itself, or too deep, fits nobody there.
                known[bare] = None
                if len(known) <= _MOST_ALIASES:
                    known[bare] = self._verdict(alias, kind, is_it, known)
            if known[bare] is not None:
                verdict = known[bare] is is_allowed
        return verdict

    def _read(self, path: bytes, depth: int) -> None:
        self._read_count += 1
        if depth > _MOST_DEPTH or self._read_count > _MOST_FILES:
            self._files.lose(path, "not read: includes are too many or too deep")
            return
        data = self._files.read(path, _MOST_BYTES)
        for number, line in _lines(data or b""):
            if line.startswith(("#include", "@include")):
                self._include(line, path, depth)
                continue
            if line.startswith("#") and not line[1:2].isdigit():
                continue
            place = f"{path_text(path)}:{number}"
            try:
                self._take(_tokens(line), place)
            except ValueError as error:
                self._files.lose(path, f"line {number} is not understood: {error}")

    def _include(self, line: str, path: bytes, depth: int) -> None:
        word, _, rest = line.partition(" ") if " " in line else line.partition("\t")
        name = rest.strip().strip('"').replace("%h", self._hostname).replace("\\ ", " ")
        target = name.encode("utf-8", "surrogateescape")
        if not target.startswith(b"/"):
            target = join(path.rpartition(b"/")[0] or b"/", target)
        if word[1:] != "includedir":
            self._read(target, depth + 1)
            return
        for entry in self._files.list(target):
            # As sudo does, so that what editors and packages leave behind is not read.
            if b"." not in entry.name and not entry.name.endswith(b"~") and not entry.is_directory:
                self._read(join(target, entry.name), depth + 1)

    def _take(self, tokens: List[str], place: str) -> None:
        if not tokens:
            return
        if tokens[0] in _ALIASES:
            self._take_aliases(_ALIASES[tokens[0]], tokens[1:])
        elif tokens[0].startswith("Defaults"):
            self._take_defaults(tokens)
        else:
            self._take_rules(_Reader(tokens), place)

    def _take_aliases(self, kind: str, tokens: List[str]) -> None:
        reader = _Reader(tokens)
        while reader.is_left():
            name = reader.take()
            reader.expect("=")
            self._aliases[kind][name] = reader.words() if kind != "command" else reader.commands()
            if reader.is_left():
                reader.expect(":")

    def _take_defaults(self, tokens: List[str]) -> None:
        text = "".join(tokens)
        if "authenticate" not in text:
            return
        verdict = "!authenticate" not in text
        if tokens[0] == "Defaults" and tokens[1:2] == [":"]:
            reader = _Reader(tokens[2:])
            self._authenticates_for.append((reader.words(), verdict))
        elif tokens[0] == "Defaults":
            self._authenticates = verdict

    def _take_rules(self, reader: "_Reader", place: str) -> None:
        users = reader.words()
        while True:
            hosts = reader.words()
            reader.expect("=")
            self.rules += reader.specifications(users, hosts, place)
            if not reader.is_left():
                return
            reader.expect(":")


def _is_person(word: str, person: Person) -> bool:
    if word.startswith("%#"):
        return word[2:].isdigit() and int(word[2:]) in person.gids
    if word.startswith("%:"):
        return word[2:] in person.groups
    if word.startswith("%"):
        return word[1:] in person.groups
    if word.startswith("#"):
        return word[1:].isdigit() and int(word[1:]) == person.uid
    return word in ("ALL", person.name) or word.startswith("+")


def _lines(data: bytes) -> Iterator[Tuple[int, str]]:
    """Yield logical lines with the number of their first: continued ones joined, blanks at the ends gone."""
    text = data.decode("utf-8", "backslashreplace")
    pending, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        first = first if pending else number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        whole = (pending + line).strip()
        pending = ""
        if whole:
            yield first, whole
    if pending.strip():
        yield first, pending.strip()


def _tokens(line: str) -> List[str]:
    """Return words and signs of a line, up to a comment; raises ValueError for a quote that does not end."""
    tokens: List[str] = []
    word = ""
    at = 0
    while at < len(line):
        letter = line[at]
        at += 1
        if letter == "\\" and at < len(line):
            word += line[at]
            at += 1
        elif letter == '"':
            end = line.find('"', at)
            if end < 0:
                raise ValueError("a quote does not end")
            word += line[at:end]
            at = end + 1
        elif letter == "#" and not word and not line[at : at + 1].isdigit():
            break
        elif letter.isspace() or letter in _SIGNS:
            if word:
                tokens.append(word)
                word = ""
            if not letter.isspace():
                tokens.append(letter)
        else:
            word += letter
    return [*tokens, word] if word else tokens


class _Reader:
    """Takes tokens of one line apart."""

    def __init__(self, tokens: List[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def is_left(self) -> bool:
        return self._at < len(self._tokens)

    def peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at] if at < len(self._tokens) else ""

    def take(self) -> str:
        if not self.is_left():
            raise ValueError("it ends too soon")
        self._at += 1
        return self._tokens[self._at - 1]

    def expect(self, sign: str) -> None:
        found = self.take()
        if found != sign:
            raise ValueError(f"{sign!r} is missing")

    def words(self) -> Tuple[str, ...]:
        """Take a list of words with commas between; `!` belongs to the word behind it."""
        found: List[str] = []
        while True:
            word = self._negations()
            word += self.take()
            if word[-1] in _SIGNS:
                raise ValueError("a name is missing")
            # `%:group` and `host:port` hold a colon that separates nothing.
            if word.endswith("%") and self.peek() == ":":
                word += self.take() + self.take()
            found.append(word)
            if self.peek() != ",":
                return tuple(found)
            self.take()

    def _negations(self) -> str:
        marks = ""
        while self.peek() == "!":
            marks += self.take()
        return marks

    def commands(self) -> Tuple[str, ...]:
        """Take a list of commands; of each only the path counts, or ALL, or an alias."""
        found = [self._command()]
        while self.peek() == ",":
            self.take()
            found.append(self._command())
        return tuple(found)

    def _command(self) -> str:
        command = self._negations() + self.take()
        while self.is_left() and self.peek() not in (",", ":"):
            self.take()
        return command

    def specifications(self, users: Tuple[str, ...], hosts: Tuple[str, ...], place: str) -> Iterator[Rule]:
        """Take what stands behind `=`; whom to run as and tags hold on for what follows."""
        runas: Tuple[str, ...] = ("root",)
        needs_password = True
        while True:
            if self.peek() == "(":
                runas = self._runas()
            while self._is_option():
                if self.peek(1) == ":":
                    tag = self.take()
                    if tag in ("NOPASSWD", "PASSWD"):
                        needs_password = tag == "PASSWD"
                    self.take()
                else:
                    self._at += 3
            command = self._command()
            yield Rule(users, hosts, runas, (command,), needs_password, place)
            if self.peek() != ",":
                return
            self.take()

    def _is_option(self) -> bool:
        """Tell whether a tag (`NOPASSWD:`) or an option (`ROLE=x`, `CWD=/x`, `TIMEOUT=5m`) comes next."""
        if self.peek(1) == ":":
            return self.peek() in _TAGS
        return self.peek(1) == "=" and self.peek().isupper()

    def _runas(self) -> Tuple[str, ...]:
        self.expect("(")
        users: Tuple[str, ...] = ()
        if self.peek() not in (")", ":"):
            users = self.words()
        elif self.peek() == ")":
            # Nobody is named: as oneself only.
            users = ("",)
        if self.peek() == ":":
            self.take()
            if self.peek() != ")":
                self.words()
        self.expect(")")
        return users
