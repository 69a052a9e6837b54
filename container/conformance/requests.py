"""The bodies that the checks send: short ones, and one that goes on for as long as it is let."""

from typing import Any

from container.conformance.client import Client

QUESTION = "What is the chemical symbol for water?"
_NEVER_ENDING_TOKENS = 4000
_ROOM_FOR_PROMPT_TOKENS = 100


def chat(max_tokens: int = 8, content: str = QUESTION, **fields: Any) -> dict[str, Any]:
    """An OpenAI chat request."""
    return {"messages": [{"role": "user", "content": content}], "max_tokens": max_tokens, "temperature": 0} | fields


def completion(max_tokens: int = 8, prompt: str = "Once upon a time", **fields: Any) -> dict[str, Any]:
    """An OpenAI completion request."""
    return {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0} | fields


def inputs(max_new_tokens: int = 8, **parameters: Any) -> dict[str, Any]:
    """A text-generation request, as TGI and LMI take it."""
    return {"inputs": "Once upon a time", "parameters": {"max_new_tokens": max_new_tokens} | parameters}


def long(num_tokens: int, **fields: Any) -> dict[str, Any]:
    """A completion of exactly `num_tokens`. `ignore_eos` is vLLM's, and most servers' that build on it."""
    return completion(num_tokens, ignore_eos=True, **fields)


def never_ending(client: Client) -> dict[str, Any]:
    """A completion that takes minutes: as long as the model's context allows."""
    answer = client.get("/v1/models")
    models = answer.json()["data"] if answer.is_success else []
    context = min((model.get("max_model_len") or _NEVER_ENDING_TOKENS for model in models), default=_NEVER_ENDING_TOKENS)
    return long(min(_NEVER_ENDING_TOKENS, context - _ROOM_FOR_PROMPT_TOKENS))
