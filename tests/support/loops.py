"""Loop devices that a test makes and takes away again."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def make_image(path: Path, size_bytes: int) -> Path:
    """Make a file of zeros that takes no space."""
    with path.open("wb") as file:
        file.truncate(size_bytes)
    return path


@contextmanager
def loop_device(image: Path, *words: str) -> Iterator[str]:
    """Have a file shown as a block device: its path."""
    command = ["losetup", "--find", "--show", *words, str(image)]
    device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@contextmanager
def mounted(device: str, point: Path) -> Iterator[Path]:
    """Mount a device on a new directory."""
    point.mkdir()
    subprocess.run(["mount", device, str(point)], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)
