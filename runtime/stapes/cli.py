"""The command `stapes`: parses, calls one function, prints. Results go to stdout, everything else to stderr.

Exit status: 0 done, 1 some input failed, 2 usage or no model. Further commands come in through the entry-point group
`stapes.commands`: listed from the table of entry points, loaded only when typed.
"""

import argparse
import contextlib
import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import stapes
from stapes.commands import COMMANDS, Command
from stapes.commands.arguments import say
from stapes.errors import StapesError


def run() -> None:
    """The command line as a process: it ends here, and at once where the command is ours.

    What would be left is to take ONNX Runtime and the interpreter apart, a tenth of a short run's time.
    """
    status = main()
    if _typed(sys.argv[1:]) not in COMMANDS:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or its reader has gone
            stream.flush()
    os._exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default the process's own; the exit status."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    warnings.showwarning = lambda message, *_: say(f"warning: {message}")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name or a bar that the terminal's encoding lacks is no reason to stop
    options = _parser(arguments).parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except StapesError as error:
        if options.debug:
            traceback.print_exc()
        say(str(error))
        return 2
    except BrokenPipeError:  # the reader of our output has gone, as `head` does: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if options.debug:
            raise
        if isinstance(error, OSError) and error.filename is None:  # no file that a person named: those are wrapped where they are used
            say(f"cannot write the output: {error.strerror}")
            return 2
        say(f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}; this is a mistake in stapes: --debug shows where")
        return 2


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stapes", description="Hugging Face audio classification without torch.")
    parser.add_argument("--version", action=_Version, help="show the version")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        _add(commands, name, command)
    typed = _typed(arguments)
    if typed not in COMMANDS:
        from importlib.metadata import entry_points  # here: our own commands need it not

        for entry in sorted(entry_points(group="stapes.commands")):
            if entry.name == typed:
                _add(commands, entry.name, entry.load())
            else:
                commands.add_parser(entry.name, help=f"see stapes {entry.name} --help")
    return parser


def _typed(arguments: Sequence[str]) -> str | None:
    """The command's name."""
    return next((word for word in arguments if not word.startswith("-")), None)


def _add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, command: Command) -> None:
    summary = (command.__doc__ or "").splitlines()[0]
    parser = commands.add_parser(name, help=summary, description=summary)
    parser.set_defaults(run=command(parser))
    parser.add_argument("--debug", action="store_true", help="show where an error came from")


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"stapes {stapes.__version__}")
        parser.exit()


if __name__ == "__main__":
    run()
