"""What starts by itself: one thing that does, and the programs that command lines name.

Of a command line only programs and the number of their arguments are kept: the rest may hold secrets.

Sources: systemd.service(5), COMMAND LINES; sh(1) as far as simple commands go.
"""

from typing import Iterator, List, NamedTuple, Optional, Tuple

from agent.platform.rooted import Rooted
from agent.scan.roots import join

MOST_BYTES = 1 << 20
_MOST_PROGRAMS = 16
_MOST_COMMAND = 1 << 16
_SEARCHED = (b"/usr/local/sbin", b"/usr/local/bin", b"/usr/sbin", b"/usr/bin", b"/sbin", b"/bin")
# What runs what stands behind it, and what runs a script that is named behind it.
_WRAPPERS = frozenset(
    (
        b"exec", b"nohup", b"env", b"sudo", b"command", b"time", b"nice", b"ionice", b"setsid", b"eval",
        b"if", b"then", b"else", b"elif", b"do", b"while", b"until", b"!", b"{", b"timeout",
    )
)  # fmt: skip
_INTERPRETERS = frozenset(
    (
        b"sh", b"bash", b"dash", b"zsh", b"ksh", b"python", b"perl", b"ruby", b"php", b"node", b"run-parts",
    )
)  # fmt: skip
_OPERATORS = b";|&()\n`"


class Program(NamedTuple):
    """A program that is run, as it is written, and how many words follow it."""

    path: bytes
    arguments: int = 0


class Start(NamedTuple):
    """Something that starts by itself.

    `path` is the file that says so; `enabled` whether it is in force, None where that cannot be told; `user`
    as whom; `is_overridden` that another file of the same name comes before it.
    """

    kind: str
    path: bytes
    name: bytes
    enabled: Optional[bool] = True
    programs: Tuple[Program, ...] = ()
    line: Optional[int] = None
    user: Optional[bytes] = None
    is_overridden: bool = False


def find_program(files: Rooted, name: bytes) -> bytes:
    """Return where a program lies: where it is looked for, for a name without a slash."""
    if b"/" in name or not name:
        return name
    for directory in _SEARCHED:
        path = join(directory, name)
        if files.status(path, follow=True) is not None:
            return path
    return name


def words_of(text: bytes) -> List[bytes]:
    """Split a command line into words, quotes and backslashes as a shell has them; never fails."""
    words: List[bytes] = []
    word, quote, is_open, at = bytearray(), b"", False, 0
    text = text[:_MOST_COMMAND]
    while at < len(text):
        letter = text[at : at + 1]
        at += 1
        if letter == b"\\" and quote != b"'":
            word += text[at : at + 1]
            at += 1
            is_open = True
        elif quote:
            if letter == quote:
                quote = b""
            else:
                word += letter
        elif letter in (b"'", b'"'):
            quote, is_open = letter, True
        elif letter.isspace():
            if is_open:
                words.append(bytes(word))
            word.clear()
            is_open = False
        else:
            word += letter
            is_open = True
    return [*words, bytes(word)] if is_open else words


def exec_program(text: bytes) -> Tuple[Program, ...]:
    """Return the program of a line such as ExecStart's or Exec's, and a script that it interprets."""
    words = words_of(text)
    if not words:
        return ()
    # Marks before the path say how it is run: systemd.service(5), "special executable prefixes".
    words[0] = words[0].lstrip(b"@-:+!|")
    return _of_words(words)


def shell_programs(text: bytes) -> Tuple[Program, ...]:
    """Return the programs of a shell's command line: of each simple command the first word that is one."""
    found: List[Program] = []
    for command in _simple_commands(text[:_MOST_COMMAND]):
        words = _without_redirections(words_of(command))
        while words and (words[0] in _WRAPPERS or _is_assignment(words[0])):
            wrapper = words.pop(0)
            while wrapper in _WRAPPERS and words and words[0].startswith(b"-"):
                words.pop(0)
        for program in _of_words(words):
            if program not in found and len(found) < _MOST_PROGRAMS:
                found.append(program)
    return tuple(found)


def _of_words(words: List[bytes]) -> Tuple[Program, ...]:
    if not words or not words[0]:
        return ()
    first = Program(words[0], len(words) - 1)
    name = words[0].rpartition(b"/")[2].rstrip(b"0123456789.")
    if name in _INTERPRETERS:
        if words[1:2] == [b"-c"] and name not in (b"python", b"perl") and len(words) > 2:  # noqa: PLR2004
            # A command within the command: sh -c "...".
            return (first, *(one for one in shell_programs(words[2]) if one.path != words[0]))
        for at, word in enumerate(words[1:], 1):
            if word.startswith(b"/"):
                return first, Program(word, len(words) - 1 - at)
    return (first,)


def _without_redirections(words: List[bytes]) -> List[bytes]:
    kept: List[bytes] = []
    is_target = False
    for word in words:
        bare = word.lstrip(b"0123456789&")
        if is_target:
            is_target = False
        elif bare.startswith((b">", b"<")):
            # `> file` and `>file`.
            is_target = bare.endswith((b">", b"<"))
        else:
            kept.append(word)
    return kept


def _is_redirection(text: bytes, at: int) -> bool:
    """Tell whether a `&` belongs to `>&`, `<&` or `&>`."""
    return text[at - 1 : at] in (b">", b"<") or text[at + 1 : at + 2] == b">"


def _is_assignment(word: bytes) -> bool:
    name, sign, _ = word.partition(b"=")
    return bool(sign) and name.replace(b"_", b"a").isalnum() and not name[:1].isdigit()


def _simple_commands(text: bytes) -> Iterator[bytes]:
    """Yield the parts of a line between the operators that stand in no quotes."""
    start, quote, at = 0, 0, 0
    while at < len(text):
        letter = text[at]
        if letter == 0x5C and quote != 0x27:  # noqa: PLR2004  (a backslash, not in single quotes)
            at += 1
        elif quote:
            quote = 0 if letter == quote else quote
        elif letter in b"'\"":
            quote = letter
        elif letter in _OPERATORS and not (letter == 0x26 and _is_redirection(text, at)):  # noqa: PLR2004  (&)
            yield text[start:at]
            start = at + 1
        at += 1
    yield text[start:]


def lines_of(data: Optional[bytes]) -> Iterator[Tuple[int, bytes]]:
    """Yield the lines that say something, with their numbers: no comments, nothing empty."""
    for number, line in enumerate((data or b"").split(b"\n"), 1):
        text = line.strip()
        if text and not text.startswith((b"#", b";")):
            yield number, text


def settings_of(data: Optional[bytes]) -> Iterator[Tuple[bytes, bytes, bytes]]:
    """Yield section, name and value of a unit or desktop file; lines that end with a backslash go on."""
    section, pending = b"", b""
    for _, line in lines_of(data):
        text = pending + line
        if text.endswith(b"\\"):
            pending = text[:-1] + b" "
            continue
        pending = b""
        if text.startswith(b"["):
            section = text.strip(b"[]")
            continue
        name, sign, value = text.partition(b"=")
        if sign:
            yield section, name.strip(), value.strip()


def scripts_in(files: Rooted, directory: bytes, kind: str) -> Iterator[Start]:
    """Yield the scripts of a directory whose every file is run; those without the right to be are not."""
    for entry in files.list(directory):
        path = join(directory, entry.name)
        status = None if entry.is_directory else files.status(path, follow=True)
        if status is not None:
            yield Start(kind, path, entry.name, bool(status.st_mode & 0o111), (Program(path),))
