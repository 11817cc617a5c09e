"""Writes the modules' pages, docs/modules/*.md, from what the modules declare.

    python docs/make_modules.py            writes them anew
    python docs/make_modules.py --check    changes nothing, and exits 1 where one is not what it should be

What stands there is changed in the module's file: its docstring, `EXAMPLES`, and the descriptions of its
fields. A test holds the pages to the code.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent.describe import Member, declared_members  # noqa: E402
from agent.registry import Module, load_module, module_names  # noqa: E402
from client.flags import module_flags  # noqa: E402

PAGES = Path(__file__).resolve().parent / "modules"
_MADE = (
    "<!-- Made by docs/make_modules.py from what the module declares: change the module, not this page. -->"
)
_INTRODUCTION = (
    "What an agent can be asked. `mig MODULE --help` says the same of the build at hand;"
    " how actions are written: [actions](../actions.md)."
)
_SYSTEMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}


def pages() -> dict[str, str]:
    """Return every page by its file's name."""
    modules = [load_module(name) for name in module_names()]
    return {"README.md": _index(modules), **{f"{module.name}.md": _page(module) for module in modules}}


def _index(modules: list[Module]) -> str:
    rows = [
        f"| [`{module.name}`]({module.name}.md) | {_cell(_first_line(module))} | {_systems(module)} |"
        for module in modules
    ]
    lines = [
        "# Modules",
        "",
        _MADE,
        "",
        _INTRODUCTION,
        "",
        "| module | what it answers | systems |",
        "|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def _page(module: Module) -> str:
    lines = [f"# `{module.name}`", "", _MADE, "", module.help, "", _about(module), ""]
    if module.examples:
        lines += [
            "## Examples",
            "",
            "```console",
            *(f"$ {_example(one)}" for one in module.examples),
            "```",
            "",
        ]
    flags = module_flags(module)
    if flags:
        lines += ["## On the command line", "", "| flag | meaning |", "|---|---|"]
        for flag in flags:
            value = (
                ""
                if flag.is_bool
                else f" {flag.metavar or flag.type.__name__.upper().replace('STR', 'TEXT')}"
            )
            again = "; may be repeated" if flag.repeat else ""
            lines.append(f"| `--{flag.name}{value}` | {_cell(flag.help)}{again} |")
        lines += [
            "",
            "What every module is asked with (`-t`, `--expire`, `--json`, …): [actions](../actions.md).",
            "",
        ]
    lines += ["## Parameters in an action", "", *_table(declared_members(module.params), needed=True), ""]
    lines += ["## A record of the answer", "", *_table(declared_members(module.record), needed=False)]
    return "\n".join(lines).rstrip() + "\n"


def _table(members: Iterator[Member], *, needed: bool) -> list[str]:
    rows = []
    for member in members:
        mark = " (needed)" if needed and member.is_needed else ""
        name = "&nbsp;&nbsp;" * member.depth + f"`{member.name}`{mark}"
        rows.append(f"| {name} | {_cell(member.type)} | {_cell(member.description)} |")
    if not rows:
        return ["None."]
    return ["| member | holds | meaning |", "|---|---|---|", *rows]


def _about(module: Module) -> str:
    said = [f"Systems: {_systems(module)}."]
    if module.aliases:
        said.append(f"Other names that `mig` accepts: {', '.join(f'`{name}`' for name in module.aliases)}.")
    if module.minimum_weight > 1:
        said.append(
            f"Its signers need a weight of {module.minimum_weight}, unless the ACL has an entry for it."
        )
    if module.paths is None:
        said.append("An ACL entry that limits paths refuses it.")
    return " ".join(said)


def _systems(module: Module) -> str:
    if not module.platforms:
        return "all"
    return ", ".join(name for prefix, name in _SYSTEMS.items() if prefix.startswith(module.platforms))


def _first_line(module: Module) -> str:
    return module.help.split("\n\n")[0].replace("\n", " ")


def _example(text: str) -> str:
    """Return a command line with its meaning as a comment."""
    command, _, meaning = text.partition("   ")
    return f"{command}   # {meaning.strip()}" if meaning else command


def _cell(text: str) -> str:
    """Return text that stays in its cell."""
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args()
    wanted = pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    stale = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if options.check:
        for name in stale:
            print(f"docs/modules/{name} is not what the code says")
        return 1 if stale else 0
    PAGES.mkdir(exist_ok=True)
    for name in stale:
        if name in wanted:
            (PAGES / name).write_text(wanted[name], encoding="utf-8")
        else:
            (PAGES / name).unlink()
        print(f"docs/modules/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
