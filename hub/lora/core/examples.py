"""Examples (pairs of text): prompts, the loss of targets, generated answers, and how answers are scored.

A prompt template has a name, which is recorded with every result, because an adapter that was trained with one template answers
badly in another: "chat" is the tokenizer's chat template with the input as the user's turn, "plain" is the input,
a line break and "Answer:".
"""

import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from hub.lora.core.bases import Base
from hub.lora.core.errors import LoraError
from hub.vocabulary import TEMPLATES

OnProgress = Callable[[int, int, dict[str, float]], None]  # step, total, named numbers; an exception stops the work

IGNORED = -100  # the label of positions outside the target, as everywhere in torch


class BadExample(LoraError):
    code = "bad_example"


class ExampleTooLong(LoraError):
    code = "example_too_long"


class UnusableTemplate(LoraError):
    code = "unusable_template"


@dataclass(frozen=True)
class Example:
    """An input and its target. `choices` are the answers to choose from, the target among them; empty if the question is open."""

    input: str
    target: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Encoded examples, each (n, length), padded on the right; `labels` is IGNORED except on the tokens of the targets."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    @property
    def target_tokens(self) -> int:
        return int((self.labels != IGNORED).sum())


# --- encoding ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """One example as token ids; the target ends with the end of sequence."""

    prompt: list[int]
    target: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


def encode(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], template: str, *, max_length: int = 2048
) -> Batch:
    """Encode prompt, target and end of sequence of each example. Raises ExampleTooLong rather than truncate one, or UnusableTemplate."""
    rows = []
    for number, example in enumerate(examples, 1):
        row = tokenize(tokenizer, example, template)
        if len(row) > max_length:
            raise ExampleTooLong(
                f"Example {number} ({example.input[:60]!r}) has {len(row)} tokens, more than {max_length}. "
                "Shorten it or leave it out."
            )
        rows.append(row)
    return pad(tokenizer, rows)


def tokenize(tokenizer: PreTrainedTokenizerBase, example: Example, template: str) -> Tokens:
    """Tokenize prompt and target separately, so that the prompt's tokens are those that `generate` uses."""
    spaced = f" {example.target}" if template == "plain" else example.target
    target = [*tokenizer(spaced, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return Tokens(_prompt(tokenizer, example.input, template), target)


def pad(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Tokens]) -> Batch:
    """The rows as one batch, padded to the longest."""
    shape = (len(rows), max(len(row) for row in rows))
    input_ids = torch.full(shape, tokenizer.pad_token_id)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = torch.tensor(row.prompt + row.target)
        attention_mask[index, : len(row)] = 1
        labels[index, len(row.prompt) : len(row)] = torch.tensor(row.target)
    return Batch(input_ids, attention_mask, labels)


def _prompt(tokenizer: PreTrainedTokenizerBase, text: str, template: str) -> list[int]:
    if template == "plain":
        return list(tokenizer(f"{text}\nAnswer:")["input_ids"])
    if template != "chat":
        raise UnusableTemplate(f"There is no prompt template {template!r}; choose one of {', '.join(TEMPLATES)}.")
    if not tokenizer.chat_template:
        raise UnusableTemplate("This base's tokenizer has no chat template; choose the template plain.")
    turns = [{"role": "user", "content": text}]
    return list(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"])


# --- loss -------------------------------------------------------------------------------------------------------------


def target_losses(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Mean negative log-likelihood per target token (nats; the end of sequence counts) of each example, (n,). Differentiable."""
    losses, rows = _token_losses(model, batch)
    sums = torch.zeros(len(batch.labels), device=losses.device).index_add(0, rows, losses)
    return sums / rows.bincount(minlength=len(batch.labels))


def target_loss(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Mean negative log-likelihood per target token (nats) over all target tokens of the batch, a scalar. Differentiable."""
    losses, _ = _token_losses(model, batch)
    return losses.mean()


def _token_losses(model: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """The loss of every target token and the row it belongs to, both (targets,), in float32.

    An encoder-decoder gets the prompts in its encoder and the targets in its decoder; any other model gets both in one row.
    With a vocabulary of 49,152 the logits over a prompt would cost more than the rest of the network and are never used. So a hook
    passes only the hidden states that predict a target to the output layer. Whatever an architecture does to its logits after that
    (soft-capping, scaling) is unaffected.
    """
    inputs, labels = _decoded(model, batch) if model.config.is_encoder_decoder else _in_one(model, batch)
    rows, columns = (labels != IGNORED).nonzero(as_tuple=True)

    def only_targets(_layer: nn.Module, hidden: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (hidden[0][rows, columns].unsqueeze(0),)

    handle = model.get_output_embeddings().register_forward_pre_hook(only_targets)
    try:
        logits = model(**inputs, use_cache=False).logits.squeeze(0)
    finally:
        handle.remove()
    return functional.cross_entropy(logits.float(), labels[rows, columns], reduction="none"), rows


def _in_one(model: PreTrainedModel, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """(the model's inputs, the token that each position shall predict)."""
    inputs = {"input_ids": batch.input_ids.to(model.device), "attention_mask": batch.attention_mask.to(model.device)}
    return inputs, batch.labels.to(model.device)[:, 1:]


def _decoded(model: PreTrainedModel, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """The same for an encoder-decoder: the prompts for the encoder, and the targets, shifted right by one, for the decoder."""
    is_target = batch.labels != IGNORED
    prompts = [row[mask] for row, mask in zip(batch.input_ids, batch.attention_mask.bool() & ~is_target, strict=True)]
    targets = [row[mask] for row, mask in zip(batch.labels, is_target, strict=True)]
    config = model.config
    inputs = {
        "input_ids": pad_sequence(prompts, batch_first=True, padding_value=config.pad_token_id),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in prompts], batch_first=True),
        "decoder_input_ids": pad_sequence(
            [torch.cat([row.new_tensor([config.decoder_start_token_id]), row[:-1]]) for row in targets],
            batch_first=True,
            padding_value=config.pad_token_id,
        ),
    }
    labels = pad_sequence(targets, batch_first=True, padding_value=IGNORED)
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}, labels.to(model.device)


# --- answers ----------------------------------------------------------------------------------------------------------


def generate(base: Base, inputs: Sequence[str], template: str, *, max_new_tokens: int, batch_size: int) -> list[str]:
    """Greedy decoding until the end of sequence, at most `max_new_tokens`; stripped answers in the order of `inputs`.

    Inputs of similar length share a batch, padded on the side away from the answer. A batch ends when all its answers have ended.
    """
    tokenizer = base.tokenizer
    greedy = _greedy(base, max_new_tokens)
    prompts = [_prompt(tokenizer, text, template) for text in inputs]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    decodes = base.model.config.is_encoder_decoder
    side = "right" if decodes else "left"
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        rows = [torch.tensor(prompts[index]) for index in chosen]
        input_ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id, padding_side=side)
        ones = [torch.ones_like(row) for row in rows]
        attention_mask = pad_sequence(ones, batch_first=True, padding_side=side)
        written = 0 if decodes else input_ids.shape[1]  # where the answer starts in what comes out
        with torch.inference_mode():
            output = base.model.generate(
                input_ids=input_ids.to(base.device),
                attention_mask=attention_mask.to(base.device),
                generation_config=greedy,
            )
        for index, text in zip(
            chosen, tokenizer.batch_decode(output[:, written:], skip_special_tokens=True), strict=True
        ):
            answers[index] = text.strip()
    return answers


def _greedy(base: Base, max_new_tokens: int) -> GenerationConfig:
    # A base may name more end tokens than its tokenizer does, such as the end of a turn.
    ends = base.model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted({end for end in [*ends, base.tokenizer.eos_token_id] if end is not None}),
        pad_token_id=base.tokenizer.pad_token_id,
    )


# --- scoring ----------------------------------------------------------------------------------------------------------


def exact_match(prediction: str, target: str) -> bool:
    """Equality that ignores outer and repeated white space, the width of characters (NFKC), and one final full stop (also ideographic).

    Case matters, as it may be part of the task.
    """
    return _normal(prediction) == _normal(target)


def contains(prediction: str, target: str) -> bool:
    """Whether the answer contains the target as whole words ("no" is not in "not"), in any case.

    Chinese and Japanese are written without spaces, so their characters may precede or follow the target.
    """
    words = _normal(target).casefold()
    before = rf"(?<!{_SPACED})" if re.match(_SPACED, words) else ""
    after = rf"(?!{_SPACED})" if re.search(rf"{_SPACED}\Z", words) else ""
    return re.search(f"{before}{re.escape(words)}{after}", _normal(prediction).casefold()) is not None


# A word character of a script that separates words by spaces: any but kana, ideographs and their marks.
_SPACED = r"[^\W\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"


def _normal(text: str) -> str:
    plain = " ".join(unicodedata.normalize("NFKC", text).split())
    return (plain[:-1] if plain.endswith((".", "。")) else plain).rstrip()


_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


def numeric_match(prediction: str, target: str) -> bool:
    """Whether the last number of the answer is the last number of the target; commas may group thousands, and 7.0 is 7."""
    predicted, expected = (_NUMBER.findall(unicodedata.normalize("NFKC", text)) for text in (prediction, target))
    return bool(predicted and expected) and _number(predicted[-1]) == _number(expected[-1])


def _number(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


# --- reading ----------------------------------------------------------------------------------------------------------


def parse_jsonl(text: str) -> list[Example]:
    """Parse one example per line: {"input", "target"} with optional "choices", or chat {"messages"} of one question and its answer.

    Other fields are ignored. Raises BadExample, which names the line.
    """
    examples = []
    # splitlines() would also split at characters that JSON allows inside a string.
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        if line.strip():
            examples.append(_example(number, line))
    if not examples:
        raise BadExample('There are no examples. Write one a line: {"input": "...", "target": "..."}.')
    return examples


def _example(number: int, line: str) -> Example:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadExample(f"Line {number} is not JSON ({error}). Each line must be one JSON object.") from error
    if not isinstance(row, dict):
        raise BadExample(f"Line {number} is not a JSON object; it needs an input and a target.")
    if "messages" in row:
        return _from_chat(number, row["messages"])
    choices = row.get("choices") or []
    if not isinstance(choices, list):
        raise BadExample(f"Line {number}: choices must be a list of texts.")
    example = Example(
        _text(number, "input", row.get("input")),
        _text(number, "target", row.get("target")),
        tuple(_text(number, "choices", choice) for choice in choices),
    )
    if choices and example.target not in choices:
        raise BadExample(f"Line {number}: the target {example.target!r} is not one of the choices.")
    return example


def _from_chat(number: int, messages: Any) -> Example:
    turns = messages if isinstance(messages, list) and all(isinstance(turn, dict) for turn in messages) else []
    if [turn.get("role") for turn in turns] != ["user", "assistant"]:
        raise BadExample(
            f"Line {number}: messages must be one turn of the user and the assistant's answer, and nothing else."
        )
    question, answer = (_text(number, "content", turn.get("content")) for turn in turns)
    return Example(question, answer)


def _text(number: int, field: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadExample(f"Line {number}: {field} must be a text that is not empty.")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in value):
        raise BadExample(
            f"Line {number}: {field} holds half a surrogate pair, which no text file can; correct the escape."
        )
    return value
