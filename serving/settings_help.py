"""What `tokenport serve --help` says of each setting."""

from serving.engine_arguments import Argument, engine_arguments, flag_of
from serving.redaction import show
from serving.settings_names import OWN, REFUSED


def help_text(*, engine: bool) -> str:
    """Tokenport's own settings, a line each; with `engine` all of vLLM's, by vLLM's groups."""
    groups: dict[str, list[Argument]] = {"Tokenport": list(OWN.values())}
    if engine:
        for name, argument in engine_arguments().items():
            if name not in REFUSED and name not in OWN:
                groups.setdefault(f"vLLM: {argument.group}", []).append(argument)
    return "\n".join(line for title, arguments in groups.items() for line in (f"{title}:", *map(_help_line, arguments), ""))


def _help_line(argument: Argument) -> str:
    default = default_text(argument)
    return f"  {flag_of(argument.name):<40} {argument.help}" + (f" (default: {default})" if default else "")


def default_text(argument: Argument) -> str:
    """Its default as it is shown; empty where there is none, or vLLM decides."""
    return "" if argument.default in (None, "", [], {}) else show(argument.name, argument.default)
