"""What loads adapters, asking this hub as it asks the Hugging Face Hub: PEFT and transformers themselves, and for the servers that
are too large to run here exactly the requests that each makes (vLLM, SGLang, LoRAX with its Python and its Rust client)."""

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from hub.registry.access import users
from hub.registry.access.viewer import Viewer
from hub.registry.platform.db import transaction
from hub.registry.platform.services import Services
from hub.starter import seed
from hub.starter.publish import MODULES, publish_module
from tests.api.huggingface.conftest import RunClient
from tests.conftest import Person
from tests.support import protocol
from tests.support.files import peft_folder

PUSH = """
    import json, torch
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    config = LlamaConfig(vocab_size=3, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=1)
    LlamaForCausalLM(config).push_to_hub("ann/tiny")
    tokenizer.push_to_hub("ann/tiny")
    base = AutoModelForCausalLM.from_pretrained("ann/tiny")
    ids = torch.tensor([[0, 1, 2, 1]])
    print("base", json.dumps(base(ids).logits.flatten().tolist()))
    for seed in (1, 2):
        model = get_peft_model(AutoModelForCausalLM.from_pretrained("ann/tiny"), LoraConfig(r=2, target_modules=["q_proj"]))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(seed))
        model.push_to_hub("ann/adapter")
        print(f"v{seed}", json.dumps(model(ids).logits.flatten().tolist()))
"""

LOAD = """
    import json, torch
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    def base():
        return AutoModelForCausalLM.from_pretrained("ann/tiny")
    ids = torch.tensor([AutoTokenizer.from_pretrained("ann/tiny")("a b c b")["input_ids"]])
    def show(name, model):
        print(name, json.dumps(model.eval()(ids).logits.flatten().tolist()))
    show("peft", PeftModel.from_pretrained(base(), "ann/adapter"))
    show("revision", PeftModel.from_pretrained(base(), "ann/adapter", revision="v1"))
    show("pinned", PeftModel.from_pretrained(base(), "ann/adapter.v1"))
    show("auto", AutoPeftModelForCausalLM.from_pretrained("ann/adapter"))
    model = base()
    model.load_adapter("ann/adapter")
    show("transformers", model)
"""


def numbers(said: str) -> dict[str, list[float]]:
    """What the programs print: a name and a list of numbers a line."""
    rows = (text.partition(" [") for text in said.splitlines())
    return {name: json.loads(f"[{values}") for name, bracket, values in rows if bracket and name.isalnum()}


def test_base_and_adapter_are_pushed_and_loaded(run_client: RunClient) -> None:
    pushed = numbers(run_client(PUSH, home="trainer"))
    loaded = numbers(run_client(LOAD, home="consumer"))

    def close(values: list[float]) -> object:
        return pytest.approx(values, rel=1e-4, abs=1e-5)

    assert pushed["v1"] != close(pushed["base"])
    assert pushed["v1"] != close(pushed["v2"])
    for name in ("peft", "auto", "transformers"):
        assert loaded[name] == close(pushed["v2"])
    for name in ("revision", "pinned"):
        assert loaded[name] == close(pushed["v1"])


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir()
    for path, data in files.items():
        (folder / path).write_bytes(data)


def test_what_vllm_sglang_and_lorax_ask(run_client: RunClient, tmp_path: Path) -> None:
    """They know no revision; team/name.v1 pins one for them."""
    write(tmp_path / "one", peft_folder(seed=1))
    write(tmp_path / "two", peft_folder(seed=2))
    run_client("""
        from huggingface_hub import HfApi
        api = HfApi()
        api.create_repo("ann/adapter")
        api.upload_folder(repo_id="ann/adapter", folder_path="one")
        api.upload_folder(repo_id="ann/adapter", folder_path="two")
    """)
    run_client(
        """
        import shutil
        from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
        def keep(folder, name): shutil.copytree(folder, name)
        keep(snapshot_download(repo_id="ann/adapter.v1"), "vllm-v1")
        keep(snapshot_download(repo_id="ann/adapter"), "vllm")
        HfApi().list_repo_files("ann/adapter.v1")
        keep(snapshot_download("ann/adapter.v1", allow_patterns="*.json"), "sglang-config")
        names = [file["name"] for file in HfFileSystem().ls("ann/adapter.v1", detail=True)]
        assert "ann/adapter.v1/adapter_model.safetensors" in names, names
        keep(snapshot_download("ann/adapter.v1", allow_patterns=["*.safetensors"]), "sglang")
        files = [file.rfilename for file in HfApi().model_info("ann/adapter.v1").siblings]
        weights = [name for name in files if name.endswith(".safetensors") and "/" not in name]
        hf_hub_download("ann/adapter.v1", filename=weights[0], revision=None, local_dir="lorax")
    """,
        home="server",
    )
    first, second = peft_folder(seed=1), peft_folder(seed=2)
    weights = "adapter_model.safetensors"
    for folder in ("vllm-v1", "sglang", "lorax"):
        assert (tmp_path / folder / weights).read_bytes() == first[weights]
    assert (tmp_path / "vllm" / weights).read_bytes() == second[weights]
    assert (tmp_path / "sglang-config/adapter_config.json").read_bytes() == first["adapter_config.json"]


@pytest.mark.parametrize("path", ["adapter_model.safetensors", "adapter_config.json", "one"])
def test_the_rust_client_reads_size_and_names_from_one_byte(client: TestClient, ann: Person, path: str) -> None:
    files = {**peft_folder(), "one": b"1"}
    protocol.create(client, ann, "ann/adapter")
    commit = protocol.committed(client, ann, "ann/adapter", files)
    answer: Any = client.get(f"/ann/adapter/resolve/main/{path}", headers={**ann.headers, "Range": "bytes=0-0"})
    assert answer.status_code == 206
    assert answer.content == files[path][:1]
    assert answer.headers["Content-Range"] == f"bytes 0-0/{len(files[path])}"
    assert answer.headers["X-Repo-Commit"] == commit
    named = protocol.sha256 if path.endswith(".safetensors") else protocol.git_oid
    assert answer.headers["ETag"] == f'"{named(files[path])}"'


def test_a_starter_module_and_its_base_come_from_the_hub_alone(
    run_client: RunClient, services: Services, built_in_folder: Path
) -> None:
    """What a fresh instance offers: both with nothing but HF_ENDPOINT set, without a token."""
    with transaction(services.sessions) as session:
        admin = users.ensure_user(session, "admin", is_admin=True)
        for name in (seed.NAMESPACE, "loraloom"):
            users.create_namespace(session, name, "organization", admin.id)
        session.flush()
        viewer = Viewer(admin.id, admin.name, is_admin=True)
    seed.publish_base(services, viewer, built_in_folder)
    publish_module(services, viewer, MODULES / "plurals", f"{seed.NAMESPACE}/plurals", "public")
    said = run_client(
        """
        import torch
        from peft import AutoPeftModelForCausalLM
        from transformers import AutoTokenizer
        model = AutoPeftModelForCausalLM.from_pretrained("starter/plurals.v1")
        print("base:", model.base_model.model.name_or_path)
        tokenizer = AutoTokenizer.from_pretrained("loraloom/SmolLM2-135M-Instruct-Q4_1")
        asked = tokenizer("Give the plural: quilt\\nAnswer:", return_tensors="pt")
        answer = model.generate(**asked, max_new_tokens=8, do_sample=False)
        print("answer:" + tokenizer.decode(answer[0, asked["input_ids"].shape[1]:], skip_special_tokens=True))
        """,
        token=None,
    )
    assert "base: loraloom/SmolLM2-135M-Instruct-Q4_1" in said
    assert "answer: quilts" in said
