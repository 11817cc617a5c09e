"""Find SSH keys: private ones and whether they are encrypted, public and authorized ones, certificates.

Every key that satisfies all filters is a record with its fingerprints as OpenSSH prints them; without a
filter, every key is. `found` means that there is one. Keys are looked for in files of at most 1 MB that hold
a line which looks like one: below `paths` up to `maxdepth`, or without `paths` in /etc/ssh, in the home
directories of people (root and accounts from number 1000, 500 on macOS), and where sshd looks for the keys of
any account.

Formats: lines as of authorized_keys and .pub files, certificates included; private keys of OpenSSH, in PEM
(PKCS #1, PKCS #8, SEC 1) and of PuTTY; RFC 4716. Of an encrypted key in PEM only that it is there can be
told. Keys in files of known hosts are of others and are left out.

`weak` tells why a key should not be in use: short (RSA below 2048 bits), dsa, exponent, roca (made by a
flawed chip), readable (a private key that others than its owner may read). Of an option only its name is
told, of `from` its patterns; never a command, an environment or what is secret in a key.

Statistics: `files_seen`, `files_read` and more of the walk, `keys_seen`, `not_understood` (what looks like a
key and could not be read), `skipped` by reason, `errors`.
"""

import stat
import sys
import time
from contextlib import closing
from typing import Annotated, Any, Dict, Iterator, List, Literal, Optional, Tuple

from msgspec import Meta

from agent.module import Context, ModuleParams, ModuleRecord
from agent.platform.accounts_local import Account, LocalAccounts
from agent.platform.authorized_keys import AuthorizedKeys
from agent.platform.rooted import Rooted
from agent.platform.ssh_files import MARKS, FoundKey, parse_keys
from agent.scan.coverage import Coverage
from agent.scan.fence import Fence
from agent.scan.items import Match
from agent.scan.patterns import require_engine, require_pattern, split_inverse
from agent.scan.plain_flags import plain_flags, plural_parameters
from agent.scan.plan import make_plan
from agent.scan.process_checks import TextFilter
from agent.scan.scan import scan
from agent.scan.search import Options, Regex, RootPath, Search
from agent.scan.texts import mode_text, path_base64, path_text, time_text

PATHS = ("paths",)
# The walk needs openat(2).
PLATFORMS = ("linux", "darwin")
EXAMPLES = (
    "mig sshkey --fingerprint SHA256:uNiVztksCsDhcc0u9e8BrrXVeQ4SRWA7KcwhVbBpK2o   where it lets in, or lies",
    "mig sshkey --kind private --unencrypted   private keys that anybody who copies them can use",
    "mig sshkey --kind authorized --comment 'old-laptop'   where a key was let in",
    "mig sshkey --weak   keys that should not be in use any more",
    "mig sshkey --kind private --path /srv --path /opt   keys that were left in applications",
)
Kind = Literal["private", "public", "authorized", "certificate"]
Weakness = Literal["short", "dsa", "exponent", "roca", "readable"]
DEFAULT_DEPTH = 8
_MOST_BYTES = 1 << 20
_MOST_KEYS = 10_000
_PEOPLE_FROM = 500 if sys.platform == "darwin" else 1000
_HOST_KEYS = b"/etc/ssh"
# Directories that are homes of some account, and hold all the rest, too.
_NO_HOMES = (b"/usr", b"/var", b"/etc", b"/bin", b"/sbin", b"/usr/sbin", b"/dev", b"/proc", b"/nonexistent")
_GLOB = frozenset(b"*?[")
_SINGULAR = {"paths": "path", "fingerprints": "fingerprint", "kinds": "kind", "comments": "comment"}
Fingerprint = Annotated[
    str, Meta(pattern=r"^(SHA256:[A-Za-z0-9+/]{43}=?|(MD5:)?[0-9a-f]{2}(:[0-9a-f]{2}){15})\Z")
]


class Params(ModuleParams, frozen=True, kw_only=True):
    """Where to look for which keys; all filters must hold, several values of one are alternatives."""

    paths: Annotated[
        Tuple[RootPath, ...],
        Meta(
            description="files or directories to look in; may hold * ? [...] and **; without any, where keys"
            " are usually kept",
            max_length=1000,
        ),
    ] = ()
    maxdepth: Annotated[
        int,
        Meta(description="how deep to look: 1 is the files directly in the path; 0 is 8", ge=0, le=1000),
    ] = 0
    fingerprints: Annotated[
        Tuple[Fingerprint, ...],
        Meta(
            description="fingerprints, as ssh-keygen -l prints them (SHA256:... or MD5:...)",
            max_length=10_000,
        ),
    ] = ()
    kinds: Annotated[
        Tuple[Kind, ...], Meta(description="private public authorized certificate, any of them", max_length=4)
    ] = ()
    comments: Annotated[
        Tuple[Regex, ...],
        Meta(description="regular expressions (RE2) on the comment; a leading ! leaves out", max_length=1000),
    ] = ()
    unencrypted: Annotated[bool, Meta(description="private keys that no passphrase protects")] = False
    weak: Annotated[bool, Meta(description="keys that are weak, or that others may read")] = False

    def __post_init__(self) -> None:
        """Refuse expressions that are none; msgspec turns the ValueError into its own error."""
        for expression in self.comments:
            require_pattern(split_inverse(expression)[0], "comments")


class Record(ModuleRecord, frozen=True, kw_only=True):
    """A key in a file."""

    path: Annotated[
        str,
        Meta(
            description=r"the file; where its path is not UTF-8, escaped with \xff for a byte and \\ for a"
            " backslash"
        ),
    ]
    path_b64: Annotated[
        Optional[str], Meta(description="bytes of the path in base64, only where it is not UTF-8")
    ] = None
    line: Annotated[Optional[int], Meta(description="line that it stands on, from 1")] = None
    kind: Annotated[Kind, Meta(description="private, public, authorized (it lets in) or certificate")]
    format: Annotated[str, Meta(description="openssh pem pkcs8 putty rfc4716")]
    algorithm: Annotated[
        Optional[str], Meta(description="kind of the key as SSH names it, where it can be told")
    ] = None
    size_bits: Annotated[Optional[int], Meta(description="length of the key in bits")] = None
    fingerprint_sha256: Annotated[
        Optional[str], Meta(description="fingerprint as SHA256:base64; of a certificate that of its key")
    ] = None
    fingerprint_md5: Annotated[Optional[str], Meta(description="fingerprint as MD5:xx:xx:...")] = None
    encrypted: Annotated[
        Optional[bool], Meta(description="of a private key: whether a passphrase protects it")
    ] = None
    weak: Annotated[
        Optional[Tuple[Weakness, ...]], Meta(description="why it is weak: short dsa exponent roca readable")
    ] = None
    comment: Annotated[Optional[str], Meta(description="the comment beside it, at most 256 bytes")] = None
    options: Annotated[Optional[Tuple[str, ...]], Meta(description="names of the options on its line")] = None
    origins: Annotated[
        Optional[Tuple[str, ...]], Meta(description="patterns of the option from: where it may be used from")
    ] = None
    forced_command: Annotated[bool, Meta(description="a command is forced on who uses it")] = False
    key_id: Annotated[Optional[str], Meta(description="what a certificate calls itself")] = None
    principals: Annotated[
        Optional[Tuple[str, ...]], Meta(description="whom or what host a certificate is for; the first 64")
    ] = None
    valid_before: Annotated[
        Optional[str], Meta(description="until when a certificate holds, RFC 3339 in UTC; for ever without")
    ] = None
    signer_sha256: Annotated[
        Optional[str], Meta(description="fingerprint of the key that signed a certificate")
    ] = None
    mode: Annotated[str, Meta(description="type and permission bits of the file as letters")]
    uid: Annotated[int, Meta(description="number of the file's owner")]
    gid: Annotated[int, Meta(description="number of the file's group")]
    size_bytes: Annotated[int, Meta(description="size of the file in bytes")]
    mtime: Annotated[str, Meta(description="last change of the file, RFC 3339 in UTC")]


def run(params: Params, context: Context) -> Iterator[Record]:
    """Yield one record for each key.

    Raises:
        InvalidInput: `unsupported` where there is no engine for regular expressions.

    """
    require_engine("a search for keys")
    files = Rooted("/", fence=Fence(context.paths), note=context.note)
    depth = params.maxdepth or DEFAULT_DEPTH
    paths = [path.encode("utf-8", "surrogateescape") for path in params.paths] or usual_paths(files)
    search = Search(
        paths=tuple(path.decode("utf-8", "surrogateescape") for path in paths),
        contents=(MARKS,),
        sizes=(f"<{_MOST_BYTES}",),
        options=Options(matchall=True, maxdepth=depth),
    )
    coverage = Coverage(context.note)
    seen = broken = 0

    def progress() -> None:
        context.statistics.update(coverage.statistics())
        context.progress()

    try:
        found = scan(
            make_plan({"keys": search}, time.time_ns()),
            coverage=coverage,
            rules=context.paths,
            check=context.check,
            truncate=context.truncate,
            progress=progress,
        )
        with closing(found):
            for match in found:
                context.check()
                name = match.path.rpartition(b"/")[2]
                data = files.read(match.path, _MOST_BYTES) if b"known_hosts" not in name else None
                if data is None:
                    continue
                keys, lost = parse_keys(data, name)
                seen += len(keys)
                broken += lost
                if len(keys) > _MOST_KEYS:
                    context.truncate(
                        f"{path_text(match.path)}: only {_MOST_KEYS} of its {len(keys)} keys are told"
                    )
                for key in keys[:_MOST_KEYS]:
                    record = _record(key, match)
                    if _holds(params, record):
                        yield record
    finally:
        context.statistics.update(coverage.statistics())
        context.statistics.update(
            keys_seen=seen, not_understood=broken, errors=coverage.errors + files.errors
        )


def usual_paths(files: Rooted) -> List[bytes]:
    """Return where keys are usually kept on a system."""
    local, keys = LocalAccounts(files), AuthorizedKeys(files)
    paths = [_HOST_KEYS]
    for account in local.accounts:
        home = account.home.rstrip(b"/")
        if home and home not in _NO_HOMES and _is_person(account):
            paths.append(home)
        elif home.startswith(b"/"):
            paths.append(home + b"/.ssh")
        paths += keys.paths(account)
    if sys.platform == "darwin":
        paths += [b"/Users"]
    there = (path for path in dict.fromkeys(paths) if not _GLOB.intersection(path))
    return [path for path in there if files.status(path, follow=True) is not None] or [_HOST_KEYS]


def _is_person(account: Account) -> bool:
    return account.uid == 0 or account.uid >= _PEOPLE_FROM or account.home.startswith((b"/home/", b"/root"))


def _holds(params: Params, record: Record) -> bool:
    if params.kinds and record.kind not in params.kinds:
        return False
    if params.unencrypted and record.encrypted is not False:
        return False
    if params.weak and not record.weak:
        return False
    if params.fingerprints and not _wanted(params).intersection(
        (record.fingerprint_sha256, record.fingerprint_md5)
    ):
        return False
    comment = (record.comment or "").encode("utf-8", "surrogatepass")
    return not params.comments or TextFilter(params.comments).holds([comment])


def _wanted(params: Params) -> "frozenset[Optional[str]]":
    return frozenset(
        one.rstrip("=") if one.startswith("SHA256:") else one if one.startswith("MD5:") else f"MD5:{one}"
        for one in params.fingerprints
    )


def _record(key: FoundKey, match: Match) -> Record:
    status, public = match.status, key.public
    weak = list(public.weak) if public is not None else []
    if key.kind == "private" and stat.S_IMODE(status.st_mode) & 0o077:
        weak.append("readable")
    certificate = public.certificate if public is not None else None
    signed: Dict[str, Any] = {}
    if certificate is not None:
        until = certificate.valid_before_s
        signed = {
            "key_id": path_text(certificate.key_id[:1024]),
            "principals": tuple(path_text(one[:256]) for one in certificate.principals) or None,
            "valid_before": time_text(until * 1_000_000_000) if until is not None else None,
            "signer_sha256": certificate.signer_sha256,
        }
    return Record(
        path=path_text(match.path),
        path_b64=path_base64(match.path),
        line=key.line,
        kind=key.kind,  # type: ignore[arg-type]  # one of Kind, as parse_keys says
        format=key.format,
        algorithm=path_text(public.algorithm) if public is not None else None,
        size_bits=public.bits if public is not None else None,
        fingerprint_sha256=public.sha256 if public is not None else None,
        fingerprint_md5=public.md5 if public is not None else None,
        encrypted=key.is_encrypted,
        weak=tuple(weak) or None,  # type: ignore[arg-type]  # of Weakness, which a test holds to them
        comment=path_text(key.comment) or None,
        options=tuple(map(path_text, key.options)) or None,
        origins=tuple(map(path_text, key.origins)) or None,
        forced_command=key.has_command,
        mode=mode_text(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size_bytes=status.st_size,
        mtime=time_text(status.st_mtime_ns),
        **signed,
    )


def upgrade(parameters: Any) -> Any:
    """Rewrite looser spellings: a name in the singular, a lone value. The ancestor's names are ours."""
    return plural_parameters(parameters, _SINGULAR)


FLAGS = plain_flags(Params, _SINGULAR)


def from_flags(values: Dict[str, Any]) -> Any:
    """Make the parameters of the command line's flags."""
    return plural_parameters(values, _SINGULAR)
