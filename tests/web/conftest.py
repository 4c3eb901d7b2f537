"""A visitor of the pages who has signed in."""

import pytest
from starlette.testclient import TestClient

from tests.conftest import Person
from tests.support.pages import sign_in


@pytest.fixture
def signed_in(client: TestClient, ann: Person) -> TestClient:
    return sign_in(client, ann)
