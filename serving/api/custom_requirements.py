"""What a model's own code asks for in requirements.txt, held against what is installed. Nothing is ever installed."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement


def missing(requirements: Path) -> Iterator[str]:
    """Each line of the file that is not fulfilled by what is installed, with where and why."""
    for number, line in enumerate(requirements.read_text(encoding="utf-8").splitlines(), 1):
        text = line.partition("#")[0].strip() if not line.strip().startswith("#") else ""
        if not text:
            continue
        where = f"{requirements}:{number}"
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            yield f"{where}: {text} is not the name of a package with versions, so it cannot be looked up among those installed"
            continue
        if reason := _unfulfilled(requirement):
            yield f"{where}: {text} is asked for, {reason}"


def _unfulfilled(requirement: Requirement, extra: str = "") -> str | None:
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
        return None
    try:
        found = importlib.metadata.distribution(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.url is not None:
        return f"{requirement.name} {found.version} is installed, perhaps from elsewhere"
    if not requirement.specifier.contains(found.version, prereleases=True):
        return f"{requirement.name} {found.version} is installed"
    for wanted in requirement.extras:
        for needed in map(Requirement, found.requires or ()):
            if needed.marker is not None and "extra" in str(needed.marker) and (reason := _unfulfilled(needed, wanted)):
                return reason
    return None
