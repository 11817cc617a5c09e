#!/bin/sh
# @PROGRAM@ @VERSION@: a zip file that starts itself (see docs/deploying.md; `unzip -l` lists it). Only the shell's
# builtins and fixed paths are used: neither PATH nor HOME nor PYTHON* decide what runs. __main__.py goes on.
umask 077
unset python
for version in @VERSIONS@; do
  for directory in /usr/bin /usr/local/bin; do
    if [ -x "$directory/python$version" ]; then python="$directory/python$version"; break 2; fi
  done
done
if [ -z "$python" ]; then
  for candidate in /usr/bin/python3 /usr/local/bin/python3; do
    if [ -x "$candidate" ] && "$candidate" -I -S -B -c '@CHECK@' 2>/dev/null; then python="$candidate"; break; fi
  done
fi
if [ -z "$python" ]; then
  echo "@PROGRAM@: tool-missing: needs CPython @OLDEST@ to @NEWEST@ in /usr/bin or /usr/local/bin; none is there" >&2
  exit 2
fi
if [ -e /proc/self/fd ]; then
  exec 9<"$0"
  exec "$python" -I -S -B /proc/self/fd/9 "$@"
fi
exec "$python" -I -S -B "$0" "$@"
exit 2
