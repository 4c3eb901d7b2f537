"""The form helper: a change is done, or undone and shown again with the problem."""

import pytest
from fastapi import Response
from fastapi.responses import RedirectResponse
from sqlalchemy import select

from hub.registry.access import organizations
from hub.registry.access.permissions import ManageAccount, authorize
from hub.registry.models.access import Namespace
from hub.registry.platform.db import transaction
from hub.registry.platform.errors import InvalidInput
from hub.registry.platform.services import Services
from hub.web.forms import NO_FORM, RefusedForm, expiry, run_form
from tests.conftest import Person


def test_a_refused_change_is_undone_and_shown_again_with_what_was_typed(services: Services, ann: Person) -> None:
    shown: list[RefusedForm] = []

    def show_again(form: RefusedForm) -> Response:
        shown.append(form)
        return Response(status_code=form.status)

    with transaction(services.sessions) as session:

        def refuse() -> Response:
            organizations.create(session, authorize(ann.viewer, ManageAccount), "weavers")
            raise InvalidInput("Too many threads.")

        answer = run_form(refuse, show_again, name="create", typed={"name": "weavers"}, session=session)
        assert answer.status_code == 422
        assert session.scalar(select(Namespace).where(Namespace.name == "weavers")) is None
    (form,) = shown
    assert (form.problem_of("create"), form.problem_of("join")) == ("Too many threads.", "")
    assert (form.value("create", "name"), form.value("create", "days", "7")) == ("weavers", "7")
    assert form.value("join", "name", "as before") == "as before", "another form of the page keeps its default"


def test_a_change_that_is_done_answers_for_itself() -> None:
    answer = run_form(lambda: RedirectResponse("/teams"), lambda _: Response(), name="create")
    assert answer.headers["Location"] == "/teams"
    assert (NO_FORM.status, NO_FORM.problem_of("")) == (200, "")


@pytest.mark.parametrize("days", ["0", "-1", "36501", "soon", "1.5"])
def test_an_expiry_that_is_not_a_number_of_days_is_refused(days: str) -> None:
    with pytest.raises(InvalidInput, match="is not a number of days from 1 to 36500"):
        expiry(days)
    assert expiry(" ") is None
