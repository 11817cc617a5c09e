"""Start-up code of the zip files (bootstrap, natives, prelude.sh) and what builds them (the rest)."""
