"""A service on a free port of loopback, for clients that need a real one: browsers, load."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from normsniff.serve.settings import Settings


@contextlib.contextmanager
def served(settings: Settings) -> Iterator[str]:
    """Yield the address of a service that runs in a thread of this process."""
    import uvicorn

    from normsniff.cli.serve import SERVER
    from normsniff.serve.app import application

    with socket.create_server(("127.0.0.1", 0)) as place:
        server = uvicorn.Server(uvicorn.Config(application(settings), **SERVER))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.02)
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
