"""Signed addresses: good for exactly what they say, for their time, in every process of an instance and in no other instance."""

import time

import pytest

from hub.registry.access import instance_keys, signing
from hub.registry.access.signing import BadSignature
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services

LATER = int(time.time()) + 86_400  # the suite may take a while


def test_all_processes_share_one_key(services: Services) -> None:
    with transaction(services.sessions) as session:
        first = instance_keys.key(session)
    with transaction(services.sessions) as session:
        assert instance_keys.key(session) == first
    assert len(first) == 32


def test_a_signature_holds_for_its_parts_alone() -> None:
    signature = signing.sign(b"k" * 32, LATER, "ann", "oid", 5)
    signing.check(b"k" * 32, signature, LATER, "ann", "oid", 5)
    for key, expires, parts in [
        (b"x" * 32, LATER, ("ann", "oid", 5)),
        (b"k" * 32, LATER + 1, ("ann", "oid", 5)),
        (b"k" * 32, LATER, ("bob", "oid", 5)),
        (b"k" * 32, LATER, ("ann", "oid", 6)),
        (b"k" * 32, LATER, ("ann", "oid")),
        (b"k" * 32, LATER, ("ann\0oid", 5)[:1]),
    ]:
        with pytest.raises(BadSignature, match="not signed"):
            signing.check(key, signature, expires, *parts)
    with pytest.raises(BadSignature, match="not signed"):
        signing.check(b"k" * 32, "ä", LATER, "ann")


def test_a_signature_ends() -> None:
    over = int(time.time()) - 1
    with pytest.raises(BadSignature, match="no longer valid"):
        signing.check(b"k" * 32, signing.sign(b"k" * 32, over, "ann"), over, "ann")
