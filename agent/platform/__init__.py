"""Facts of one operating system: no policy, no protocol."""
