"""The command line of `mig-agent`. Each sub-command imports what it needs, so that a child starts quickly."""

import argparse
import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional, Sequence

from protocol.errors import (
    EXIT_FOUND,
    EXIT_MISSING_ANSWERS,
    EXIT_NOTHING_FOUND,
    EXIT_REFUSED,
    InvalidInput,
    MigError,
)

_EXIT_INTERRUPTED = 130  # as shells report a process that SIGINT ended


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidInput("usage", f"{message} (see {self.prog} --help)")


class _ModuleHelp(argparse.Action):
    """Prints the help of the module that was named, or else that of the command."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,  # noqa: ARG002  (argparse's)
        option_string: Optional[str] = None,  # noqa: ARG002
    ) -> None:
        if namespace.name is None:
            parser.print_help()
        else:
            from agent.describe import describe_module  # noqa: PLC0415
            from agent.registry import canonical_name, load_module  # noqa: PLC0415

            _print(describe_module(load_module(canonical_name(namespace.name))))
        parser.exit()


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run `mig-agent` and exit with a code of `protocol.errors`."""
    if sys.version_info >= (3, 11):
        # msgspec takes from it what `typing` has by now; to compile it takes as long as all of the scan core.
        # What has it already keeps it.
        sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["child"]:
        from agent.runtime.child import serve  # noqa: PLC0415

        serve()
    try:
        options = _make_parser().parse_args(arguments)
        code = int(options.command(options))
        sys.stdout.flush()
    except MigError as error:
        # What a module or a signed action says is hostile text; a terminal gets no control characters of it.
        print(f"mig-agent: {_printable(str(error))}", file=sys.stderr)  # noqa: T201
        code = error.info.exit
    except KeyboardInterrupt:
        code = _EXIT_INTERRUPTED
    except BrokenPipeError:
        # Nobody reads on; without this the interpreter would complain when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = EXIT_FOUND
    sys.exit(code)


def _make_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mig-agent", description="Answers what investigators ask of this machine.")
    parser.set_defaults(command=_install_or_run, state_dir=None, token_file=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)

    def add(
        name: str, command: Any, text: str, *, has_state: bool = True, has_help: bool = True
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, add_help=has_help)
        added.set_defaults(command=command)
        if has_state:
            added.add_argument(
                "--state-dir", type=Path, metavar="DIR", help="where the agent keeps its state"
            )
        return added

    run = add("run", _run, "run the agent")
    way = run.add_mutually_exclusive_group(required=True)
    way.add_argument("--foreground", action="store_true", help="until it is told to end")
    way.add_argument("--check-in", action="store_true", help="take what waits, answer it, and end")
    run.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="enrolment token of a new agent, in a file of mode 0600",
    )
    text = "run one module here and print its result as JSON"
    module = add("module", _module, text, has_state=False, has_help=False)
    module.add_argument("-h", "--help", action=_ModuleHelp, nargs=0, help="behind NAME: what it takes")
    module.add_argument("name", metavar="NAME")
    module.add_argument("--params", metavar="FILE", help="JSON file with its parameters; - is standard input")
    action = add("action", _action, "run an action file here, through gate and journal")
    action.add_argument("file", metavar="FILE")
    action.add_argument(
        "--unsigned-local", action="store_true", help="without gate and journal, as the one who is logged in"
    )
    verify = add("verify", _verify, "print what the gate says of a signed action, step by step")
    verify.add_argument("file", metavar="FILE")
    log = add("log", _log, "print what was asked of this machine, and by whom")
    way = log.add_mutually_exclusive_group()
    way.add_argument("--json", action="store_true", help="the entries as they were hashed, one per line")
    way.add_argument("--verify", action="store_true", help="check the chain and what investigators signed")
    add("status", _status, "print how the agent is")
    add("config", _config, "print the configuration and the keys that are baked in", has_state=False)
    add("version", _version, "print the version", has_state=False)
    return parser


# -- what the sub-commands do; each returns its exit code ---------------------------------------------------


def _install_or_run(options: argparse.Namespace) -> int:
    from agent.runtime import service  # noqa: PLC0415

    # Only the built file is one that a service could run; its start-up code knows where it lies.
    startup = sys.modules.get("mig_startup")
    if startup is not None and os.geteuid() == 0 and service.is_systemd():
        _print(service.install_service(Path(startup.path)))
        return EXIT_FOUND
    options.check_in = False
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    import logging  # noqa: PLC0415

    from agent.runtime.start import run_resident  # noqa: PLC0415
    from protocol.logs import KeyValueFormatter  # noqa: PLC0415

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    run_resident(_state_directory(options), token_file=options.token_file, check_in=options.check_in)
    return EXIT_FOUND


def _module(options: argparse.Namespace) -> int:
    from agent.local import run_local  # noqa: PLC0415
    from agent.progress_line import progress_line  # noqa: PLC0415
    from protocol.strictjson import decode_json  # noqa: PLC0415

    parameters = decode_json(_read_file(options.params)) if options.params else {}
    with progress_line(sys.stderr) as line:
        result = run_local(options.name, parameters, on_progress=line.show)
    _require_valid_parameters(result)
    _print(json.dumps(result))
    return _exit_code([result])


def _action(options: argparse.Namespace) -> int:
    import logging  # noqa: PLC0415

    # What a service would log, whoever asks here gets as the answer or as the error.
    logging.getLogger("mig").addHandler(logging.NullHandler())
    body = _read_file(options.file)
    if options.unsigned_local:
        return _run_unsigned(body)
    from agent.config import load_baked  # noqa: PLC0415
    from agent.runtime.manual import run_action  # noqa: PLC0415

    result = run_action(body, load_baked(), _state_directory(options), _now)
    _print(json.dumps(result))
    problem = result.get("problem")
    if problem is not None:
        raise _as_error(problem)
    return _exit_code(result.get("results", []))


def _run_unsigned(body: bytes) -> int:
    from agent.local import read_operations, run_operations  # noqa: PLC0415
    from agent.progress_line import progress_line  # noqa: PLC0415

    results: List[Dict[str, Any]] = []
    with progress_line(sys.stderr) as line:
        for result in run_operations(read_operations(body), line.show):
            results.append(result)
            _require_valid_parameters(result)
            line.put_away()
            _print(json.dumps(result))
    return _exit_code(results)


def _verify(options: argparse.Namespace) -> int:
    from agent.config import load_baked  # noqa: PLC0415
    from agent.runtime.gate import STEPS  # noqa: PLC0415
    from agent.runtime.manual import judge_action, load_trust  # noqa: PLC0415

    body = _read_file(options.file)
    said = ["not reached"] * len(STEPS)
    code = EXIT_FOUND
    baked, directory, now = load_baked(), _state_directory(options), _now()
    trust = load_trust(baked, directory, now)
    for verdict in judge_action(body, baked, trust, directory, now):
        said[verdict.step - 1] = "ok" if verdict.refusal is None else f"refused: {verdict.refusal}"
        if verdict.refusal is not None:
            code = EXIT_REFUSED
    _print(f"judged by trust {_printable(trust.describe())}")
    for number, (title, words) in enumerate(zip(STEPS, said), start=1):
        _print(f"{number:2} {title:<10} {_printable(words)}")
    return code


def _log(options: argparse.Namespace) -> int:
    from agent.config import load_baked  # noqa: PLC0415
    from agent.runtime.history import Narrator, read_history  # noqa: PLC0415
    from agent.runtime.manual import load_keyrings  # noqa: PLC0415

    directory = _state_directory(options)
    if options.json:
        for line in read_history(directory):
            _print(line.decode("utf-8"))
        return EXIT_FOUND
    keyrings = load_keyrings(load_baked(), directory, _now())
    if options.verify:
        return _verify_log(directory, keyrings)
    narrator = Narrator(keyrings)
    for line in read_history(directory):
        _print(_printable(narrator.tell(line)))
    return EXIT_FOUND


def _verify_log(directory: Path, keyrings: Sequence[Any]) -> int:
    from agent.runtime.history import check_history  # noqa: PLC0415

    checked = check_history(directory, keyrings)
    for line in [
        *(f"WRONG  {line}" for line in checked.wrong),
        *(f"?      {line}" for line in checked.unknown),
    ]:
        _print(_printable(line))
    _print(f"{checked.entries} entries in one chain; {checked.signed} actions kept with good signatures")
    if checked.wrong:
        return EXIT_REFUSED
    return EXIT_MISSING_ANSWERS if checked.unknown else EXIT_FOUND


def _status(options: argparse.Namespace) -> int:
    from agent.runtime.status import read_status  # noqa: PLC0415

    for line in read_status(_state_directory(options)):
        _print(_printable(line))
    return EXIT_FOUND


def _config(_options: argparse.Namespace) -> int:
    from agent.config import load_baked  # noqa: PLC0415
    from protocol.openpgp import parse_certificate  # noqa: PLC0415

    baked = load_baked()
    shown = baked.config._asdict()
    shown["limits"] = baked.config.limits._asdict()
    shown["trust"] = baked.config.trust._asdict()
    shown["scan"] = baked.config.scan._asdict()
    shown["alerts"] = baked.config.alerts._asdict()
    shown.update(baked.config.watched())
    shown["enrolment_token"] = "baked in" if baked.config.enrolment_token else ""
    shown["trusted_keys"] = [parse_certificate(key).fingerprint for key in baked.keys]
    _print(json.dumps(shown, indent=2))
    return EXIT_FOUND


def _version(_options: argparse.Namespace) -> int:
    from agent.config import load_baked  # noqa: PLC0415

    baked = load_baked()
    _print(f"mig-agent {baked.version} (build {baked.build})")
    return EXIT_FOUND


# -- the small things they share ----------------------------------------------------------------------------


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _state_directory(options: argparse.Namespace) -> Path:
    from agent.config import default_state_directory  # noqa: PLC0415

    given: Optional[Path] = options.state_dir
    return given.absolute() if given is not None else default_state_directory()


def _read_file(name: str) -> bytes:
    """Read a file, or standard input for `-`; no more of it than what already is too large for any use.

    Raises:
        InvalidInput: `not-found` where it cannot be read.

    """
    from protocol.envelope import MAX_ENVELOPE_BYTES  # noqa: PLC0415

    try:
        if name == "-":
            return sys.stdin.buffer.read(MAX_ENVELOPE_BYTES + 1)
        with Path(name).open("rb") as stream:
            return stream.read(MAX_ENVELOPE_BYTES + 1)
    except OSError as error:
        raise InvalidInput("not-found", f"{name}: {error.strerror}") from None


def _as_error(problem: Dict[str, Any]) -> MigError:
    return InvalidInput(problem["code"], problem["detail"])


def _require_valid_parameters(result: Dict[str, Any]) -> None:
    if result["status"] == "invalid-parameters":
        said = "; ".join(result.get("notes", ()))
        raise InvalidInput("bad-parameters", said.removeprefix("bad-parameters: "))


def _exit_code(results: List[Dict[str, Any]]) -> int:
    """Return 0 where something was found, 3 where not all was answered, 4 where it was refused, else 1."""
    if any(result["found"] for result in results):
        return EXIT_FOUND
    statuses = {result["status"] for result in results}
    if statuses & {"failed", "timed-out", "cancelled"}:
        return EXIT_MISSING_ANSWERS
    if statuses & {"refused", "unsupported"}:
        return EXIT_REFUSED
    return EXIT_NOTHING_FOUND
