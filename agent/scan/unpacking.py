"""Unpacks what is compressed while it is read: gzip, xz, bzip2 and, where Python has it, zstd.

Rules:

* What a file is packed with is told by its first bytes. Members or frames that follow each other are one
  content, as for the programs of the same name; zeros between and behind them are padding.
* Hostile files are small and unpack to very much: no more than `Limits` says is given, in pieces of at most a
  MiB, and the memory of xz and zstd is bounded.
* Whatever does not unpack to its end is said (`problem`): what was given until then is the beginning only.

zstd is in Python from 3.14 on, and before that in the package backports.zstd, which the agent file does not
hold by itself: half a MiB for each Python version.
"""

import zlib
from typing import Any, Callable, Iterator, NamedTuple, Optional, Protocol, Tuple

# What is given at once, and what is taken: of a file of very many tiny members, what follows a member is
# copied for each, so that is little.
_GIVEN_BYTES, _TAKEN_BYTES = 1 << 20, 32 << 10
# xz -9 needs 65 MiB to unpack (xz(1)); zstd's window is at most 2^27 bytes without --ultra and --long.
_XZ_MEMORY_BYTES = 80 << 20
_ZSTD_WINDOW_LOG = 27
# The longest signature of those below.
SIGNATURE_BYTES = 6


class Limits(NamedTuple):
    """How much is unpacked: `free_bytes`, beyond that `ratio` times what was taken, at most `most_bytes`."""

    free_bytes: int = 64 << 20
    # Logs pack 10 to 50 times smaller; a bomb 1,000 (gzip's most) to a million times.
    ratio: int = 250
    most_bytes: int = 8 << 30


class _Stream(Protocol):
    """One member or frame, as bz2, lzma and zstd of the standard library have it."""

    @property
    def eof(self) -> bool:
        """Tell whether its end was reached."""

    @property
    def needs_input(self) -> bool:
        """Tell whether it gives nothing more without further bytes."""

    @property
    def unused_data(self) -> bytes:
        """Return what was found behind its end."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Return at most so many bytes of what these and earlier bytes unpack to."""


class _GzipMember:
    """A gzip member (RFC 1952) behind the same interface."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        given = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        # A full piece may have left some of its bytes within zlib, even if all input was taken.
        self.needs_input = len(given) < max_length
        return given


class _Format(NamedTuple):
    """One way of packing: how to begin with a member, and what its decoder raises on damage."""

    begin: Callable[[], _Stream]
    errors: Tuple[type[Exception], ...]


def _gzip() -> _Format:
    return _Format(_GzipMember, (zlib.error,))


def _bzip2() -> _Format:
    import bz2  # noqa: PLC0415  (few files need it, and a Python may be built without)

    return _Format(bz2.BZ2Decompressor, (OSError, ValueError))


def _xz() -> _Format:
    import lzma  # noqa: PLC0415  (as bz2)

    return _Format(
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES), (lzma.LZMAError, EOFError)
    )


def _zstd() -> _Format:
    try:
        from compression import zstd  # noqa: PLC0415  (from Python 3.14 on)
    except ImportError:
        from backports import zstd  # noqa: PLC0415  (where it is installed)
    module: Any = zstd
    options = {module.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
    return _Format(lambda: module.ZstdDecompressor(options=options), (module.ZstdError, EOFError))


_FORMATS: Tuple[Tuple[bytes, str, Callable[[], _Format]], ...] = (
    (b"\x1f\x8b\x08", "gzip", _gzip),
    (b"\xfd7zXZ\0", "xz", _xz),
    (b"BZh", "bzip2", _bzip2),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
)


class Unpacker:
    """Unpacks one file; `problem` says why what it gave is not all there is, once it has come to its end."""

    def __init__(self, name: str, load: Callable[[], _Format], limits: Limits = Limits()) -> None:  # noqa: B008
        self.problem: Optional[str] = None
        self._name = name
        self._limits = limits
        self._taken_bytes = 0
        self._given_bytes = 0
        self._stream: Optional[_Stream] = None
        try:
            self._format: Optional[_Format] = load()
        except ImportError:
            self._format = None
            self.problem = f"is packed with {name}, which this endpoint's Python does not unpack"

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes of the file unpack to, in pieces of at most a MiB."""
        for start in range(0, len(data), _TAKEN_BYTES):
            if self._format is None:
                return
            piece = data[start : start + _TAKEN_BYTES]
            self._taken_bytes += len(piece)
            yield from self._unpack(self._format, piece)

    def finish(self) -> None:
        """Take the end of the file."""
        if self._stream is not None and self._format is not None:
            self._stop("ends in the middle of what it packs")

    def _unpack(self, how: _Format, data: bytes) -> Iterator[bytes]:
        while self._format is not None:
            if self._stream is None:
                data = data.lstrip(b"\0")
                if not data:
                    return
                self._stream = how.begin()
            try:
                given = self._stream.decompress(data, _GIVEN_BYTES)
            except how.errors as error:
                self._stop(f"is damaged ({error})")
                return
            data = b""
            self._given_bytes += len(given)
            self._keep_limits()
            if given:
                yield given
            if self._stream.eof:
                data, self._stream = self._stream.unused_data, None
            elif self._stream.needs_input:
                return

    def _keep_limits(self) -> None:
        limits = self._limits
        if self._given_bytes <= limits.free_bytes:
            return
        if self._given_bytes > limits.ratio * self._taken_bytes:
            self._stop(f"unpacks to more than {limits.ratio} times its size")
        elif self._given_bytes > limits.most_bytes:
            self._stop(f"unpacks to more than {limits.most_bytes >> 30} GiB")

    def _stop(self, why: str) -> None:
        self.problem = f"{why}: unpacked ({self._name}) up to {self._given_bytes} bytes"
        self._format = None


def open_packed(head: bytes, limits: Limits = Limits()) -> Optional[Unpacker]:  # noqa: B008  (immutable)
    """Return what unpacks a file that begins like this; None where it is not packed."""
    for signature, name, load in _FORMATS:
        if head.startswith(signature):
            return Unpacker(name, load, limits)
    return None
