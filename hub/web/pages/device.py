"""Where `hf auth login` sends a person to approve a program."""

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Response

from hub.http.identity import SessionDep, ViewerDep
from hub.http.permissions import CanManageAccount
from hub.registry.access import device_login
from hub.registry.platform.errors import NotSignedIn
from hub.web.render import Page, render

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class DevicePage(Page, template="sign_in/device.html"):
    """A program's request for a token, or what became of it."""

    code: str  # as the program shows it
    answer: Literal["", "approve", "deny"] = ""


@router.get("/device")
def device_form(viewer: ViewerDep, code: Annotated[str, Query(max_length=20)] = "") -> Response:
    """Where `hf auth login` sends a person: they compare the code with what their terminal shows."""
    if viewer is None:
        raise NotSignedIn("Sign in first, then open the address that your program shows again.")
    return render(DevicePage(code), viewer)


@router.post("/device")
def answer_device(
    session: SessionDep,
    account: CanManageAccount,
    code: Annotated[str, Form(max_length=20)],
    answer: Annotated[Literal["approve", "deny"], Form()],
) -> Response:
    device_login.decide(session, account, code, approve=answer == "approve")
    return render(DevicePage("", answer), account.viewer)
