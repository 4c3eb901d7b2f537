"""One folder of an uploaded tree: the file names that matter to inspection, and the headers of its safetensors files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hub.formats.adapter_config import CONFIG, WEIGHTS
from hub.formats.errors import FormatError
from hub.formats.ranged_file import RangedFile
from hub.formats.safetensors_header import Header, read_header
from hub.registry.inspection.findings import Finding, finding, format_finding

PICKLE = "adapter_model.bin"
CARD = "README.md"
SIDECAR = "loraloom.json"
MAX_SIDECAR_BYTES = 4 << 20

# Pickles that a loader reads if the file that it prefers is missing -> that file. No loader reads any other pickle.
LOADED_PICKLES = {
    PICKLE: WEIGHTS,
    "pytorch_model.bin": "model.safetensors",
    "diffusion_pytorch_model.bin": "diffusion_pytorch_model.safetensors",
    "pytorch_lora_weights.bin": "pytorch_lora_weights.safetensors",
}
PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True)
class Folder:
    path: str  # "" for the top
    files: Mapping[str, RangedFile]  # by their names in the folder

    def at(self, name: str) -> str:
        """The path in the tree of a file of this folder."""
        return f"{self.path}/{name}" if self.path else name

    @property
    def holds_adapter(self) -> bool:
        return bool(self.files.keys() & {CONFIG, WEIGHTS, PICKLE})


def split_folders(files: Mapping[str, RangedFile]) -> dict[str, Folder]:
    """The folders of a tree (path -> file), in the order of their paths."""
    grouped: dict[str, dict[str, RangedFile]] = {}
    for path in sorted(files):
        folder, _, name = path.rpartition("/")
        grouped.setdefault(folder, {})[name] = files[path]
    return {path: Folder(path, members) for path, members in sorted(grouped.items())}


def read_headers(folder: Folder) -> tuple[dict[str, Header], list[Finding]]:
    """The header of each safetensors file, by name, and a finding for each that cannot be read."""
    headers: dict[str, Header] = {}
    broken: list[Finding] = []
    for name, file in folder.files.items():
        if name.endswith(".safetensors"):
            try:
                headers[name] = read_header(file)
            except FormatError as error:
                broken.append(format_finding(error, folder.at(name)))
    return headers, broken


def pickle_findings(folder: Folder) -> Iterator[Finding]:
    inert = []
    for name in folder.files:
        if name in LOADED_PICKLES and LOADED_PICKLES[name] not in folder.files:
            message = "The weights are a pickle, and to read a pickle may run whatever its author put into it."
            yield finding("pickle_weights", folder.at(name), message)
        elif name.endswith(PICKLE_ENDINGS):
            inert.append(name)
    if inert:
        names = inert[0] if len(inert) == 1 else f"{inert[0]} and {len(inert) - 1} more"
        message = f"No loader of adapters reads {names}; pickles are kept, and never opened here."
        yield finding("inert_pickle", folder.at(inert[0]), message)
