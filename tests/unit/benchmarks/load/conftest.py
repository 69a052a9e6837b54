"""Small real tokenizers, trained on the text that ships with the project."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from benchmarks.load.text_source import TEXT_FILE
from benchmarks.load.tokenizers import LocalTokenizer

TEMPLATE = (
    "{% for message in messages %}{{ bos_token }}{{ message['role'] }}\n{{ message['content'] | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}assistant\n{% endif %}"
)


def _trained() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([TEXT_FILE.read_text()], trainer)
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    _trained().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": TEMPLATE})
    )
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder):
    """Byte-level BPE with a chat template."""
    return LocalTokenizer(tokenizer_folder)


@pytest.fixture(scope="session")
def bos_tokenizer(tmp_path_factory):
    """One that puts a token before every text, as Llama's does."""
    folder = tmp_path_factory.mktemp("bos")
    trained = _trained()
    trained.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", trained.token_to_id("<s>"))])
    trained.save(str(folder / "tokenizer.json"))
    return LocalTokenizer(folder)
