"""What the gate costs a warm child: from the delivery's bytes to the admission, certificates read already.

    python bench/gate.py

One signature by a real key of each kind, an action of one file search and a target; milliseconds: the median
and the 99th percentile of 500 actions in one process, and the first of a process that has loaded what a warm
child loads and admitted nothing yet, as every child is. The last is the figure that counts.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent.runtime.child import load_shared_parts  # noqa: E402
from agent.runtime.gate import Gate, make_endpoint  # noqa: E402
from agent.runtime.trust import decode_told_trust, resolve_trust  # noqa: E402
from agent.runtime.trust_store import Held, Mark, encode_trust  # noqa: E402
from tests.support.endpoint import FACTS, make_baked, sign_action, utc_now  # noqa: E402
from tests.support.gpg import Investigator, temporary_investigator  # noqa: E402

ROUNDS = 500
FRESH = 7
SEARCH = {"paths": ["/etc"], "names": ["^passwd$"], "contents": ["root"]}
OPERATIONS = [{"module": "file", "parameters": {"searches": {"s1": SEARCH}}}]


def admit(body: bytes, told: bytes, rounds: int) -> list[float]:
    """Return the milliseconds of each admission."""
    trust, endpoint, now = resolve_trust(decode_told_trust(told)), make_endpoint(FACTS), utc_now()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        Gate(body, trust=trust, endpoint=endpoint, now=now).admit()
        times.append(1000 * (time.perf_counter() - began))
    return times


def admit_first(body: bytes, told: bytes) -> float:
    """Return the milliseconds of the one admission of a child that is warm."""
    load_shared_parts()
    return admit(body, told, 1)[0]


def fresh(body: bytes, told: bytes) -> float:
    """Return the milliseconds of the first admission of a new process, the median of a few."""
    data = json.dumps([body.decode(), told.decode()]).encode()
    command = [sys.executable, __file__, "--one"]
    runs = [subprocess.run(command, input=data, capture_output=True, check=True).stdout for _ in range(FRESH)]
    return statistics.median(map(float, runs))


def measure(algorithm: str) -> None:
    """Print one line for a key of this kind."""
    with temporary_investigator(algorithm=algorithm) as investigator:
        told = encode_trust(make_baked([investigator]), Held(Mark(0, ""), b""), utc_now())
        body = signed_by(investigator)
        times = sorted(admit(body, told, ROUNDS))
        slow = times[ROUNDS * 99 // 100]
        print(
            f"{algorithm:8}  median {statistics.median(times):.2f} ms  p99 {slow:.2f} ms"
            f"  first of a process {fresh(body, told):.2f} ms"
        )


def signed_by(investigator: Investigator) -> bytes:
    """Return the delivery."""
    return sign_action(investigator, operations=OPERATIONS, target="os = 'linux' AND name LIKE 'web%'")


def main() -> None:
    """Measure each kind of key."""
    if sys.argv[1:] == ["--one"]:
        body, told = json.load(sys.stdin)
        print(admit_first(body.encode(), told.encode()))
        return
    for algorithm in ("ed25519", "rsa4096"):
        measure(algorithm)


if __name__ == "__main__":
    main()
