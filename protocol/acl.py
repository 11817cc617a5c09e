"""Access control: which signers may run which module, and on which paths.

Rules, all checked on the endpoint (gate step 9):
1. An operation's entry is the module's own, else `default`; without either it is refused. A module's own
   overrides `default` wholly: nothing of `default` is added to it. Names are canonical, never aliases.
2. A missing, empty or non-positive `minimum_weight` or weight refuses: an ACL is never satisfied by nobody.
3. The weights of the distinct signers (primary fingerprints) are added; unknown signers add nothing.
4. The sum must reach the module's `minimum_weight`; where `default` stands in for an entry of its own, also
   the weight that the module itself declares.
5. Where the entry has `paths`, every path that the parameters name must lie at or below one of them; where it
   has `deny`, none may lie at or below one of those. Whole components count, and `deny` wins. What parameters
   say is judged here as it is written; what is really opened is judged again by whoever opens it
   (`agent.scan.fence`), since links and mounts lead elsewhere.
6. Parameters that ask for matched text itself, not only for counts of it, need `fields = true` in the entry.
"""

from itertools import takewhile
from typing import Annotated, Dict, FrozenSet, Iterable, List, NamedTuple, Optional, Tuple

import msgspec
from msgspec import Meta

from protocol.errors import InvalidInput

Fingerprint = Annotated[str, Meta(pattern=r"^[0-9A-F]{40}\Z")]
Weight = Annotated[int, Meta(ge=1, le=1000)]
RulePath = Annotated[str, Meta(pattern=r"^/[^\x00]*\Z", max_length=4096)]
RulePaths = Annotated[Tuple[RulePath, ...], Meta(min_length=1, max_length=1000)]
_GLOB = frozenset("*?[")


class PathRules(NamedTuple):
    """On which paths a module may work: `allow` None is everywhere; `deny` wins."""

    allow: Optional[Tuple[str, ...]] = None
    deny: Tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether nothing is ruled out."""
        return self.allow is None and not self.deny

    def require(self, paths: Iterable[str]) -> None:
        """Raise unless every path, as it is written, is allowed.

        Of a glob the components before the first special one are judged. A path with `..` is refused: where
        it leads cannot be told from how it is written.

        Raises:
            InvalidInput: `acl-refused`.

        """
        if self.is_open:
            return
        for path in paths:
            components = [component for component in path.split("/") if component not in ("", ".")]
            if not path.startswith("/") or ".." in components:
                raise InvalidInput("acl-refused", f"{path[:256]!r}: only plain absolute paths are allowed")
            fixed = list(takewhile(_GLOB.isdisjoint, components))
            if self.allow is not None and not any(_is_below(fixed, rule) for rule in self.allow):
                raise InvalidInput(
                    "acl-refused", f"{path[:256]!r} is not below {', '.join(self.allow)[:512]}"
                )
            for rule in self.deny:
                if _is_below(fixed, rule):
                    raise InvalidInput("acl-refused", f"{path[:256]!r} is denied by {rule}")


def _is_below(components: List[str], rule: str) -> bool:
    held = [component for component in rule.split("/") if component]
    return components[: len(held)] == held


class AclEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who may run a module: the weight needed, what each investigator's signature weighs, and on which paths.

    `paths` and `deny` are real paths of the endpoint, without globs; a path covers all that is below it.
    `fields` lets a module give text that it matched, where its parameters ask for it.
    """

    minimum_weight: Weight
    investigators: Annotated[Dict[Fingerprint, Weight], Meta(min_length=1)]
    paths: Optional[RulePaths] = None
    deny: Optional[RulePaths] = None
    fields: bool = False

    def __post_init__(self) -> None:
        """Refuse rules that could be read in two ways; msgspec makes a refusal of it."""
        for rule in (*(self.paths or ()), *(self.deny or ())):
            if rule != "/" and any(part in ("", ".", "..") for part in rule[1:].split("/")):
                raise ValueError(f"the path {rule!r} is not plain: no //, ., .. and no / at its end")
            if not _GLOB.isdisjoint(rule):
                raise ValueError(f"the path {rule!r} holds a character of a glob; a path covers all below it")


class Acl(msgspec.Struct, frozen=True, kw_only=True):
    """The entries by module name, with `default` for modules that have none of their own."""

    entries: Dict[str, AclEntry]

    def _find(self, module: str) -> AclEntry:
        entry = self.entries.get(module, self.entries.get("default"))
        if entry is None:
            raise InvalidInput("acl-refused", f"no ACL entry for module {module} and no default")
        return entry

    def require(self, module: str, signers: Iterable[str], least: int = 1) -> None:
        """Raise unless the signers together may run a module.

        Args:
            module: its canonical name.
            signers: primary fingerprints whose signatures verified, each once.
            least: the weight that the module declares for where it has no entry of its own.

        Raises:
            InvalidInput: `acl-refused`.

        """
        entry = self._find(module)
        needed = entry.minimum_weight if module in self.entries else max(entry.minimum_weight, least)
        weight = sum(entry.investigators.get(signer, 0) for signer in signers)
        if weight < needed:
            raise InvalidInput(
                "acl-refused", f"module {module} needs weight {needed}, the signers have {weight}"
            )

    def path_rules(self, module: str) -> PathRules:
        """Return on which paths a module may work.

        Raises:
            InvalidInput: `acl-refused`, where there is no entry for it.

        """
        entry = self._find(module)
        return PathRules(entry.paths, entry.deny or ())

    def allows_fields(self, module: str) -> bool:
        """Tell whether a module may give matched text itself.

        Raises:
            InvalidInput: `acl-refused`, where there is no entry for it.

        """
        return self._find(module).fields

    @property
    def fingerprints(self) -> FrozenSet[str]:
        """Everyone who is named."""
        return frozenset(name for entry in self.entries.values() for name in entry.investigators)

    def require_satisfiable(self) -> None:
        """Raise where an entry can never be satisfied, or there is none.

        Raises:
            InvalidInput: `bad-config`.

        """
        if not self.entries:
            raise InvalidInput("bad-config", "the ACL is empty: nobody could run anything")
        for name, entry in self.entries.items():
            if sum(entry.investigators.values()) < entry.minimum_weight:
                raise InvalidInput("bad-config", f"acl.{name}: all investigators together lack the weight")


def convert_acl(value: object) -> Acl:
    """Turn the decoded table `[agent.acl]` into an ACL.

    Raises:
        InvalidInput: `bad-config`, with the entry that is wrong.

    """
    try:
        return Acl(entries=msgspec.convert(value, Dict[str, AclEntry]))
    except msgspec.ValidationError as error:
        raise InvalidInput("bad-config", f"acl: {error}") from None
