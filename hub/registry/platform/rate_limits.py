"""Rate limits, counted in the broker so that all processes of the API share them.

Rate limiting fails open when the broker is down: requests go on, and the log records it.
"""

import logging
import time
from dataclasses import dataclass

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter

from hub.registry.platform.errors import HubError
from hub.registry.platform.settings import Settings

log = logging.getLogger(__name__)

SIGN_IN_SECONDS = 300
TIMEOUT_SECONDS = 1.0


class TooManyRequests(HubError):
    status, code = 429, "too_many_requests"


class TooManyAttempts(HubError):
    status, code = 429, "too_many_attempts"


@dataclass(frozen=True)
class Budget:
    """The state of a limit: how many requests are left of how many, and the seconds until the window ends."""

    limit: int
    left: int
    seconds: int
    window: int

    def headers(self) -> dict[str, str]:
        """The headers of draft-ietf-httpapi-ratelimit-headers, from which huggingface_hub knows how long to wait."""
        headers = {
            "RateLimit": f'"api";r={self.left};t={self.seconds}',
            "RateLimit-Policy": f'"fixed window";"api";q={self.limit};w={self.window}',
        }
        return headers if self.left else {**headers, "Retry-After": str(self.seconds)}


class RateLimits:
    def __init__(self, settings: Settings) -> None:
        storage = RedisStorage(
            settings.broker_url,
            key_prefix=f"{settings.broker_prefix}limits",
            wrap_exceptions=True,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
        )
        self._storage = storage
        self._counter = FixedWindowRateLimiter(storage)
        self._requests = RateLimitItemPerMinute(settings.requests_per_minute) if settings.requests_per_minute else None
        attempts = settings.sign_in_attempts
        self._attempts = RateLimitItemPerSecond(attempts, SIGN_IN_SECONDS) if attempts else None
        # One address may be that of an office full of people.
        self._attempts_from = RateLimitItemPerSecond(10 * attempts, SIGN_IN_SECONDS) if attempts else None

    def request(self, who: str) -> tuple[bool, Budget] | None:
        """Count one request of `who`; returns whether it is within the limit, and what is left. None if there is no limit."""
        if self._requests is None:
            return None
        try:
            allowed = self._counter.hit(self._requests, "request", who)
            stats = self._counter.get_window_stats(self._requests, "request", who)
        except StorageError as error:
            log.warning("requests are not limited, as the broker does not answer", extra={"error": str(error)})
            return None
        seconds = max(1, round(stats.reset_time - time.time()))
        return allowed, Budget(self._requests.amount, stats.remaining, seconds, self._requests.get_expiry())

    def check_attempts(self, address: str, name: str = "") -> None:
        """Raise TooManyAttempts if sign-ins from this address, or with this user's name, have failed too often."""
        for item, key in self._watched(address, name):
            try:
                within_limit = self._counter.test(item, "sign-in", key)
            except StorageError as error:
                log.warning("sign-ins are not limited, as the broker does not answer", extra={"error": str(error)})
                return
            if not within_limit:
                raise TooManyAttempts(
                    f"There were too many failed sign-ins; wait {SIGN_IN_SECONDS // 60} minutes and try again."
                )

    def count_failure(self, address: str, name: str = "") -> None:
        for item, key in self._watched(address, name):
            try:
                self._counter.hit(item, "sign-in", key)
            except StorageError as error:
                log.warning("a failed sign-in is not counted", extra={"error": str(error)})

    def _watched(self, address: str, name: str) -> list[tuple[RateLimitItem, str]]:
        if self._attempts is None or self._attempts_from is None:
            return []
        by_name = [(self._attempts, f"name {name.lower()}")] if name else []
        return [(self._attempts_from, f"address {address}"), *by_name]

    def close(self) -> None:
        self._storage.storage.close()
