"""Another hub, from which the one under test reads."""

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.app import create_app
from hub.registry.access import credentials, users
from hub.registry.access.viewer import Viewer
from hub.registry.platform.db import transaction
from hub.registry.platform.services import connect
from hub.registry.platform.settings import Settings
from tests.conftest import Person


class Other:
    """The other hub. Remembers what it was asked, with which token; can be switched off, and made to answer `instead`."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.services = connect(settings.model_copy(update={"database_url": url}))
        self.app = create_app(self.services)
        self.asked: list[tuple[str, str]] = []  # method and path, token
        self.off = False
        self.instead: dict[str, ASGIApp] = {}  # by method and the beginning of the path
        self.sent = 0  # bytes of bodies
        with transaction(self.services.sessions) as session:
            user = users.create_user(session, "labs")
            _, token = credentials.issue_token(session, user.id, "the other hub's reader")
        self.labs = Person("labs", token, Viewer(user.id, "labs", False))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            self.sent += len(message.get("body", b""))
            await send(message)

        if scope["type"] == "http":
            token = dict(scope["headers"]).get(b"authorization", b"").decode()
            self.asked.append((f"{scope['method']} {scope['path']}", token))
            told = [app for asked, app in self.instead.items() if self.asked[-1][0].startswith(asked)]
            for app in [Response(status_code=500)] if self.off else told:
                await app(scope, receive, counted)
                return
        await self.app(scope, receive, counted)
