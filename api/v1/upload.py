"""The OpenAPI description of an upload's body. FastAPI cannot derive it, because the route reads the body itself."""

from hub.vocabulary import VISIBILITIES


def body_description(what: str) -> dict[str, object]:
    text = {"type": "string"}
    properties = {
        "name": {**text, "description": "namespace/name of the repo, made if it is not there"},
        "visibility": {**text, "enum": list(VISIBILITIES)},
        "message": {**text, "description": "what changed"},
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}, "description": what},
    }
    schema = {"type": "object", "required": ["name", "files"], "properties": properties}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
