"""How to use an adapter elsewhere: text to paste, with this hub's own address, the adapter's id and one fixed revision in it.

docs/huggingface.md lists each client's requests to the hub, and how `namespace/name.v3` pins a version for clients without revisions.
The base's name and the folder come from an upload, so both are quoted: nobody's text becomes a command of whoever pastes it.
"""

import json
from dataclasses import dataclass
from shlex import quote

from hub.registry.models.adapters import AdapterFacts
from hub.registry.models.content import Commit, Repo

# The transformers class for an adapter's task type; a language model where there is none.
AUTO_CLASSES = {
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
VLLM_DEFAULT_RANK = 16
VLLM_RANKS = (32, 64, 128, 256, 320, 512)
NOT_IN_VLLM = ("dora", "modules_to_save")  # vLLM refuses to load an adapter with these


@dataclass(frozen=True)
class Snippet:
    name: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Pinned:
    """One adapter at one commit, as clients name it."""

    hub: str  # this hub's address
    repo: Repo
    commit: Commit
    version: str | None
    facts: AdapterFacts

    @property
    def revision(self) -> str:
        return self.version or self.commit.id

    @property
    def base(self) -> str:
        return self.facts.base_id or self.facts.base_model or "BASE"

    @property
    def needs_token(self) -> bool:
        return self.repo.visibility != "public"


def snippets(pinned: Pinned, *, base_here: bool) -> list[Snippet]:
    """`base_here`: this hub serves the base's files too, so that clients need no other source."""
    note = ""
    if pinned.base == "BASE":
        note = "The adapter does not name its base: put its id or folder in the place of BASE."
    elif not base_here:
        note = f"This hub does not keep the files of {pinned.base}: upload them under that name, or write the folder where you have them."
    listed = [
        Snippet("PEFT", _peft(pinned), note),
        Snippet("transformers", _transformers(pinned), note),
        Snippet("hf download", _download(pinned)),
    ]
    if pinned.facts.facts["task_type"] in ("CAUSAL_LM", None):
        refused = [flag for flag in NOT_IN_VLLM if flag in pinned.facts.facts["flags"]]
        vllm = f"vLLM does not load adapters with {refused[0]}." if refused else note
        listed[2:2] = [Snippet("vLLM", _vllm(pinned), vllm), Snippet("SGLang", _sglang(pinned), note)]
    return listed


def _environment(pinned: Pinned) -> str:
    lines = ["import os", f'os.environ["HF_ENDPOINT"] = {_text(pinned.hub)}  # before the imports below']
    if pinned.needs_token:
        lines.append('os.environ["HF_TOKEN"] = "ll_..."  # a token of yours')
    return "\n".join(lines) + "\n\n"


def _exports(pinned: Pinned) -> str:
    lines = [f"export HF_ENDPOINT={quote(pinned.hub)}"]
    if pinned.needs_token:
        lines.append("export HF_TOKEN=ll_...  # a token of yours")
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """A Python literal."""
    return json.dumps(value, ensure_ascii=False)


def _auto_class(pinned: Pinned) -> str:
    return AUTO_CLASSES.get(pinned.facts.facts["task_type"] or "", "AutoModelForCausalLM")


def _peft(pinned: Pinned) -> str:
    auto, folder = _auto_class(pinned), pinned.facts.folder
    where = f'"{pinned.repo.full_name}", revision="{pinned.revision}"' + (
        f", subfolder={_text(folder)}" if folder else ""
    )
    return (
        f"{_environment(pinned)}from peft import PeftModel\n"
        f"from transformers import {auto}, AutoTokenizer\n\n"
        f'base = {auto}.from_pretrained({_text(pinned.base)}, dtype="auto")\n'
        f"tokenizer = AutoTokenizer.from_pretrained({_text(pinned.base)})\n"
        f"model = PeftModel.from_pretrained(base, {where})\n"
    )


def _transformers(pinned: Pinned) -> str:
    auto, folder = _auto_class(pinned), pinned.facts.folder
    arguments = {"revision": pinned.revision} | ({"subfolder": folder} if folder else {})
    return (
        f"{_environment(pinned)}from transformers import {auto}, AutoTokenizer\n\n"
        f'model = {auto}.from_pretrained({_text(pinned.base)}, dtype="auto")\n'
        f"tokenizer = AutoTokenizer.from_pretrained({_text(pinned.base)})\n"
        f'model.load_adapter("{pinned.repo.full_name}", adapter_kwargs={json.dumps(arguments, ensure_ascii=False)})\n'
    )


def _served(pinned: Pinned) -> tuple[str, str]:
    """(commands to run first, the adapter's name for a serving engine): a version's own name, or a folder to download into."""
    if pinned.version and not pinned.facts.folder:
        return "", f"{pinned.repo.full_name}.{pinned.version}"
    folder = f"./{pinned.repo.name}-{pinned.version or pinned.commit.id[:8]}"
    at = f"{folder}/{pinned.facts.folder}" if pinned.facts.folder else folder
    return f"hf download {pinned.repo.full_name} --revision {pinned.revision} --local-dir {folder}\n", at


def _vllm(pinned: Pinned) -> str:
    first, adapter = _served(pinned)
    rank = pinned.facts.rank
    most = next((allowed for allowed in VLLM_RANKS if allowed >= rank), rank)
    room = f" --max-lora-rank {most}" if rank > VLLM_DEFAULT_RANK else ""
    return (
        f"{_exports(pinned)}{first}vllm serve {quote(pinned.base)} --enable-lora{room} \\\n"
        f"  --lora-modules {quote(f'{pinned.repo.name}={adapter}')}\n"
    )


def _sglang(pinned: Pinned) -> str:
    first, adapter = _served(pinned)
    return (
        f"{_exports(pinned)}{first}python -m sglang.launch_server --model-path {quote(pinned.base)} \\\n"
        f"  --lora-paths {quote(f'{pinned.repo.name}={adapter}')}\n"
    )


def _download(pinned: Pinned) -> str:
    only = f" --include {quote(f'{pinned.facts.folder}/*')}" if pinned.facts.folder else ""
    return f"{_exports(pinned)}hf download {pinned.repo.full_name} --revision {pinned.revision}{only}\n"
