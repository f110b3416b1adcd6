"""Errors that are no bugs of kerasmed.

KerasmedError            the command line prints its message as one line and exits with 2
├── ConfigError          the experiment file: an unknown key, a value out of range
├── DataError            the images: missing, unreadable, too few
├── ModelFileError       a model file: not ONNX, not from kerasmed, of another architecture
├── InputError           a call: wrong shape, dtype, rank or range
├── StageError           a stage: its input is missing or has changed
└── MachineError         this machine: a requested library, device or provider is missing
"""


class KerasmedError(Exception):
    """An error that a user can correct; its message says what, expected, received, remedy."""


class ConfigError(KerasmedError):
    """The experiment file is not valid."""


class DataError(KerasmedError):
    """The images cannot be used."""


class ModelFileError(KerasmedError):
    """The model file cannot be used."""


class InputError(KerasmedError):
    """A function was called with arguments that it does not accept."""


class StageError(KerasmedError):
    """A stage cannot run on the contents of the run folder."""


class MachineError(KerasmedError):
    """The machine lacks something that was requested."""


class DataWarning(UserWarning):
    """An ignored fault in a file's metadata."""


def missing_package(error: ModuleNotFoundError, user: str) -> str:
    """What to do where only some of the dependencies are installed."""
    return (
        f"{user} needs {error.name}, which is not installed; run `pip install kerasmed`, which "
        "brings it."
    )


def brief(error: BaseException) -> str:
    """Type and message of another library's exception, in one short line."""
    # TensorFlow raises errors whose message is the traceback of their cause.
    while str(error).startswith("Traceback") and (cause := error.__cause__ or error.__context__):
        error = cause
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
