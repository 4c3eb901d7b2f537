"""Where a request comes from, and this hub's own address as its caller wrote it."""

from fastapi import Request


def address_of(request: Request) -> str:
    """Where a request comes from; behind a proxy that uvicorn was told to trust, where the proxy says."""
    return request.client.host if request.client else "unknown"


def raw_path(request: Request) -> str:
    """The path of a request as it was sent, still percent-encoded, below the path at which this hub is mounted.

    A route that takes a branch name apart needs it: "/" in a branch name arrives as %2F, which decoding would lose.
    """
    return str(request.scope["raw_path"].decode("ascii")).removeprefix(request.scope.get("root_path", ""))


def root_url(request: Request) -> str:
    """This hub's address as the client wrote it, behind a proxy too: Hugging Face clients refuse answers that name another host."""
    headers = request.headers
    scheme = headers.get("X-Forwarded-Proto", request.url.scheme)
    host = headers.get("X-Forwarded-Host", headers.get("Host", request.url.netloc))
    return f"{scheme}://{host}{request.scope.get('root_path', '')}"
