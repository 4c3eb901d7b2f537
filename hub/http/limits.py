"""Limits on every request: how many a minute, and how large."""

import hashlib

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.http.addresses import address_of
from hub.http.errors import error_json
from hub.http.identity import COOKIE
from hub.registry.platform.errors import HubError, TooLarge
from hub.registry.platform.rate_limits import RateLimits, TooManyRequests

UNLIMITED = ("/healthz", "/readyz", "/static/")


class LimitRate:
    """Counts requests by token, session or, of visitors, address, and refuses those over the limit, wherever they go.

    A secret that signs nobody in counts as a failed sign-in of its address, so that secrets cannot be tried out at full speed.
    """

    def __init__(self, app: ASGIApp, limits: RateLimits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(UNLIMITED):
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        secret = request.headers.get("Authorization") or request.cookies.get(COOKIE)
        address = address_of(request)
        who = hashlib.sha256(secret.encode()).hexdigest() if secret else f"address {address}"
        counted = await run_in_threadpool(self.limits.request, who)
        headers = counted[1].headers() if counted else {}

        async def send_with_budget(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
                if message["status"] == 401 and secret:
                    await run_in_threadpool(self.limits.count_failure, address)
            await send(message)

        try:
            if counted and not counted[0]:
                raise TooManyRequests(
                    f"More than {counted[1].limit} requests in a minute; wait {counted[1].seconds} seconds."
                )
            if secret:
                await run_in_threadpool(self.limits.check_attempts, address)
        except HubError as error:
            refusal: Response = scope["app"].exception_handlers[HubError](request, error)
            await refusal(scope, receive, send_with_budget)
            return
        await self.app(scope, receive, send_with_budget)


class LimitBody:
    """Refuses a request body over the limit, by its declared length or as it streams, before anyone has stored it."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                raise too_large(self.limit)
            return message

        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.limit:
            response = error_json(too_large(self.limit))
            await response(scope, receive, send)
            return
        await self.app(scope, counted, send)


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request is larger than this hub accepts ({limit:,} bytes); send less at once.")
