"""Access control: which signers may run which module.

Rules, all checked on the endpoint (gate step 9):
1. An operation's entry is the module's own, else `default`; without either it is refused.
2. A missing, empty or non-positive `minimum_weight` or weight refuses: an ACL is never satisfied by nobody.
3. The weights of the distinct signers (primary fingerprints) are added; unknown signers add nothing.
4. The sum must reach the module's `minimum_weight`.
"""

from typing import Annotated, Dict, FrozenSet

import msgspec
from msgspec import Meta

from protocol.errors import InvalidInput

Fingerprint = Annotated[str, Meta(pattern=r"^[0-9A-F]{40}\Z")]
Weight = Annotated[int, Meta(ge=1, le=1000)]


class AclEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may run a module: the weight needed, and what each investigator's signature weighs."""

    minimum_weight: Weight
    investigators: Annotated[Dict[Fingerprint, Weight], Meta(min_length=1)]


class Acl(msgspec.Struct, frozen=True, kw_only=True):
    """The entries by module name, with `default` for modules that have none of their own."""

    entries: Dict[str, AclEntry]

    def require(self, module: str, signers: FrozenSet[str]) -> None:
        """Raise unless the signers' weights reach what the module needs.

        Args:
            module: canonical module name.
            signers: primary fingerprints whose signatures verified, each once.

        Raises:
            InvalidInput: `acl-refused`.

        """
        entry = self.entries.get(module, self.entries.get("default"))
        if entry is None:
            raise InvalidInput("acl-refused", f"no ACL entry for module {module} and no default")
        weight = sum(entry.investigators.get(signer, 0) for signer in signers)
        if weight < entry.minimum_weight:
            raise InvalidInput(
                "acl-refused",
                f"module {module} needs weight {entry.minimum_weight}, the signers have {weight}",
            )

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
