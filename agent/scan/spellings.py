"""The ancestor's spellings of a file search, rewritten to canonical ones before signing.

* keys singular or plural, in any case; a lone value for a list; `null` for nothing;
* `sha2` and `sha3` told apart by the length of each digest; digests in any case and more than once;
* a label with characters that are no longer allowed: each becomes `_`;
* the first shape of all, `{path: {method: {label: [values]}}}`.

What cannot be told is left as it stands: decoding refuses it and says where.
"""

import re
from typing import Any, Dict, List

from agent.scan.search import FILTER_FIELDS, HASH_KINDS

_SHA2_BY_LENGTH = {64: "sha256", 96: "sha384", 128: "sha512"}
_SHA3_BY_LENGTH = {56: "sha3_224", 64: "sha3_256", 96: "sha3_384", 128: "sha3_512"}
_BY_LENGTH = {"sha2": _SHA2_BY_LENGTH, "sha3": _SHA3_BY_LENGTH}
_PLURALS = {
    "path": "paths",
    "exclude": "excludes",
    "byte": "bytes",
    **{name: field for name, field in FILTER_FIELDS.items() if name != field},
    # How the first shape called them.
    "filename": "names",
    "regex": "contents",
    "contains": "contents",
    "named": "names",
}
_SINGULARS = {"byte": "bytes", **{field: name for name, field in FILTER_FIELDS.items()}}
_LISTS = frozenset({"paths", "excludes", *FILTER_FIELDS.values(), *_BY_LENGTH})
_CASELESS = frozenset(
    {"sizes", "mtimes", "ctimes", "atimes", "types", "capabilities", "bytes", "magics", "entropies"}
)
# An option of the ancestor that never changed an answer.
_MEANINGLESS_OPTIONS = frozenset({"debug"})


def upgrade_searches(parameters: Any) -> Any:
    """Return a file module's parameters in canonical spelling."""
    if not isinstance(parameters, dict):
        return parameters
    if "searches" not in parameters:
        parameters = _from_first_shape(parameters)
    searches = parameters.get("searches")
    if not isinstance(searches, dict):
        return parameters
    upgraded: Dict[str, Any] = {}
    for label, search in searches.items():
        upgraded[_free_label(str(label), upgraded)] = _upgrade_search(search)
    return {**parameters, "searches": upgraded}


def _free_label(label: str, taken: Dict[str, Any]) -> str:
    clean = re.sub(r"[^A-Za-z0-9_.-]", "_", label)[:64] or "_"
    candidate, number = clean, 2
    while candidate in taken:
        suffix = f"-{number}"
        candidate = clean[: 64 - len(suffix)] + suffix
        number += 1
    return candidate


def _upgrade_search(search: Any) -> Any:
    if not isinstance(search, dict):
        return search
    upgraded: Dict[str, Any] = {}
    for key, value in search.items():
        name = _PLURALS.get(key.lower(), key.lower())
        if value is None:
            continue
        if name in _BY_LENGTH:
            _add_by_length(upgraded, name, value)
        elif name in _LISTS:
            _extend(upgraded, name, value)
        else:
            upgraded[name] = value
    options = _upgrade_options(upgraded.get("options"), upgraded)
    if options:
        upgraded["options"] = options
    else:
        upgraded.pop("options", None)
    return upgraded


def _extend(search: Dict[str, Any], name: str, value: Any) -> None:
    """Add values to a list; digests and other texts without a case of their own in lower case, each once."""
    held = search.setdefault(name, [])
    for item in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(item, str) and (name in HASH_KINDS or name in _CASELESS):
            item = item.strip().lower()  # noqa: PLW2901
        if item not in held:
            held.append(item)


def _add_by_length(search: Dict[str, Any], family: str, value: Any) -> None:
    for item in value if isinstance(value, (list, tuple)) else [value]:
        kind = _BY_LENGTH[family].get(len(item.strip())) if isinstance(item, str) else None
        # A digest of another length stays under a name that no search has, so that decoding refuses it.
        _extend(search, kind or family, item)


def _upgrade_options(options: Any, search: Dict[str, Any]) -> Any:
    if not isinstance(options, dict):
        return options
    upgraded: Dict[str, Any] = {}
    for key, value in options.items():
        name = key.lower()
        if value is None or name in _MEANINGLESS_OPTIONS or (name == "decompress" and value is False):
            continue
        if name == "mismatch":
            names = _upgrade_mismatch(value, search)
            if names:
                upgraded[name] = names
        elif isinstance(value, float) and value.is_integer():
            upgraded[name] = int(value)
        else:
            upgraded[name] = value
    return upgraded


def _upgrade_mismatch(value: Any, search: Dict[str, Any]) -> List[Any]:
    names: List[Any] = []
    for item in value if isinstance(value, (list, tuple)) else [value]:
        name = item.lower() if isinstance(item, str) else item
        family = _BY_LENGTH.get(name, {}) if isinstance(name, str) else {}
        present = [kind for kind in family.values() if search.get(kind)]
        for known in present or [_SINGULARS.get(name, name)]:
            if known not in names:
                names.append(known)
    return names


def _from_first_shape(parameters: Dict[str, Any]) -> Dict[str, Any]:
    """Make one search of each path, method and label of the first shape."""
    searches: Dict[str, Any] = {}
    for path, methods in parameters.items():
        if not (path.startswith("/") and isinstance(methods, dict)):
            return parameters
        for method, labels in methods.items():
            if not isinstance(labels, dict):
                return parameters
            for label, values in labels.items():
                searches[_free_label(label, searches)] = {"paths": [path], method: values}
    return {"searches": searches} if searches else parameters
