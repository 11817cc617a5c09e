r"""Which of two versions is the later one, by the rules of the packaging system that they belong to.

A version becomes a key, and keys of one system compare as its versions do. Text that is no version of that
system raises `ValueError`: it cannot be compared, which is not the same as being different.

| system | rules |
|---|---|
| dpkg, snap | deb-version(7): epoch, upstream version and revision; `~` sorts before everything, letters before signs; snapd compares in the same way |
| rpm, flatpak | rpm-version(7): segments of digits and letters; `~` sorts before the end, `^` behind it; AppStream compares in the same way |
| apk | apk-package(5): numbers, a letter, suffixes (`_alpha _beta _pre _rc`, then none, then `_cvs _svn _git _hg _p`), `-r` |
| pip | PEP 440 |
| npm | Semantic Versioning 2.0.0, section 11 |
| gem | Gem::Version: segments of digits and letters; letters sort before digits |
"""  # noqa: E501  (a row is a line)

import re
from typing import Any, Callable, Dict, List, Optional, Tuple

# What comes from a file on the endpoint is bounded before anything is made of it.
_MOST_CHARACTERS = 256
_DEB_PARTS = re.compile(r"([^0-9]*)([0-9]*)")
_DEB_CHARACTERS = re.compile(r"[A-Za-z0-9.+~:-]+\Z")
_RPM_PARTS = re.compile(r"[0-9]+|[A-Za-z]+|[~^]")
_APK_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)*)([a-z]?)((?:_[a-z]+[0-9]*)*)(?:~[0-9a-f]+)?(?:-r([0-9]+))?\Z")
_APK_SUFFIX = re.compile(r"_([a-z]+)([0-9]*)")
_APK_SUFFIXES = ("alpha", "beta", "pre", "rc", "", "cvs", "svn", "git", "hg", "p")
_APK_NO_SUFFIX = _APK_SUFFIXES.index("")
_PEP_FORM = re.compile(
    r"v?(?:([0-9]+)!)?([0-9]+(?:\.[0-9]+)*)"
    r"(?:[-_.]?(alpha|beta|preview|pre|a|b|c|rc)[-_.]?([0-9]*))?"
    r"(?:-([0-9]+)|[-_.]?(post|rev|r)[-_.]?([0-9]*))?"
    r"(?:[-_.]?(dev)[-_.]?([0-9]*))?"
    r"(?:\+([a-z0-9]+(?:[-_.][a-z0-9]+)*))?\Z"
)
_PEP_PRE = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
_SEMVER_FORM = re.compile(
    r"[v=]?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?\Z"
)
_GEM_FORM = re.compile(r"[0-9]+(?:\.[0-9A-Za-z]+)*(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?\Z")
_GEM_PARTS = re.compile(r"[0-9]+|[A-Za-z]+")


_DEB_END = ((0,), 0)


def _order(character: str) -> int:
    """Return where deb-version(7) sorts a character that is no digit; the end of a part is 0."""
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256


def _deb_part(text: str) -> Tuple[Any, ...]:
    # Each run of what is no digit ends with 0, so that a shorter one meets it where the longer one goes on.
    pairs: List[Any] = []
    for match in _DEB_PARTS.finditer(text):
        signs, digits = match.groups()
        if signs or digits:
            pairs.append(((*map(_order, signs), 0), int(digits or 0)))
    # Behind the last comes the end: an empty run and the number 0, which nothing at all is as well.
    return (*(pairs or [_DEB_END]), _DEB_END)


def _dpkg_key(text: str) -> Any:
    epoch, colon, rest = text.partition(":")
    if not colon:
        epoch, rest = "0", text
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, ""
    is_whole = bool(upstream) and bool(revision) == bool(dash)
    if not (epoch.isdigit() and epoch.isascii() and is_whole and _DEB_CHARACTERS.match(rest)):
        raise ValueError("no version of dpkg's")
    return int(epoch), _deb_part(upstream), _deb_part(revision)


def _rpm_part(text: str) -> Tuple[Any, ...]:
    """Return a key of a version or release: `~` comes before the end, then `^`, letters, digits."""
    parts: List[Tuple[int, Any]] = []
    for part in _RPM_PARTS.findall(text):
        if part == "~":
            parts.append((0, 0))
        elif part == "^":
            parts.append((2, 0))
        elif part[0].isdigit():
            parts.append((4, int(part)))
        else:
            parts.append((3, part))
    return (*parts, (1, 0))


def _rpm_key(text: str) -> Any:
    epoch, colon, rest = text.partition(":")
    if not colon:
        epoch, rest = "0", text
    version, _, release = rest.partition("-")
    if not (epoch.isdigit() and epoch.isascii() and version and version.isprintable()):
        raise ValueError("no version of rpm's")
    return int(epoch), _rpm_part(version), _rpm_part(release)


def _apk_key(text: str) -> Any:
    form = _APK_FORM.match(text)
    if form is None:
        raise ValueError("no version of apk's")
    numbers, letter, suffixes, revision = form.groups()
    # What follows decides where all before is equal, the latest first: a further number, more of a number
    # that begins with zeros, a letter, a suffix that comes after, its number, the revision, the end, and last
    # a suffix that comes before.
    first, *others = numbers.split(".")
    key: List[Tuple[int, int]] = [(7, int(first))]
    for number in others:
        zeros = len(number) - len(number.lstrip("0"))
        if zeros:
            key.append((7, -zeros))
            if zeros < len(number):
                key.append((6, int(number)))
        else:
            key.append((7, int(number)))
    if letter:
        key.append((5, ord(letter)))
    for name, number in _APK_SUFFIX.findall(suffixes):
        if name not in _APK_SUFFIXES:
            raise ValueError("no version of apk's")
        place = _APK_SUFFIXES.index(name)
        key.append((4 if place > _APK_NO_SUFFIX else 0, place))
        if number:
            key.append((3, int(number)))
    if revision is not None:
        key.append((2, int(revision)))
    return (*key, (1, 0))


def _pip_key(text: str) -> Any:
    form = _PEP_FORM.match(text.strip().lower())
    if form is None:
        raise ValueError("no version of PEP 440")
    epoch, release, pre, pre_number, post_short, post, post_number, dev, dev_number, local = form.groups()
    numbers = [int(number) for number in release.split(".")]
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    has_post = post is not None or post_short is not None
    if pre is not None:
        pre_key: Tuple[Any, ...] = (1, _PEP_PRE.get(pre, pre), int(pre_number or 0))
    else:
        # A development release of a final one comes before its alphas.
        pre_key = (0,) if dev is not None and not has_post else (2,)
    post_key = int(post_short or post_number or 0) if has_post else -1
    dev_key = (0, int(dev_number or 0)) if dev is not None else (1, 0)
    local_key = tuple(
        (1, int(part)) if part.isdigit() else (0, part) for part in re.split(r"[-_.]", local or "") if part
    )
    return int(epoch or 0), tuple(numbers), pre_key, post_key, dev_key, local_key


def _npm_key(text: str) -> Any:
    form = _SEMVER_FORM.match(text.strip())
    if form is None:
        raise ValueError("no semantic version")
    major, minor, patch, pre = form.groups()
    # Section 11: a pre-release comes before; its numbers before its words, and fewer fields before more.
    fields: Tuple[Any, ...] = ((2,),)
    if pre is not None:
        fields = tuple((0, int(part)) if part.isdigit() else (1, part) for part in pre.split("."))
    return int(major), int(minor or 0), int(patch or 0), pre is None, fields


def _gem_key(text: str) -> Any:
    text = text.strip()
    if _GEM_FORM.match(text) is None:
        raise ValueError("no version of a gem")
    parts = _GEM_PARTS.findall(text.replace("-", ".pre."))
    key: List[Tuple[int, Any]] = [(1, int(part)) if part.isdigit() else (-1, part) for part in parts]
    # Zeros before letters and at the end say nothing: 1.0.a is 1.a, 1.0 is 1.
    kept: List[Tuple[int, Any]] = []
    for at, part in enumerate(key):
        if part == (1, 0) and all(later == (1, 0) for later in _until_letters(key[at:])):
            continue
        kept.append(part)
    # What is not there counts as zero: less than any other number, more than letters.
    return (*kept, (0, 0))


def _until_letters(parts: List[Tuple[int, Any]]) -> List[Tuple[int, Any]]:
    numbers: List[Tuple[int, Any]] = []
    for part in parts:
        if part[0] < 0:
            break
        numbers.append(part)
    return numbers


_KEYS: Dict[str, Callable[[str], Any]] = {
    "dpkg": _dpkg_key,
    "snap": _dpkg_key,
    "rpm": _rpm_key,
    "flatpak": _rpm_key,
    "apk": _apk_key,
    "pip": _pip_key,
    "npm": _npm_key,
    "gem": _gem_key,
}


def version_key(system: str, text: str) -> Any:
    """Return what versions of a packaging system compare by.

    Raises:
        ValueError: the text is no version there.

    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError("too long for a version")
    return _KEYS[system](text)


def compare(system: str, first: str, second: str) -> int:
    """Return -1, 0 or 1: whether the first version is earlier than, as late as or later than the second.

    Raises:
        ValueError: one of them is no version of that system.

    """
    return _sign(version_key(system, first), version_key(system, second))


def _sign(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


_OPERATORS = ("<=", ">=", "==", "!=", "<", ">", "=")
_HOLDS: Dict[str, Callable[[int], bool]] = {
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    "=": lambda order: order == 0,
    "==": lambda order: order == 0,
    "!=": lambda order: order != 0,
    ">=": lambda order: order >= 0,
    ">": lambda order: order > 0,
}
_OPERAND = re.compile(r"[0-9A-Za-z.+~^:_!-]+\Z")


class VersionRange:
    """An expression such as `>=2.0,<2.4-1`: comparisons that must all hold.

    Args:
        expression: comparisons, each an operator (< <= = != >= >) and a version; commas or blanks between.

    Raises:
        ValueError: it is none.

    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._bounds: List[Tuple[str, str]] = []
        spaced = re.sub(r"([<>=!]+)\s+", r"\1", expression)
        for word in re.split(r"[,\s]+", spaced.strip(", \t")):
            operator = next((one for one in _OPERATORS if word.startswith(one)), None)
            version = word[len(operator) :] if operator else ""
            if operator is None or not _OPERAND.match(version) or len(version) > _MOST_CHARACTERS:
                raise ValueError(f"{expression!r} is no version expression such as <1.2.3-4 or >=2.0,<2.4")
            self._bounds.append((operator, version))
        self._keys: Dict[str, Optional[List[Any]]] = {}

    def holds(self, system: str, version: str) -> Optional[bool]:
        """Tell whether a version lies in it; None where the two cannot be compared."""
        bounds = self._bounds_for(system)
        try:
            key = version_key(system, version)
        except ValueError:
            return None
        if bounds is None:
            return None
        for holds, bound, has_release in bounds:
            # As rpm's dependencies do: a release is compared only where the expression has one.
            mine = key if has_release else key[:-1]
            if not holds(_sign(mine, bound)):
                return False
        return True

    def lacks_epoch(self, system: str, version: str) -> bool:
        """Tell whether the version has an epoch and the expression has none, which it is then behind of."""
        return (
            system in ("dpkg", "rpm")
            and ":" in version
            and not version.startswith("0:")
            and not any(":" in bound for _, bound in self._bounds)
        )

    def _bounds_for(self, system: str) -> Optional[List[Any]]:
        if system not in self._keys:
            try:
                self._keys[system] = [_bound(system, *bound) for bound in self._bounds]
            except ValueError:
                self._keys[system] = None
        return self._keys[system]


def _bound(system: str, operator: str, version: str) -> Tuple[Callable[[int], bool], Any, bool]:
    key = version_key(system, version)
    has_release = system not in ("rpm", "flatpak") or "-" in version
    return _HOLDS[operator], key if has_release else key[:-1], has_release
