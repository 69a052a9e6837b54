"""Who counts tokens: the target's own /tokenize, a tokenizer.json on this machine, or an estimate by characters where there is neither."""

import json
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import httpx
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer as TokenizersTokenizer

from benchmarks.load.plan import Message
from benchmarks.load.quantities import wrong
from serving.errors import BenchmarkError

CHARACTERS_PER_TOKEN = 4
"""The estimate without a tokenizer: common for English prose and vocabularies of tens of thousands; the true number depends on both."""

_GENERATION_TAG = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")

Post = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Posts a JSON body to a path of the target and returns the answer's; raises BenchmarkError where it gets none."""


class Tokenizer(Protocol):
    """`name` goes into the result. `is_exact`: whether counts are the server's; else they are an estimate and are said to be.

    `encode`: the ids that a server makes of a text prompt, special tokens in front included. `decode`: the text of ids. `count_chat`: how
    many tokens a server counts for messages, template and the answer's opening included; None where that is not known."""

    name: str
    is_exact: bool

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def count_chat(self, messages: Sequence[Message]) -> int | None: ...


class ServerTokenizer:
    """The target's `/tokenize` and `/detokenize`, as vLLM and Tokenport have them."""

    name = "the server's /tokenize"
    is_exact = True

    def __init__(self, post: Post, model: str | None) -> None:
        self._post = post
        self._model = {} if model is None else {"model": model}

    def encode(self, text: str) -> list[int]:
        return list(self._post("/tokenize", {**self._model, "prompt": text})["tokens"])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._post("/detokenize", {**self._model, "tokens": list(ids)})["prompt"])

    def count_chat(self, messages: Sequence[Message]) -> int | None:
        return int(self._post("/tokenize", {**self._model, "messages": list(messages)})["count"])


class LocalTokenizer:
    """A model folder's tokenizer.json, and its chat template where it has one."""

    is_exact = True

    def __init__(self, folder: Path) -> None:
        self.name = f"tokenizer.json of {folder.name}"
        try:
            self._tokenizer = TokenizersTokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception for a missing and for a malformed file
            raise wrong("--tokenizer", folder, f"must be a folder with a tokenizer.json: {error}") from error
        self._template = _ChatTemplate.load(folder)

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def count_chat(self, messages: Sequence[Message]) -> int | None:
        if self._template is None:
            return None
        # The template writes the special tokens itself: vLLM adds none either.
        return len(self._tokenizer.encode(self._template.render(messages), add_special_tokens=False).ids)


class EstimatingTokenizer:
    """No tokenizer: text is cut every few characters and each piece called a token."""

    name = f"an estimate of {CHARACTERS_PER_TOKEN} characters a token"
    is_exact = False

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._pieces: list[str] = []

    def encode(self, text: str) -> list[int]:
        return [self._id_of(text[start : start + CHARACTERS_PER_TOKEN]) for start in range(0, len(text), CHARACTERS_PER_TOKEN)]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._pieces[identity] for identity in ids)

    def count_chat(self, messages: Sequence[Message]) -> int | None:
        return None

    def _id_of(self, piece: str) -> int:
        if piece not in self._ids:
            self._ids[piece] = len(self._pieces)
            self._pieces.append(piece)
        return self._ids[piece]


def find_tokenizer(folder: Path | None, post: Post | None, model: str | None) -> Tokenizer:
    """The best there is: the folder that was named, else the target's own, else an estimate.

    Raises:
        BenchmarkError: a folder was named and has no tokenizer.
    """
    if folder is not None:
        return LocalTokenizer(folder)
    if post is not None:
        server = ServerTokenizer(post, model)
        try:
            if server.decode(server.encode("a b")):
                return server
        except (BenchmarkError, KeyError, TypeError):  # not every server has the routes, and some have others of the same name
            pass
    return EstimatingTokenizer()


def http_post(base_url: str, headers: Mapping[str, str] | None = None, timeout_s: float = 30.0) -> Post:
    """Posts to a server's root over one kept connection, closed when the function is dropped. `base_url` may end in `/v1`: the routes to
    tokenize lie beside it."""
    client = httpx.Client(base_url=base_url.rstrip("/").removesuffix("/v1"), headers=headers, timeout=timeout_s)

    def post(path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            answer = client.post(path, json=body)
            answer.raise_for_status()
            told: Mapping[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            # httpx adds lines of advice to its first.
            told_first = str(error).partition("\n")[0]
            raise BenchmarkError(f"{client.base_url}{path}: {told_first}; --tokenizer DIR counts with a tokenizer.json instead") from error
        return told

    # Whoever holds the tokenizer holds this; there is nobody to close it.
    weakref.finalize(post, client.close)
    return post


class _ChatTemplate:
    """A model's Jinja template, rendered as transformers renders it, in the same sandbox."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], folder: Path) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, **{"ensure_ascii": False, **options})
        self._special_tokens = special_tokens
        self._folder = folder
        try:
            # The tag marks what a model said, for training, and changes no text.
            self._template = environment.from_string(_GENERATION_TAG.sub("", source))
        except TemplateError as error:
            raise wrong("--tokenizer", folder, f"its chat template cannot be read: {error}") from error

    @classmethod
    def load(cls, folder: Path) -> "_ChatTemplate | None":
        """From chat_template.jinja or tokenizer_config.json; None where neither has one."""
        config_file, template_file = folder / "tokenizer_config.json", folder / "chat_template.jinja"
        try:
            config: dict[str, Any] = json.loads(config_file.read_text(encoding="utf-8")) if config_file.exists() else {}
            source = template_file.read_text(encoding="utf-8") if template_file.exists() else config.get("chat_template")
        except (OSError, ValueError) as error:
            raise wrong("--tokenizer", folder, f"its chat template cannot be read: {error}") from error
        return cls(source, _special_tokens(config), folder) if isinstance(source, str) else None

    def render(self, messages: Sequence[Message]) -> str:
        try:
            return self._template.render(messages=list(messages), add_generation_prompt=True, **self._special_tokens)
        except (TemplateError, TypeError) as error:
            raise wrong("--tokenizer", self._folder, f"its chat template cannot be rendered: {error}") from error


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token and its like, which are texts or objects with the text as `content`."""
    contents = {
        name: value.get("content") if isinstance(value, dict) else value for name, value in config.items() if name.endswith("_token")
    }
    return {name: value for name, value in contents.items() if isinstance(value, str)}


def _refuse(message: str) -> str:
    raise TemplateError(message)
