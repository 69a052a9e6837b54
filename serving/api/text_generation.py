"""The `inputs`/`parameters` form of TGI and LMI, on top of OpenAI completions: request in, answer and stream events out.

Names, defaults and the meaning of `do_sample` are TGI's (router/src/lib.rs and validation.rs of v3); parameters that vLLM cannot honour
are refused by name.
"""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.engine.interface import Chunks
from serving.strict import invalid_request, refuse_unknown_fields

_DEFAULT_MAX_NEW_TOKENS = 100
_Positive = Annotated[float, Field(gt=0)]


class Grammar(BaseModel):
    """Constrains the text: a JSON schema or a regular expression."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["json", "json_schema", "regex"]
    value: str | dict[str, Any]


class Parameters(BaseModel):
    """TGI's `parameters`, less what vLLM cannot do."""

    model_config = ConfigDict(extra="forbid", strict=True)

    max_new_tokens: Annotated[int, Field(ge=1)] = _DEFAULT_MAX_NEW_TOKENS
    do_sample: bool = False
    temperature: _Positive | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: _Positive | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: int | None = None
    stop: list[str] = []
    stop_sequences: list[str] = []
    truncate: Annotated[int, Field(ge=1)] | None = None
    return_full_text: bool | None = None
    ignore_eos: bool = False
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    grammar: Grammar | None = None
    adapter_id: str | None = None
    details: bool = False
    best_of: Literal[1] | None = None
    typical_p: Annotated[float, Field(ge=1, le=1)] | None = None
    watermark: Literal[False] | None = None
    decoder_input_details: Literal[False] | None = None
    top_n_tokens: Literal[0] | None = None

    @property
    def samples(self) -> bool:
        """TGI samples when told to, or when any parameter of sampling is given."""
        return self.do_sample or any(value is not None for value in (self.temperature, self.top_k, self.top_p))


class TextGenerationRequest(BaseModel):
    """The whole body."""

    model_config = ConfigDict(extra="forbid", strict=True)

    inputs: Annotated[str, Field(min_length=1)]
    parameters: Parameters = Parameters()
    stream: bool = False
    model: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, body: Any) -> Any:
        return {name: value for name, value in body.items() if value is not None or name == "inputs"}


def parse_text_generation(body: dict[str, Any]) -> TextGenerationRequest:
    """Validate `body`.

    Raises:
        InvalidRequest: naming the field as `parameters.x`.
    """
    refuse_unknown_fields(TextGenerationRequest, body)
    try:
        return TextGenerationRequest.model_validate(body)
    except ValidationError as error:
        raise invalid_request(error, body) from error


def to_completion(request: TextGenerationRequest) -> dict[str, Any]:
    """The same as an OpenAI completion request."""
    parameters = request.parameters
    body: dict[str, Any] = {
        "prompt": request.inputs,
        "model": parameters.adapter_id or request.model,
        "stream": request.stream,
        "max_tokens": parameters.max_new_tokens,
        "min_tokens": parameters.min_new_tokens,
        "temperature": (parameters.temperature or 1.0) if parameters.samples else 0.0,
        "stop": parameters.stop + parameters.stop_sequences,
        "ignore_eos": parameters.ignore_eos,
        "echo": bool(parameters.return_full_text),
        "return_token_ids": True,
    }
    if request.stream or parameters.details:
        body["logprobs"] = 0  # of the chosen token alone
    if parameters.grammar is not None:
        body["structured_outputs"] = {parameters.grammar.type.removesuffix("_schema"): parameters.grammar.value}
    same_name = ("top_k", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty", "seed")
    body |= {name: value for name in same_name if (value := getattr(parameters, name)) is not None}
    if parameters.truncate is not None:
        body["truncate_prompt_tokens"] = parameters.truncate
    return body


def to_answer(completion: bytes, request: TextGenerationRequest) -> dict[str, Any]:
    """A whole completion as `{"generated_text", "details"?}`."""
    choice = json.loads(completion)["choices"][0]
    answer: dict[str, Any] = {"generated_text": choice["text"]}
    if request.parameters.details:
        tokens = _tokens(choice)
        answer["details"] = _details(choice, len(tokens)) | {"prefill": [], "tokens": tokens}
    return answer


class TextGenerationChunks:
    """A completion's chunks as TGI's stream events: one a token, the last with the whole text and why it ended."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._ready: list[str] = []
        self._num_tokens = 0
        self._text = ""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while not self._ready:
            chunk = json.loads(await anext(self._chunks))
            if "error" in chunk:
                return json.dumps(chunk)
            for choice in chunk["choices"]:
                self._ready.extend(json.dumps(event, ensure_ascii=False) for event in self._events(choice))
        return self._ready.pop(0)

    async def aclose(self) -> None:
        """Abort the request."""
        await self._chunks.aclose()

    def _events(self, choice: dict[str, Any]) -> list[dict[str, Any]]:
        tokens = _tokens(choice)
        # Several tokens may come at once: the text they make together stands at the last of them.
        for token in tokens[:-1]:
            token["text"] = ""
        if tokens:
            tokens[-1]["text"] = choice["text"]
        self._text += choice["text"]
        events: list[dict[str, Any]] = []
        for token in tokens:
            self._num_tokens += 1
            events.append({"index": self._num_tokens, "token": token, "generated_text": None, "details": None})
        if choice["finish_reason"] is not None and events:
            events[-1] |= {"generated_text": self._text, "details": _details(choice, self._num_tokens)}
        return events


def _tokens(choice: dict[str, Any]) -> list[dict[str, Any]]:
    logprobs = choice["logprobs"]
    ends_in_eos = _finish_reason(choice) == "eos_token"
    token_ids = choice["token_ids"]
    rows = zip(token_ids, logprobs["tokens"], logprobs["token_logprobs"], strict=True)
    last = len(token_ids) - 1
    return [
        {"id": token_id, "text": text, "logprob": logprob, "special": ends_in_eos and position == last}
        for position, (token_id, text, logprob) in enumerate(rows)
    ]


def _details(choice: dict[str, Any], num_tokens: int) -> dict[str, Any]:
    return {"finish_reason": _finish_reason(choice), "generated_tokens": num_tokens, "seed": None}


def _finish_reason(choice: dict[str, Any]) -> str | None:
    if choice["finish_reason"] != "stop":
        reason: str | None = choice["finish_reason"]
        return reason
    return "eos_token" if choice["stop_reason"] is None else "stop_sequence"
