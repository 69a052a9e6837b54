"""Exceptions as one line."""

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from serving.engine.diagnosis.exception_text import text_of


class Size(BaseModel):
    size: int

    @field_validator("size")
    @classmethod
    def check(cls, size: int) -> int:
        raise ValueError(f"{size} is too\nlarge")


def test_an_exception_is_one_line_without_the_frame_around_it():
    assert text_of(ValueError("not\n  enough")) == "not enough"
    with pytest.raises(ValidationError) as caught:
        Size(size=3)
    assert text_of(caught.value) == "size 3 is too large"


def test_an_exception_that_says_little_by_itself_has_its_class_and_one_that_says_nothing_its_place():
    assert text_of(KeyError("lm_head")) == "KeyError: 'lm_head'"
    assert text_of(KeyError("invalid tool call parser: x")) == "invalid tool call parser: x"
    assert text_of(AssertionError()) == "AssertionError"
    with pytest.raises(AssertionError) as caught:
        raise AssertionError
    assert text_of(caught.value).startswith("AssertionError in ")
    assert "test_exception_text.py:" in text_of(caught.value)
