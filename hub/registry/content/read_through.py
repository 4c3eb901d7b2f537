"""Decide which repos are served from the upstream hub."""

from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.models.access import Namespace
from hub.registry.platform.upstream_client import Upstream


def serves(session: Session, upstream: Upstream, viewer: Viewer | None, full_name: str) -> bool:
    """Whether the upstream serves a repo: to signed-in viewers, in namespaces that the operator lists and that do not exist here."""
    namespace = full_name.partition("/")[0]
    listed = bool(upstream.url) and viewer is not None and namespace in upstream.namespaces
    return listed and session.get(Namespace, namespace) is None
