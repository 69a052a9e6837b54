"""Unknown fields at any depth, and one reason out of a union's many."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Required

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from serving.errors import InvalidRequest
from serving.strict import invalid_request, refuse_unknown_fields


class Text(TypedDict, total=False):
    type: Required[Literal["text"]]
    text: Required[str]


class Image(TypedDict, total=False):
    type: Required[Literal["image"]]
    url: str


class User(TypedDict, total=False):
    role: Required[Literal["user"]]
    content: Required[str | Iterable[Text | Image]]


class Tool(TypedDict, total=False):
    role: Required[Literal["tool"]]
    content: Required[str]
    tool_call_id: str


class Options(BaseModel):
    include_usage: bool = False


class Body(BaseModel):
    model_config = ConfigDict(extra="allow")

    messages: list[User | Tool]
    options: Annotated[Options | None, Field(description="x")] = None
    free: dict[str, Any] | None = None
    limit: int = Field(1, alias="max", ge=1)


def user(**fields):
    return {"messages": [{"role": "user", "content": "hi"} | fields]}


@pytest.mark.parametrize(
    "body",
    [
        user(),
        user(content=[{"type": "text", "text": "x"}, {"type": "image", "url": "u"}]),
        user(name=None) | {"unheard_of": None},
        user() | {"free": {"anything": {"goes": 1}}},
        user() | {"options": {"include_usage": True}, "max": 3},
        {"messages": "of the wrong type: not for this check to say"},
    ],
)
def test_what_is_known_null_or_free_passes(body):
    refuse_unknown_fields(Body, body)


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (user() | {"mesages": 1}, "mesages", "unknown field 'mesages'; did you mean 'messages'?"),
        (user(contnt="x"), "messages[0].contnt", "unknown field 'contnt' in messages[0]; did you mean 'content'?"),
        (user(content=[{"type": "text", "txt": "x"}]), "messages[0].content[0].txt", "in messages[0].content[0]; did you mean 'text'?"),
        (user() | {"options": {"usage": True}}, "options.usage", "unknown field 'usage' in options"),
    ],
)
def test_an_unknown_field_is_named_with_its_place_and_the_nearest_name(body, param, message):
    with pytest.raises(InvalidRequest) as error:
        refuse_unknown_fields(Body, body)
    assert error.value.param == param
    assert message in error.value.message


def test_an_alias_of_a_validators_is_known():
    refuse_unknown_fields(Body, user(thoughts="x"), aliases={"thoughts"})


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (user(content=5), "messages[0].content", "valid string"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "Field required"),
        ({"messages": [{"role": "tool"}]}, "messages[0].content", "Field required"),
        (user() | {"max": 0}, "max", "greater than or equal to 1 (got '0')"),
        ({}, "messages", "Field required"),
    ],
)
def test_a_unions_complaints_become_one_field_and_one_reason(body, param, message):
    with pytest.raises(ValidationError) as error:
        Body.model_validate(body)
    refused = invalid_request(error.value, body)
    assert refused.param == param
    assert message in refused.message
