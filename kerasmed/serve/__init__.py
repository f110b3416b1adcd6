"""An exported CNN over HTTP, for browsers and for tools that are not written in Python.

There is one queue: images that wait while a batch runs become the next batch. The number of
requests under way and the size of each are bounded, and so is memory.
"""

from kerasmed.errors import MachineError

try:
    import fastapi  # noqa: F401
    import fastapi_offline  # noqa: F401
    import python_multipart  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise MachineError(
        f"kerasmed serve needs {error.name}; run pip install 'kerasmed[serve]'."
    ) from None
