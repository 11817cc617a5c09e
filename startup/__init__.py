"""Start-up code of the zip files (bootstrap, natives, prelude.sh), what builds them, parts of quickstart."""
