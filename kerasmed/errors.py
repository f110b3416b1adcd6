"""What can go wrong through no bug of ours.

KerasmedError            the command line prints its message as one line and exits with 2
├── ConfigError          the experiment file: an unknown key, a value out of range
├── DataError            the images: missing, unreadable, too few
├── ModelFileError       a model file: not ONNX, not ours, of another architecture
├── InputError           a call: wrong shape, dtype, rank or range
├── StageError           a stage whose input an earlier stage has not written, or has changed
└── MachineError         this machine: a library, device or provider that was asked for is absent
"""


class KerasmedError(Exception):
    """An error that a user can mend; its message says what, expected, received, remedy."""


class ConfigError(KerasmedError):
    """The experiment file cannot be used as it is."""


class DataError(KerasmedError):
    """The images cannot be used as they are."""


class ModelFileError(KerasmedError):
    """The model file cannot be used."""


class InputError(KerasmedError):
    """A function was called with arrays that it does not take."""


class StageError(KerasmedError):
    """A stage cannot run on what the run folder holds."""


class MachineError(KerasmedError):
    """The machine lacks what was asked for."""


class DataWarning(UserWarning):
    """A fault in a file's metadata that was ignored."""


def brief(error: BaseException) -> str:
    """Type and message of an exception of others in one short line, for a message of ours."""
    # TensorFlow repeats the traceback of what failed as the message of an error of its own.
    while str(error).startswith("Traceback") and (cause := error.__cause__ or error.__context__):
        error = cause
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
