"""Where our OpenPGP policy, gpg and Sequoia do not agree, class by class, and why.

A case is named `group/name` after its table in the tests; who of the three accepts it is written out. What is
not written here must be answered alike. docs/threat-model.md shows the same rows.
"""

from typing import NamedTuple

VOICES = ("MIG", "gpg", "Sequoia")


class Difference(NamedTuple):
    """One class: who accepts, as words from `VOICES`, by case."""

    what: str
    why: str
    accepted: dict[str, str]

    @property
    def row(self) -> str:
        """The row of the table in docs/threat-model.md."""
        verdicts = []
        for voice in VOICES:
            count = sum(voice in accepting.split() for accepting in self.accepted.values())
            words = {0: "refuses", len(self.accepted): "accepts"}
            verdicts.append(words.get(count, f"accepts {count} of {len(self.accepted)}"))
        return f"| {self.what} | {' | '.join(verdicts)} | {self.why} |"


def _all(accepting: str, *cases: str) -> dict[str, str]:
    return dict.fromkeys(cases, accepting)


DIFFERENCES = (
    Difference(
        "a key that was valid when it signed and is not now",
        "an action lives for days, and a key that ended since must not command; Sequoia judges the key at the"
        " time that the signature states, which its maker chose",
        _all(
            "Sequoia",
            *(f"vectors/key-expired-{kind}-sig-while-valid" for kind in ("ed25519", "nistp256", "rsa2048")),
            "gpg/key over",
            "gpg/subkey over",
        ),
    ),
    Difference(
        "a signature older than the binding of the subkey that made it",
        "gpg replaces the binding when the subkey's life is prolonged; Sequoia then finds none of that time",
        _all("MIG gpg", "gpg/subkey prolonged"),
    ),
    Difference(
        "a life that ends in this second",
        "what has expired at a time has no use at that time; gpg allows the last second, Sequoia asks"
        " about the time of the signature",
        _all("gpg Sequoia", "lifetime/over-now"),
    ),
    Difference(
        "a signature or self-signature from the future",
        "at most 5 minutes ahead; gpg warns and goes on (Sequoia has a clock of its own, later than"
        " that of the last case)",
        _all("gpg", "vectors/sig-in-future", "self-signature/future", "binding/future")
        | _all("gpg Sequoia", "signature/rule-4-future"),
    ),
    Difference(
        "a signature that has expired by the machine's clock and not by the test's",
        "none but the test: pysequoia cannot be told a time",
        _all("MIG gpg", "signature/good-expires-later"),
    ),
    Difference(
        "text signatures",
        "they leave line endings open, so one signature fits several byte strings",
        _all(
            "gpg Sequoia", "vectors/text-sig-crlf-changed-msg", "vectors/text-sig-lf", "signature/rule-2-text"
        )
        | _all("Sequoia", "vectors/text-sig-lone-cr"),
    ),
    Difference(
        "SHA-1 and RIPEMD-160 for messages, self-signatures and bindings",
        "collisions are within reach, so one signature may fit two texts",
        _all(
            "gpg",
            "vectors/sha1-self-signature",
            "vectors/weak-ripemd160-sig",
            "vectors/weak-sha1-sig",
            "vectors/weak-sha1-sig-ed25519",
            "vectors/x-sha1-doc-sig",
            "signature/rule-3-sha1",
            "self-signature/sha1",
            "binding/sha1",
            "back-signature/sha1",
        ),
    ),
    Difference(
        "SHA-3",
        "not in the policy; neither gpg nor sq makes it for keys of version 4",
        _all("Sequoia", "signature/rule-3-sha3"),
    ),
    Difference(
        "RSA below 2,048 bits",
        "112 bits of security are the least (NIST SP 800-131A)",
        _all("gpg", "vectors/weak-rsa1024", "vectors/key-expiry-extended-rsa1024"),
    ),
    Difference(
        "algorithms beyond RSA, Ed25519 and the NIST curves",
        "every algorithm more is code more that believes, and nobody needs these to sign here",
        _all(
            "gpg",
            *(
                f"vectors/good-{kind}-2{minor}"
                for kind in ("brainpoolP256r1", "secp256k1")
                for minor in (2, 4)
            ),
        )
        | _all("gpg Sequoia", "vectors/good-dsa2048-22", "vectors/good-dsa2048-24"),
    ),
    Difference(
        "keys of version 6",
        "gpg makes none; to be looked at when people have them",
        _all("Sequoia", "vectors/good-sq1.3-rfc9580-cv25519", "vectors/good-sq1.3-rfc9580-rsa3k"),
    ),
    Difference(
        "something before, beside or behind the one signature packet",
        "one packet is judged, so one may be there; the others choose one and ignore the rest",
        _all("gpg", "vectors/two-sigs-first-other-key")
        | _all(
            "gpg Sequoia",
            "signature/rule-1-two",
            "signature/rule-1-trailing",
            "signature/rule-7-trailing-in-packet",
        ),
    ),
    Difference(
        "a digest that does not begin as the packet announces",
        "the two octets are not signed, and no honest program gets them wrong",
        _all("gpg Sequoia", "signature/rule-3-digest-start") | _all("gpg", "self-signature/digest-start"),
    ),
    Difference(
        "subpackets that stand twice, or name another issuer or none",
        "two answers to one question are no answer; the issuer is compared in full, as it was signed",
        _all(
            "gpg Sequoia",
            "signature/rule-4-two-creation-times",
            "signature/rule-4-two-issuers",
            "signature/rule-5-key-id-only",
            "signature/rule-5-another-key-id",
            "self-signature/names-eve",
        )
        | _all("Sequoia", "signature/rule-5-unhashed-issuer", "flags/twice"),
    ),
    Difference(
        "an unknown critical subpacket outside what is signed",
        "it asks not to be ignored; whoever added it, refusing is safe",
        _all("Sequoia", "signature/rule-4-critical-unhashed"),
    ),
    Difference(
        "more than one certificate, or packets that have no place in one",
        "which certificate is meant would be a guess; a secret key in a list is an accident to be noticed",
        _all(
            "gpg",
            "shape/two",
            "shape/twice",
            "shape/user-id-first",
            "shape/literal-data",
            "shape/reserved-packet",
        )
        | _all("gpg Sequoia", "shape/unknown-packet")
        | _all("Sequoia", "shape/secret-subkey"),
    ),
    Difference(
        "certificates above 256 KiB or 1,024 packets",
        "a bound on what a hostile certificate can cost",
        _all("gpg Sequoia", "shape/many-packets", "shape/large", "shape/very-large"),
    ),
    Difference(
        "a certificate without user id, a self-signature that names no issuer, parts of versions to come",
        "what counts is what the primary key signed (RFC 9580 asks for no user id), and what is not"
        " understood beside it counts for nothing; gpg 2.2 does not import these",
        _all(
            "MIG Sequoia",
            "shape/good-direct-key",
            "shape/good-no-issuer",
            "shape/good-with-version-6",
            "shape/good-with-subkey-6",
            "shape/good-with-unknown-subkey",
        ),
    ),
    Difference(
        "a revocation that is odd: no date, malformed, critical, names nobody, older than the binding",
        "whoever can make it verify owns the key, and means it; refusing one too many is safe",
        _all(
            "gpg Sequoia",
            "revocation/without-time",
            "revocation/malformed-subpackets",
            "revocation/critical",
            "revocation/names-eve",
            "binding/revoked-before-bound",
        )
        | _all("gpg", "revocation/sha3", "revocation/names-nobody")
        | _all("Sequoia", "revocation/digest-start"),
    ),
    Difference(
        "a revocation that cannot be decided: unknown hash, version 3, a revoker whose key is not there",
        "any doubt refuses",
        _all(
            "gpg Sequoia",
            "revocation/undecidable",
            "revocation/undecidable-by-nobody",
            "revocation/undecidable-malformed",
            "revocation/version-3",
            "revocation/by-designated",
        ),
    ),
    Difference(
        "a key whose only self-signature was revoked or has expired",
        "then nobody says any more what the key is for",
        _all(
            "gpg Sequoia",
            "self-signature/revoked",
            "self-signature/revoked-at-once",
            "self-signature/revoked-sha1",
            "self-signature/revoked-undated",
        )
        | _all("gpg", "self-signature/expired", "lifetime/extension-over")
        | _all("Sequoia", "self-signature/direct-key-revoked"),
    ),
    Difference(
        "two self-signatures of one second that disagree",
        "both hold, so the stricter one decides",
        _all("Sequoia", "lifetime/two-in-one-second"),
    ),
    Difference(
        "no key flags",
        "a key signs where its owner said so, and not because nobody said no",
        _all("gpg", "flags/none", "binding/no-flags"),
    ),
    Difference(
        "the back-signature is second to a bad one, or stands only in an older binding",
        "one that verifies, in the binding that counts, is proof; gpg looks at the first, Sequoia at all",
        _all("MIG Sequoia", "back-signature/second-is-good")
        | _all("Sequoia", "back-signature/only-in-an-older-binding"),
    ),
    Difference(
        "a subkey that stands twice, or whose binding stands elsewhere",
        "no program writes this; which copy is meant would be a guess",
        _all("gpg Sequoia", "binding/twice", "binding/elsewhere"),
    ),
)
