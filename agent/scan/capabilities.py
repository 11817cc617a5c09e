"""Capabilities of files: their names, and how the kernel keeps them in the attribute security.capability.

Sources: capabilities(7); linux/capability.h (struct vfs_cap_data, vfs_ns_cap_data): a little-endian word with
the revision in its highest byte, then permitted and inheritable bits in words of 32, and in revision 3 the
user id of a namespace's root.
"""

import struct

ATTRIBUTE = "security.capability"
# Any of them.
ANY = "any"
# By number: their place here.
NAMES = (
    "cap_chown", "cap_dac_override", "cap_dac_read_search", "cap_fowner", "cap_fsetid", "cap_kill",
    "cap_setgid", "cap_setuid", "cap_setpcap", "cap_linux_immutable", "cap_net_bind_service",
    "cap_net_broadcast", "cap_net_admin", "cap_net_raw", "cap_ipc_lock", "cap_ipc_owner", "cap_sys_module",
    "cap_sys_rawio", "cap_sys_chroot", "cap_sys_ptrace", "cap_sys_pacct", "cap_sys_admin", "cap_sys_boot",
    "cap_sys_nice", "cap_sys_resource", "cap_sys_time", "cap_sys_tty_config", "cap_mknod", "cap_lease",
    "cap_audit_write", "cap_audit_control", "cap_setfcap", "cap_mac_override", "cap_mac_admin", "cap_syslog",
    "cap_wake_alarm", "cap_block_suspend", "cap_audit_read", "cap_perfmon", "cap_bpf",
    "cap_checkpoint_restore",
)  # fmt: skip
_WORDS = {
    (0x01, 12): struct.Struct("<2I"),
    (0x02, 20): struct.Struct("<4I"),
    (0x03, 24): struct.Struct("<4I"),
}
_HEAD = struct.Struct("<I")


def mask_of(name: str) -> int:
    """Return the bits that a capability's name stands for.

    Raises:
        ValueError: there is no such capability.

    """
    if name == ANY:
        return (1 << 64) - 1
    try:
        return 1 << NAMES.index(name)
    except ValueError:
        raise ValueError(f"there is no capability {name!r}; there are {ANY}, {', '.join(NAMES)}") from None


def decode_capabilities(value: bytes) -> int:
    """Return the bits of the capabilities that an attribute gives, permitted or inheritable.

    Raises:
        ValueError: it is in none of the kernel's forms.

    """
    if len(value) < _HEAD.size:
        raise ValueError("capabilities of no known form")
    words = _WORDS.get((_HEAD.unpack_from(value)[0] >> 24, len(value)))
    if words is None:
        raise ValueError("capabilities of no known form")
    bits = 0
    for place, word in enumerate(words.unpack_from(value, _HEAD.size)):
        # Permitted and inheritable by turns, the lower 32 of each first.
        bits |= word << 32 * (place // 2)
    return bits
