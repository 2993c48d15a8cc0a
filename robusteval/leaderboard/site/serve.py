"""A server for a look at a built site, reachable from this machine only."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from robusteval.schema.errors import UsageError


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing of each request."""

    def log_message(self, format: str, *args: object) -> None:
        """Drop the line."""


def site_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of `folder` on 127.0.0.1, bound but not yet serving.

    Args:
        folder: the site.
        port: port; 0 takes a free one.

    Raises:
        UsageError: the port is taken or not allowed.
    """
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(_Quiet, directory=str(folder)))
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror or error}; choose another, or 0 for a free one") from None
