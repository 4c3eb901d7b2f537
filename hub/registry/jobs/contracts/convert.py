"""The kind `convert`: what a worker reads, what the job keeps, and what loraloom.json says. No base is loaded."""

from pydantic import Field

from hub.formats.report import Absent
from hub.registry.jobs.contracts.common import Contract, Manifest, ManifestBase, ManifestInputs, Params, Result
from hub.vocabulary import Style


class PinnedWeights(Contract):
    """A file of weights at a commit, and its folder."""

    repo: str
    commit: str
    folder: str = ""
    path: str


class ConvertSettings(Contract):
    """What the files do not say and the request did."""

    base_model: Absent[str] = None
    alpha: Absent[float] = None
    enable_lora: Absent[list[bool]] = None
    component: Absent[str] = None


class ConvertParams(Params, ConvertSettings):
    result: str
    source: PinnedWeights

    @property
    def result_repo(self) -> str:
        return self.result


class Converted(Contract):
    """`style`: which tool wrote the source."""

    style: Style = Field(alias="from")
    pickle: bool
    tensors: int


class ConvertResult(Result):
    converted: Converted
    settings: ConvertSettings = ConvertSettings()


class ConvertManifest(Manifest):
    """The method is `lora`, or `dora` where the source has magnitudes."""

    converted: Converted
    base: ManifestBase
    inputs: ManifestInputs
    settings: ConvertSettings
    versions: dict[str, str]
