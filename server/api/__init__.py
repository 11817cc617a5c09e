"""The HTTP API: thin handlers over the store; every refusal has a code of `protocol.errors`."""
