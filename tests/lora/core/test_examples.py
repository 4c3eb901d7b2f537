"""hub.lora.core.examples: prompts and labels token by token, the loss against transformers' own, intervals against their definitions."""

import json
from typing import Any

import pytest
import torch

from hub.lora.core.bases import Base
from hub.lora.core.examples import (
    IGNORED,
    BadExample,
    Batch,
    Example,
    ExampleTooLong,
    UnusableTemplate,
    contains,
    encode,
    exact_match,
    generate,
    numeric_match,
    parse_jsonl,
    target_loss,
    target_losses,
)
from tests.tiny_models import byte_tokenizer

EXAMPLES = [
    Example("one", "1"),
    Example("the number that comes after twenty-one", "twenty-two"),
    Example("", "nothing was asked"),
    Example("π and ü", "two letters beyond ASCII: π, ü"),
]


def row(batch: Batch, index: int) -> tuple[list[int], list[int]]:
    """Tokens and labels of one example, without the padding."""
    kept = batch.attention_mask[index].bool()
    return batch.input_ids[index][kept].tolist(), batch.labels[index][kept].tolist()


# --- encoding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "prompt", "answer"),
    [
        ("plain", "{}\nAnswer:", " {}"),
        ("chat", "<|start|>user\n{}<|end|>\n<|start|>assistant\n", "{}"),
    ],
)
def test_only_the_target_and_its_end_are_labelled(tiny_base: Base, template: str, prompt: str, answer: str) -> None:
    tokenizer = tiny_base.tokenizer
    batch = encode(tokenizer, EXAMPLES, template)
    for index, example in enumerate(EXAMPLES):
        tokens, labels = row(batch, index)
        first = labels.count(IGNORED)
        assert tokenizer.decode(tokens[:first]) == prompt.format(example.input)
        assert tokenizer.decode(tokens[first:]) == answer.format(example.target) + "<|end|>"
        assert labels == [IGNORED] * first + tokens[first:]
    padding = ~batch.attention_mask.bool()
    assert padding.any(), "without padding its labels are not looked at"
    assert (batch.labels[padding] == IGNORED).all()
    assert (batch.input_ids[padding] == tokenizer.pad_token_id).all()
    # On the right: once the mask is zero it stays zero.
    assert (batch.attention_mask.diff(dim=1) <= 0).all()


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_generate_sees_the_prompt_that_was_encoded(
    tiny_base: Base, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    original = tiny_base.model.generate

    def recording(**arguments: Any) -> Any:
        rows = zip(arguments["input_ids"], arguments["attention_mask"], strict=True)
        seen.extend(tokens[mask.bool()].tolist() for tokens, mask in rows)
        return original(**arguments)

    monkeypatch.setattr(tiny_base.model, "generate", recording)
    inputs = [example.input for example in EXAMPLES]
    generate(tiny_base, inputs, template, max_new_tokens=2, batch_size=3)
    batch = encode(tiny_base.tokenizer, EXAMPLES, template)
    encoded = [row(batch, index) for index in range(len(EXAMPLES))]
    assert sorted(seen) == sorted(tokens[: labels.count(IGNORED)] for tokens, labels in encoded)


def test_too_long_an_example_is_refused_and_never_cut(tiny_base: Base) -> None:
    # 3 bytes, line break, "Answer:", a space and 4 bytes, and the end.
    example, length = Example("ask", "1234"), 3 + 8 + 5 + 1
    assert encode(tiny_base.tokenizer, [example], "plain", max_length=length).input_ids.shape == (1, length)
    with pytest.raises(ExampleTooLong, match=rf"Example 2 \('ask'\) has {length} tokens, more than {length - 1}"):
        encode(tiny_base.tokenizer, [Example("a", "b"), example], "plain", max_length=length - 1)


def test_templates_that_cannot_be_used_are_named() -> None:
    tokenizer = byte_tokenizer()
    with pytest.raises(UnusableTemplate, match=r"'alpaca'; choose one of chat, plain"):
        encode(tokenizer, EXAMPLES, "alpaca")
    tokenizer.chat_template = None
    with pytest.raises(UnusableTemplate, match="no chat template"):
        encode(tokenizer, EXAMPLES, "chat")
    assert encode(tokenizer, EXAMPLES, "plain").input_ids.shape[0] == len(EXAMPLES)


# --- loss -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_the_loss_is_transformers_own(tiny_base: Base, template: str) -> None:
    batch = encode(tiny_base.tokenizer, EXAMPLES, template)
    with torch.inference_mode():
        reference = tiny_base.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
        ).loss
        torch.testing.assert_close(target_loss(tiny_base.model, batch), reference, rtol=1e-5, atol=1e-6)
    assert not tiny_base.model.get_output_embeddings()._forward_pre_hooks


def test_the_loss_of_each_example_is_its_loss_alone(tiny_base: Base) -> None:
    together = target_losses(tiny_base.model, encode(tiny_base.tokenizer, EXAMPLES, "chat"))
    alone = [target_loss(tiny_base.model, encode(tiny_base.tokenizer, [example], "chat")) for example in EXAMPLES]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-6)
    assert len({round(float(loss), 3) for loss in alone}) == len(EXAMPLES)


def test_the_gradient_of_the_loss_is_transformers_own(tiny_base: Base) -> None:
    batch = encode(tiny_base.tokenizer, EXAMPLES, "plain")
    embedding = tiny_base.model.get_input_embeddings()
    inputs = embedding(batch.input_ids).requires_grad_()
    handle = embedding.register_forward_hook(lambda *_: inputs)
    try:
        (ours,) = torch.autograd.grad(target_loss(tiny_base.model, batch), inputs)
    finally:
        handle.remove()
    loss = tiny_base.model(inputs_embeds=inputs, attention_mask=batch.attention_mask, labels=batch.labels).loss
    (reference,) = torch.autograd.grad(loss, inputs)
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-6)
    assert reference.abs().max() > 1e-3


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_answers_do_not_depend_on_the_batch(tiny_base: Base, template: str) -> None:
    inputs = [f"{'very ' * length}long?" for length in (7, 0, 3, 1, 12)]
    alone = [generate(tiny_base, [text], template, max_new_tokens=8, batch_size=1)[0] for text in inputs]
    assert len(set(alone)) > 1, "equal answers would not show a wrong order"
    for batch_size in (2, 5):
        assert generate(tiny_base, inputs, template, max_new_tokens=8, batch_size=batch_size) == alone


def test_answers_are_greedy_and_end_at_the_end_of_sequence(tiny_base: Base) -> None:
    tokens = tiny_base.tokenizer("why\nAnswer:", return_tensors="pt")["input_ids"]
    written: list[int] = []
    with torch.inference_mode():
        for _ in range(6):
            following = int(tiny_base.model(tokens).logits[0, -1].argmax())
            written.append(following)
            tokens = torch.cat([tokens, torch.tensor([[following]])], dim=1)
    expected = tiny_base.tokenizer.decode(written, skip_special_tokens=True).strip()
    assert generate(tiny_base, ["why"], "plain", max_new_tokens=6, batch_size=1) == [expected]
    # The same model whose third word is an end writes two.
    configured = tiny_base.model.generation_config.eos_token_id
    assert written[2] not in written[:2]
    tiny_base.model.generation_config.eos_token_id = [configured, written[2]]
    try:
        (ended,) = generate(tiny_base, ["why"], "plain", max_new_tokens=6, batch_size=1)
    finally:
        tiny_base.model.generation_config.eos_token_id = configured
    assert ended == tiny_base.tokenizer.decode(written[:3], skip_special_tokens=True).strip()


# --- scoring ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "target", "exact", "within"),
    [
        ("Paris", "Paris", True, True),
        (" Paris.\n", "Paris", True, True),
        ("paris", "Paris", False, True),
        ("New  York", "New York.", True, True),
        ("STRASSE", "straße", False, True),
        ("It is Paris, I think.", "Paris", False, True),
        ("not", "no", False, False),
        ("no!", "no", False, True),
        ("C++ it is", "c++", False, True),
        ("3.14", "3", False, True),
        ("a.b", "a*b", False, False),
        ("Paris..", "Paris", False, True),
        ("", "Paris", False, False),
        ("東京。", "東京", True, True),
        ("ＰＡＲＩＳ．", "PARIS", True, True),
        ("\u3000東京\u3000", "東京", True, True),
        ("答えは東京です", "東京", False, True),
        ("全部で5個", "5", False, True),
        ("全部で15個", "5", False, False),
        ("カタカナ", "ｶﾀｶﾅ", True, True),
        ("наш Париж", "Париж", False, True),
        ("Парижанин", "Париж", False, False),
    ],
)
def test_exact_match_and_contains(prediction: str, target: str, exact: bool, within: bool) -> None:
    assert exact_match(prediction, target) is exact
    assert contains(prediction, target) is within


@pytest.mark.parametrize(
    ("prediction", "target", "right"),
    [
        ("So 3 + 4 is 7.", "7", True),
        ("答えは１，２３４．５です。", "1234.5", True),
        ("7.0", "7", True),
        ("it costs $1,234.50", "1234.5", True),
        ("7, or rather 8", "7", False),
        ("-5", "5", False),
        ("minus five", "5", False),
        ("5", "five", False),
        ("0.1", "0.10", True),
        ("12345678901234567890", "12345678901234567891", False),
    ],
)
def test_numeric_match(prediction: str, target: str, right: bool) -> None:
    assert numeric_match(prediction, target) is right


# --- reading ----------------------------------------------------------------------------------------------------------


def test_parse_jsonl_reads_pairs_choices_and_chats() -> None:
    rows: list[dict[str, Any]] = [
        {"input": "2 + 2", "target": "4", "source": "arithmetic"},
        {"input": "yes or no", "target": "no", "choices": ["yes", "no"]},
        {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]},
        {"input": "a line\u2028separator and\nbreak", "target": "kept"},
    ]
    text = "\ufeff" + "\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"
    assert parse_jsonl(text) == [
        Example("2 + 2", "4"),
        Example("yes or no", "no", ("yes", "no")),
        Example("hello", "good day"),
        Example("a line\u2028separator and\nbreak", "kept"),
    ]


CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"target": "4"}', "input must be a text"),
        ('{"input": "2", "target": 4}', "target must be a text"),
        ('{"input": "2", "target": " "}', "target must be a text that is not empty"),
        ('{"input": "2", "target": "\\ud83d"}', "half a surrogate pair"),
        ('{"input": "2", "target": "a", "choices": "ab"}', "choices must be a list"),
        ('{"input": "2", "target": "a", "choices": ["a", 1]}', "choices must be a text"),
        ('{"input": "2", "target": "c", "choices": ["a", "b"]}', "'c' is not one of the choices"),
        (json.dumps({"messages": CHAT[:1]}), "one turn of the user"),
        (json.dumps({"messages": [*CHAT, *CHAT]}), "one turn of the user"),
        (json.dumps({"messages": ["hello", "good day"]}), "one turn of the user"),
        (json.dumps({"messages": [CHAT[0], {"role": "assistant", "content": None}]}), "content must be a text"),
    ],
)
def test_bad_lines_are_named_by_number(line: str, words: str) -> None:
    with pytest.raises(BadExample, match=rf"^Line 3\b.*{words}"):
        parse_jsonl(f'{{"input": "a", "target": "b"}}\n\n{line}\n{{')


def test_no_examples_at_all_is_an_error() -> None:
    with pytest.raises(BadExample, match="no examples"):
        parse_jsonl("\n \n")
