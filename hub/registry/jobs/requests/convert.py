"""The kind `convert`: a pickle, or what another tool than PEFT wrote, as a PEFT adapter that computes the same."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal, Self

from pydantic import Field
from sqlalchemy.orm import Session

from hub.registry.access.viewer import Viewer
from hub.registry.bases import base_models
from hub.registry.content import repos
from hub.registry.datasets.examples import AmbiguousFile, Examples, Strict
from hub.registry.inspection.folder import PICKLE_ENDINGS
from hub.registry.jobs.contracts.convert import ConvertParams, PinnedWeights
from hub.registry.jobs.queueing import Input, Submission
from hub.registry.jobs.requests.common import Adapter, Module, NotAnAdapter, ResultRequest

# Where a folder holds more than one file of weights, the adapter's: named by its tool, not a checkpoint's or an optimizer's.
USUAL = (
    "adapter_model.safetensors",
    "adapters.safetensors",
    "pytorch_lora_weights.safetensors",
    "adapter_model.bin",
    "pytorch_lora_weights.bin",
)


class Source(Strict):
    repo: str = Field(description="namespace/name of a repo of type model")
    revision: str = Field("main", description="branch, tag, version (v2) or commit")
    folder: str = Field("", description="the folder of the weights, where that is not the top")
    file: str | None = Field(
        None, description="the file of the weights; left out: the one with a usual name, or the only one"
    )


class ConvertRequest(ResultRequest):
    """Write weights that PEFT cannot load, or that are a pickle, as a PEFT adapter. `name` may be the source's: then it gets a new commit.

    What the mapping needs and the files do not say is refused with the name of the field that says it.
    """

    kind: Literal["convert"]
    source: Source
    base: str | None = Field(None, min_length=1, max_length=200, description="left out: the one that the files name")
    alpha: float | None = Field(None, gt=0, le=1e6, description="PEFT's lora_alpha, which loralib's files do not hold")
    enable_lora: list[bool] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="which lanes of loralib's merged layers are trained, as in its code",
    )
    component: str | None = Field(
        None, max_length=40, description="of a diffusers pipeline, where the file adapts several: unet, text_encoder"
    )

    def named_modules(self) -> Sequence[Module]:
        return []

    def sources(self) -> Mapping[str, Examples]:
        return {}

    def with_sources(self, sources: Mapping[str, Examples]) -> Self:
        return self

    def resolve(self, session: Session, viewer: Viewer, modules: Sequence[Adapter]) -> Submission:
        repo = repos.find(session, viewer, "model", self.source.repo)
        commit = repos.resolve(session, repo, self.source.revision)
        folder = PurePosixPath(self.source.folder)
        names = [
            path.name for entry in repos.files(session, commit) if (path := PurePosixPath(entry.path)).parent == folder
        ]
        # A result in the source's own repo is as visible as that is, and so leaks nothing.
        own = self.model_copy(update={"visibility": repo.visibility}) if self.name == repo.full_name else self
        namespace, visibility = own.target(session, viewer, [commit.id])
        params = ConvertParams(
            result=self.name,
            source=PinnedWeights(
                repo=repo.full_name,
                commit=commit.id,
                folder=self.source.folder,
                path=str(folder / self._weights(repo.full_name, names)),
            ),
            base_model=base_models.names(session).get(self.base or "", self.base),
            alpha=self.alpha,
            enable_lora=self.enable_lora,
            component=self.component,
        )
        return Submission(self.kind, "interactive", params, [Input(commit.id, "module")], namespace, visibility)

    def _weights(self, repo: str, names: Sequence[str]) -> str:
        where = f"the folder {self.source.folder!r} of {repo}" if self.source.folder else repo
        weight_files = [name for name in names if name.endswith((".safetensors", *PICKLE_ENDINGS))]
        if self.source.file is not None:
            if self.source.file not in weight_files:
                raise NotAnAdapter(
                    f"{where} has no weights {self.source.file!r}; name one of {', '.join(weight_files) or 'another folder'}."
                )
            return self.source.file
        usual = (name for usual in USUAL for name in (usual, f"{usual}.pickle") if name in weight_files)
        if chosen := next(usual, None) or (weight_files[0] if len(weight_files) == 1 else None):
            return chosen
        if not weight_files:
            raise NotAnAdapter(f"{where} has no file of weights at {self.source.revision}; name the folder that has.")
        raise AmbiguousFile(
            f"{where} has {len(weight_files)} files of weights ({', '.join(weight_files)}); name one as `file`."
        )
