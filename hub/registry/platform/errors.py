"""The errors of the registry: one small class per cause, each with its own code and HTTP status.

One handler (hub.http) renders them all, as JSON or as a page. 422 is for malformed input; 404 also for what the caller may not see.
"""

from collections.abc import Mapping
from typing import Any


class HubError(Exception):
    """Base of every error that a person may read. The message says which thing, why, and what to do."""

    status = 500
    code = "error"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, Any] = details


class InvalidInput(HubError):
    status, code = 422, "invalid_input"


class NotSignedIn(HubError):
    status, code = 401, "not_signed_in"


class Forbidden(HubError):
    status, code = 403, "forbidden"


class NotFound(HubError):
    status, code = 404, "not_found"


class Conflict(HubError):
    status, code = 409, "conflict"


class TooLarge(HubError):
    status, code = 413, "too_large"


class Unavailable(HubError):
    """A service that this hub needs (database, broker, S3) does not answer; the caller may try again later."""

    status, code = 503, "unavailable"


class RepoNotFound(NotFound):
    code = "repo_not_found"


class RevisionNotFound(NotFound):
    code = "revision_not_found"


class FileNotInRepo(NotFound):
    code = "file_not_found"
