"""The command line: parse, call, print."""

import sys
import warnings
from importlib.util import find_spec
from io import TextIOWrapper
from typing import Any

from kerasmed.cli import data, judge, models, study, train  # noqa: F401 (register the commands)
from kerasmed.cli.app import app
from kerasmed.errors import DataWarning, KerasmedError, missing_package


def main(arguments: list[str] | None = None) -> int:
    """Run a command; a user's mistake is one line on stderr and exit code 2."""
    # Names of files may not be valid text: they are read as they are and printed escaped.
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=errors)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("once", DataWarning)
            warnings.showwarning = _show_warning
            app(arguments)
    except KerasmedError as error:
        print(f"kerasmed: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if not error.name or find_spec(error.name.partition(".")[0]):
            raise  # not a missing dependency but a bug
        print(f"kerasmed: {missing_package(error, 'This command')}", file=sys.stderr)
        return 2
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Print our own warnings as one line; hide those of libraries."""
    if issubclass(category, DataWarning):
        print(f"kerasmed: {message}", file=sys.stderr)


def entry() -> None:
    """The installed command."""
    import traceback

    from kerasmed.runtime.hardware import limit_blas_threads

    limit_blas_threads()
    try:
        code = main()
    except Exception:  # a bug must not leave other workers waiting either
        traceback.print_exc()
        code = 1
    workers = sys.modules.get("kerasmed.parallel.workers")  # loaded by trainings only
    if workers is not None:
        workers.leave(code)
    sys.exit(code)
