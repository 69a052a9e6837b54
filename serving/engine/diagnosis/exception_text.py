"""An exception as one line that says what is wrong. Light: every process of the engine tells its failures with it."""

import re
import traceback

# Their texts say what is wrong by themselves; of others ("'foo'", "list index out of range") the class is half of the message.
_TELLING = (
    "ValueError",
    "RuntimeError",
    "Exception",
    "OSError",
    "OutOfMemoryError",
    "StartError",
    "VLLMValidationError",
    "ValidationError",
)


def text_of(error: BaseException) -> str:
    """An exception as one line: without pydantic's frame, with its class where the text says little, its place where there is none."""
    if isinstance(error, KeyError) and len(error.args) == 1 and isinstance(error.args[0], str) and " " in error.args[0]:
        return _one_line(error.args[0])  # a sentence, which KeyError would quote
    name, text = type(error).__name__, _without_pydantic(_one_line(str(error)))
    if not text:
        frames = traceback.extract_tb(error.__traceback__)
        return f"{name} in {frames[-1].filename}:{frames[-1].lineno}" if frames else name
    is_telling = name in _TELLING or isinstance(error, OSError)
    return text if is_telling else f"{name}: {text}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _without_pydantic(text: str) -> str:
    """`1 validation error for ModelConfig Value error, TEXT [type=value_error, ...] For further information ...` -> TEXT."""
    match = re.match(r"\d+ validation errors? for \w+ (.*)", text)
    if match is None:
        return text
    return re.sub(r" \[type=\w+, input_value=.*$", "", match[1]).replace("Value error, ", "").replace("Assertion failed, ", "").strip()
