"""Loopback ports: which are free, and whether a server answers on one."""

import random
import socket
import urllib.error
import urllib.request

# SeaweedFS opens a second port 10,000 above each of its own, so none may lie above 55,535; ephemeral ports begin at 32,768.
PORTS = range(20_000, 32_000)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> list[int]:
    """Ports that are free, and for SeaweedFS's sake free 10,000 above too; drawn at random so that two stacks seldom meet."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().choice(PORTS)
        if port not in ports and is_free(port) and is_free(port + 10_000):
            ports.append(port)
    return ports


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:  # noqa: S310 - our own loopback address
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
