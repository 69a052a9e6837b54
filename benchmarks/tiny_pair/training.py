"""Trains a decoder of Llama's shape on the questions and saves it as Transformers and vLLM load it, chat template included.

A token is a character. The loss is over the answer and its end alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers import decoders as token_decoders
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.tiny_pair.questions import LETTERS, Question

_PAD, _END, _EQUALS = "<pad>", "<end>", "="
CHAT_TEMPLATE = "{{ messages[-1]['content'] }}" + _EQUALS
_VOCABULARY = {token: number for number, token in enumerate([_PAD, _END, _EQUALS, *LETTERS])}
_LONGEST = 32
_NOT_GRADED = -100
"""The label that cross entropy leaves out."""
_PEAK_RATE = 3e-3
_WARM_UP = 0.05


@dataclass(frozen=True)
class Size:
    """Of one model. `head_dim` is 32, the smallest that vLLM's attention on the CPU has a kernel for."""

    hidden_size: int
    num_layers: int
    num_steps: int
    batch_size: int = 128


SIZES = {"small": Size(hidden_size=64, num_layers=2, num_steps=1500), "large": Size(hidden_size=64, num_layers=3, num_steps=6000)}


def train(size: Size, source: Iterator[Question], folder: Path, *, seed: int) -> float:
    """Train on the next `num_steps` times `batch_size` questions of `source` and save in `folder`. Returns the last steps' mean loss."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(_config(size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=size.num_steps, pct_start=_WARM_UP)
    losses: list[float] = []
    for _ in range(size.num_steps):
        tokens, labels = _batch([next(source) for _ in range(size.batch_size)])
        loss = model(input_ids=tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    last = losses[-100:]
    return sum(last) / len(last)


def _config(size: Size) -> LlamaConfig:
    head_dim = 32
    return LlamaConfig(
        vocab_size=len(_VOCABULARY),
        hidden_size=size.hidden_size,
        intermediate_size=3 * size.hidden_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.hidden_size // head_dim,
        num_key_value_heads=size.hidden_size // head_dim,
        head_dim=head_dim,
        max_position_embeddings=2 * _LONGEST,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=_VOCABULARY[_END],
        pad_token_id=_VOCABULARY[_PAD],
    )


def _batch(questions: list[Question]) -> tuple[Tensor, Tensor]:
    """Token ids and labels, both [questions, longest]."""
    width = max(len(question.text) + len(question.answer) for question in questions) + 2
    tokens = torch.full((len(questions), width), _VOCABULARY[_PAD])
    labels = torch.full((len(questions), width), _NOT_GRADED)
    for row, question in enumerate(questions):
        asked = [_VOCABULARY[letter] for letter in question.text + _EQUALS]
        answer = [_VOCABULARY[letter] for letter in question.answer] + [_VOCABULARY[_END]]
        tokens[row, : len(asked) + len(answer)] = torch.tensor(asked + answer)
        labels[row, len(asked) : len(asked) + len(answer)] = torch.tensor(answer)
    return tokens, labels


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(_VOCABULARY, unk_token=_PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = token_decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END, pad_token=_PAD, chat_template=CHAT_TEMPLATE)
