"""What agent, server and client share: formats, trust policy and names. No I/O and no clock."""
