"""Requests and responses of the routes in api/v1/bases; /v1/openapi.json is made from them."""

from pydantic import BaseModel, Field, SecretStr, model_validator

from hub.vocabulary import Dtype


class Base(BaseModel):
    id: str
    path: str | None = Field(description="the folder on every worker, if it is one")
    upstream: str | None = Field(description="the repo of the upstream hub, if it is one; neither: the built-in base")
    revision: str | None = Field(description="of the upstream's repo: the commit")
    dtype: str
    licence: str | None
    aliases: list[str]
    layers: int = Field(description="how many linear layers it has")
    fingerprint: str = Field(description="SHA-256 over its weight files")


class NewBase(BaseModel):
    id: str = Field(min_length=1, max_length=200)
    path: str | None = Field(
        None, description="a folder with config.json, tokenizer and safetensors, the same on every worker"
    )
    upstream: str | None = Field(
        None,
        max_length=200,
        pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$",
        description="or a repo of the upstream hub that the operator has set (namespace/name, no address)",
    )
    revision: str | None = Field(None, max_length=200, description="of the upstream's repo; it is pinned to its commit")
    token: SecretStr | None = Field(None, description="to show to the upstream for this base; it is not shown again")
    dtype: Dtype = Field(
        "auto",
        description="to load it in; auto: as it is stored on a GPU, on a CPU bfloat16 where it computes in it, else float32",
    )
    licence: str | None = Field(None, max_length=100, description="left out: as the upstream's card says")
    aliases: list[str] = []

    @model_validator(mode="after")
    def one_source(self) -> "NewBase":
        if (self.path is None) == (self.upstream is None):
            raise ValueError("give either the path of a folder or a repo of the upstream, not both and not neither")
        if self.token and not self.upstream:
            raise ValueError("a token is for a base of the upstream; a folder needs none")
        return self
