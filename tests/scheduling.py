"""How the whole suite is shared out between the processes of a run."""

from xdist.scheduler import LoadScopeScheduling


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist is not typed
    """A process gets a file at a time, or all tests of the instance, as that takes long to start."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "instance" if path.startswith("tests/e2e/") and not path.endswith("test_up.py") else path
