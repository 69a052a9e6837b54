"""A rule of the diagnosis: a pattern for what was said about a failure, and the sentence that it becomes."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Facts:
    """What is known beside the texts. `oom_killed`: whether the kernel's OOM killer ended one of our processes, None if that cannot be
    read; `memory_limit_bytes`: the container's, None without one; `engine`: vLLM's arguments that the user set."""

    on_cpu: bool = False
    oom_killed: bool | None = None
    memory_limit_bytes: int | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)


Rule = tuple[re.Pattern[str], Callable[[re.Match[str], Facts], str]]
"""What is searched for in a text, and what makes the sentence of the match."""
