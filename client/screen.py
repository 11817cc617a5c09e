r"""Makes hostile text safe to print.

What an endpoint or a server sends may hold anything: escape sequences that rewrite a terminal, characters
that reverse the reading order, line ends that forge a line. Everything that does not simply show itself is
written as a visible escape (`\x1b`, `\u202e`). Nothing reaches a terminal or a CSV cell without passing here;
JSON output escapes everything outside of printable ASCII by itself.
"""

import re
import unicodedata

_PLAIN = re.compile(r"[ -~]*\Z")
# Controls, format characters (bidi overrides and zero-width ones among them), surrogates, private use,
# unassigned, line and paragraph separators: Unicode Standard, section 4.5, general category.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MAX_BYTE = 0xFF
_MAX_BMP = 0xFFFF
# Longer cells make a line unreadable; JSON output has them whole.
MAX_CELL = 2000


def _escape(character: str) -> str:
    code = ord(character)
    if code <= _MAX_BYTE:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= _MAX_BMP else f"\\U{code:08x}"


def is_shown(character: str) -> bool:
    """Tell whether a character shows itself: no control, format or invisible one."""
    if character == " ":
        return True
    # Spaces that look like the ordinary one but are not (Zs) could hide where a word ends.
    return unicodedata.category(character) not in _HIDDEN and unicodedata.category(character) != "Zs"


def printable(text: str, limit: int = MAX_CELL) -> str:
    """Return `text` on one line, with everything that does not show itself escaped, cut at `limit`."""
    cut = f" ... ({len(text)} characters)" if len(text) > limit else ""
    shown = text[:limit]
    if _PLAIN.match(shown) is None:
        shown = "".join(character if is_shown(character) else _escape(character) for character in shown)
    return shown + cut


def csv_cell(text: str) -> str:
    """Return `text` safe as a CSV cell: escaped, and never a formula.

    A spreadsheet runs a cell that begins with one of `= + - @`; a leading quote makes it text. Source: OWASP,
    CSV Injection.
    """
    shown = printable(text, limit=len(text))
    return f"'{shown}" if shown[:1] in {"=", "+", "-", "@"} else shown
