"""The command `distill`: errors become one line and an exit code here."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path

import click

from distill.commands.cli import cli
from distill.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, LimbeckError
from distill.store.files import full_message, is_full
from distill.terminal import echo_error, echo_lines
from synth.errors import lacks_memory

# Idle OpenMP threads that spin starve every other process on a small machine; torch reads this
# when it is first imported, which is later than here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_SILENCE = logging.NullHandler()

_NO_MEMORY = "there is too little memory; lower batch, image or set sizes, or free some"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    leave_current_folder()
    from distill.run.engines.server import own_process
    from distill.run.loading import check_before_loading

    own_process()
    check_before_loading()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def leave_current_folder() -> None:
    """Import nothing from the current folder, which `python -m` searches before all others.

    It may hold anything, even metadata of a package that claims names of ours. A checkout of
    Limbeck itself stays.
    """
    here = str(Path.cwd())
    if sys.path[:1] in ([""], [here]) and Path(here) != Path(__file__).resolve().parent.parent:
        del sys.path[0]


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code and never raises."""
    debug = "--debug" in arguments
    # Libraries log beside the errors that they raise, and those are shown as one line.
    logging.getLogger().addHandler(_SILENCE)
    try:
        cli.main(args=arguments, prog_name="distill", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see `{context.command_path} --help`" if context is not None else ""
        message = _key_in_place_of(error) or error.format_message().rstrip(".")
        return _fail(message + hint, error.exit_code, debug)
    except LimbeckError as error:
        return _fail(str(error), error.exit_code, debug)
    except (KeyboardInterrupt, click.exceptions.Abort):
        return _fail("interrupted; run the same command again to go on", EXIT_INTERRUPTED, debug)
    except BrokenPipeError:
        # The reader of our output has gone; say nothing more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except Exception as error:  # noqa: BLE001 - the last resort: one line instead of a traceback
        return _fail(_line_of(error), EXIT_FAILED, debug)
    return EXIT_DONE


def _key_in_place_of(error: click.ClickException) -> str:
    """What to write where an option that there is not is a key of a recipe; "" where it is none."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return ""
    if all(parameter.name != "overrides" for parameter in error.ctx.command.params):
        return ""
    from distill.recipes.schema import TABLES

    key = error.option_name.lstrip("-").replace("-", "_")
    tables = [name for name, table in TABLES.items() if key in table.model_fields]
    if not tables:
        return ""
    others = f" ({', '.join(tables)} have it)" if len(tables) > 1 else ""
    return f"no such option {error.option_name}; write --set {tables[0]}.{key}=VALUE{others}"


def _line_of(error: Exception) -> str:
    """One line for an error that no layer below has put into words."""
    if lacks_memory(error):
        return f"{_NO_MEMORY} ({str(error)[-200:] or 'no details'})"
    if isinstance(error, OSError):
        return _system_error_line(error)
    return f"{type(error).__name__}: {error}; add --debug for the traceback"


def _system_error_line(error: OSError) -> str:
    """One line for an error of the system, such as a read-only folder or a full disk."""
    path = str(error.filename or "a file")
    if is_full(error):
        return full_message(Path(path))
    reason = error.strerror or str(error)
    return f"{path}: {reason}; check that the place is there and that you may read and write it"


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        echo_lines(traceback.format_exc().splitlines(), err=True)
    echo_error(message)
    return code


if __name__ == "__main__":
    main()
