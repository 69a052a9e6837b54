"""Pure: what vLLM, torch and the kernel said about a failure -> one line that a person can act on.

Steps: each exception as one line (`exception_text.py`), the one among them that caused the others (`root_cause`), then the rules, which
make of it a sentence that says what is needed, what is there and what to set. What no rule knows is told as it came.
"""

import re
from collections.abc import Mapping, Sequence

from serving.engine.diagnosis.exits import EXIT_RULES, exits_of, how_it_ended, is_kill
from serving.engine.diagnosis.memory import MEMORY_RULES
from serving.engine.diagnosis.misfits import MISFIT_RULES
from serving.engine.diagnosis.rule import Facts, Rule

_MAX_CHARS = 500
_CONSEQUENCE = re.compile(
    r"WorkerProc initialization failed|Engine core initialization failed|^Executor failed|Connection (?:closed|reset) by peer"
    r"|EngineCore encountered an issue|^Worker failed with error|died unexpectedly|Broken pipe|^cancelled$"
)


def root_cause(texts: Sequence[str]) -> str:
    """Of failures in the order they were told, the one behind the others: a process that was killed, else the first that is no mere
    consequence of another, else the first. Empty for none."""
    killed = [text for text in texts if any(is_kill(code) for _, code in exits_of(text))]
    original = [text for text in texts if not _CONSEQUENCE.search(text)]
    return next(iter([*killed, *original, *texts]), "")


def start_failure(texts: Sequence[str], exit_codes: Mapping[str, int], facts: Facts) -> str:
    """The line for a start that failed. `texts` come from `text_of`, those of the engine's processes before this one's. `exit_codes` are
    those of the engine core processes that have ended, negative for a signal."""
    return _reason(texts, exit_codes, facts) or "the engine did not start, and nothing told why; TOKENPORT_LOG_LEVEL=debug shows more"


def death(texts: Sequence[str], exit_codes: Mapping[str, int], facts: Facts) -> str:
    """The line for an engine that died while serving: which process, how, and the reason if one was told. See `start_failure`."""
    return f"the engine process died: {_reason(texts, exit_codes, facts) or 'it gave no reason; the log may'}"


def _reason(texts: Sequence[str], exit_codes: Mapping[str, int], facts: Facts) -> str:
    # A core that was killed tells nothing, and its workers only that it is gone; one that told a reason then ended by itself.
    killed = [how_it_ended(name, code, facts) for name, code in exit_codes.items() if is_kill(code)]
    ended = [how_it_ended(name, code, facts) for name, code in exit_codes.items()]
    return next(iter(filter(None, [*killed, _explained(root_cause(texts), facts), *ended])), "")


def _explained(text: str, facts: Facts) -> str:
    for pattern, explain in _RULES:
        if match := pattern.search(text):
            return explain(match, facts)
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}..."


def _inner(match: re.Match[str], facts: Facts) -> str:
    """A worker's failure as the engine core passes it on, if the worker itself could not tell."""
    return _explained(match[1], facts)


_RULES: Sequence[Rule] = (
    *EXIT_RULES,
    (re.compile(r"^Worker failed with error '(.*)', please check"), _inner),
    *MEMORY_RULES,
    *MISFIT_RULES,
)
