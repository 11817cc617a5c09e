"""What one OpenPGP verification costs: parsing the certificate, the policy, the mathematics.

    python bench/openpgp.py [CASE ...]

Cases are folders of tests/protocol/vectors/openpgp. `first` is the first verification of a fresh process with
everything imported; `parse` and `verify` are medians of 300, the cases taking turns. Times in milliseconds.
"""

import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VECTORS = ROOT / "tests" / "protocol" / "vectors" / "openpgp"
CASES = (
    "good-rsa4096-24",
    "good-rsa-signing-subkey-24",
    "good-ed25519-24",
    "good-signing-subkey-24",
    "good-nistp256-24",
)
NOW = datetime(2026, 12, 1, tzinfo=UTC)
sys.path.insert(0, str(ROOT))

from protocol.openpgp import parse_certificate, parse_signature_file, require_detached_signature  # noqa: E402


def verify(case: str) -> tuple[float, float]:
    """Verify one case and return the seconds for parsing and for verifying."""
    cert, armoured, message = (
        (VECTORS / case / name).read_bytes() for name in ("cert.asc", "sig.asc", "msg")
    )
    signature = parse_signature_file(armoured)
    began = time.perf_counter()
    certificate = parse_certificate(cert)
    parsed = time.perf_counter()
    require_detached_signature(certificate, signature, message, NOW)
    return parsed - began, time.perf_counter() - parsed


def first(case: str) -> float:
    """Return the milliseconds of the first verification in a fresh process, the median of 7."""
    runs = [
        subprocess.run([sys.executable, __file__, "--first", case], capture_output=True, check=True).stdout
        for _ in range(7)
    ]
    return statistics.median(map(float, runs))


def main(cases: list[str]) -> None:
    """Print one line per case."""
    if cases[:1] == ["--first"]:
        print(1000 * sum(verify(cases[1])))
        return
    times: dict[str, list[tuple[float, float]]] = {case: [] for case in cases or CASES}
    for _ in range(300):
        for case, measured in times.items():
            measured.append(verify(case))
    for case, measured in times.items():
        parse, check = (1000 * statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{case:28} first {first(case):.2f}  parse {parse:.2f}  verify {check:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
