"""An application behind a real server, on a port of its own."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp


class Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """None: pytest has its own."""


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=2)
    server = Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()
