"""Check model cards before clients commit them."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from hub.http.identity import SessionDep
from hub.http.permissions import public
from hub.registry.bases import base_models
from hub.registry.inspection.checks import is_local_path
from hub.registry.inspection.model_card import CardError, parse_card

router = APIRouter()


class CardText(BaseModel):
    content: str
    repoType: str = "model"


@router.post("/api/validate-yaml", dependencies=[public("changes nothing")])
def validate(session: SessionDep, body: CardText) -> Response:
    """Refuse front matter that is not YAML. A base model that is a folder of some machine gets only a warning.

    PEFT writes such a path for an adapter trained from disk. The adapter can be stored, and its base named later.
    """
    try:
        card = parse_card(body.content.encode(errors="replace"))
    except CardError as error:
        message = f"README.md: {error}"
        return JSONResponse({"error": message, "errors": [{"message": message}], "warnings": []}, status_code=400)
    warnings: list[str] = []
    known = base_models.names(session)
    for base in card.values("base_model"):
        if base in known:
            continue
        if is_local_path(base):
            warnings.append(f"base_model is {base!r}, a path of one machine: name the base by the id that others know.")
        else:
            warnings.append(f"base_model {base!r} is not registered on this hub, so nothing can be checked against it.")
    if body.repoType == "model" and not card.values("license"):
        warnings.append("The card names no license, so nobody else may use what it describes.")
    answer: dict[str, object] = {"errors": [], "warnings": [{"message": warning} for warning in warnings]}
    return JSONResponse(answer)
