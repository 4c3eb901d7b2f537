"""A header on every answer that says which version gave it."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.version import HEADER, VERSION


class StampVersion:
    """Goes around everything else, so that an answer to an unforeseen error has the header, too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = VERSION
            await send(message)

        await self.app(scope, receive, send_stamped if scope["type"] == "http" else send)
