"""An exported CNN over HTTP, for tools that are not Python and for browsers.

One queue: what waits while a batch runs becomes the next batch. The number of requests under way
and the size of each are bounded, so memory is too.
"""

from kerasmed.errors import MachineError

try:
    import fastapi  # noqa: F401
    import fastapi_offline  # noqa: F401
    import multipart  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise MachineError(f"kerasmed serve needs {error.name}: install kerasmed[serve].") from None
