"""Brings vLLM up on a model that is there: checked, imported, configured, launched. Blocks for as long as that takes.

Steps: what can be known to fail (`preflight.py`); import; vLLM's arguments from the settings, the model and the devices, read by vLLM's own
parser; the client, which starts the engine's process and returns when the model is loaded.
"""

import logging
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from serving.engine.args import cpu_defaults, engine_arguments, num_ranks
from serving.engine.cpu import memory_fraction
from serving.engine.deferred import SELDOM_USED, compiling_later, deferring
from serving.engine.devices import devices_for
from serving.engine.environment import engine_version, runs_on_cpu
from serving.engine.fetch import LocalModel
from serving.engine.fitting import check_fit
from serving.engine.interface import Planned, Report
from serving.engine.kv_cache_size import Wish, wish_config
from serving.engine.loaders import pickle_permission, vllms_load_format
from serving.engine.lora_arguments import lora_defaults
from serving.engine.parallel import SIZES, replicas_here
from serving.engine.planned import planned
from serving.engine.preflight import check_start
from serving.engine.preload import EarlyProcess, import_behind, launch_with, quick_imports
from serving.engine.presharded.manifest import arguments_for
from serving.engine.settle import settle
from serving.engine.work import Work
from serving.errors import SettingsError
from serving.settings import Settings, vllm_argv

if TYPE_CHECKING:
    from serving.engine.client import Client

logger = logging.getLogger("tokenport.engine")


@dataclass(frozen=True)
class Launched:
    """An engine that is up, the arguments that it was started with, as vLLM parsed them, and what was planned of its memory."""

    client: "Client"
    args: Namespace
    planned: Planned


def launch(
    settings: Settings,
    fetched: LocalModel,
    served_name: str,
    *,
    work: Work,
    early: EarlyProcess | None,
    progress_socket: str,
    report: Report,
) -> Launched:
    """`early`: a process that imports already, to be the engine's. `progress_socket`: where the engine's processes report to.

    Raises:
        StartError: what can be known to fail. Whatever vLLM raises comes as it is.
    """
    user = arguments_for(Path(fetched.location), settings.engine, engine_version())
    check_start(user, fetched.location, on_cpu=runs_on_cpu())
    _import_vllm(report, {} if early is None else early.environ())
    if early is not None:
        early.imported()
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import propagate_flash_late_interaction
    from vllm.usage.usage_lib import UsageContext

    args = _parse(_arguments(settings, user, fetched.location, served_name, progress_socket))
    engine_args = AsyncEngineArgs.from_cli_args(args)
    propagate_flash_late_interaction(args, engine_args)
    engine_args.model_weights = fetched.weights
    # A server's defaults for batch sizes, not those of offline use.
    config = engine_args.create_engine_config(UsageContext.OPENAI_API_SERVER)
    report("starting the engine process", None)
    if early is not None:
        # What is needed once the engine is up is imported while it comes up.
        launch_with(early, lambda: import_behind("serving.engine.openai"))
    plan = planned(config, fetched.location, user, devices_for(1, on_cpu=runs_on_cpu()))
    client = _client(config, engine_args, work)
    if early is not None:
        early.discard()
    return Launched(client, args, plan)


def _import_vllm(report: Report, environ: Mapping[str, str]) -> None:
    report("importing", None)
    started = time.monotonic()
    with quick_imports(), compiling_later(environ), deferring(SELDOM_USED):
        import serving.engine.client  # noqa: F401
    logger.info("engine imported", extra={"seconds": round(time.monotonic() - started, 1)})


def _arguments(settings: Settings, user: Mapping[str, Any], model: str, served_name: str, progress_socket: str) -> dict[str, Any]:
    wish, on_cpu, chosen = Wish(settings.kv_cache_tokens, settings.max_concurrency), runs_on_cpu(), vllms_load_format(user, Path(model))
    settled = settle(chosen, model, on_cpu=on_cpu, wish=wish)
    sizes = {name: settled[name] for name in SIZES if name in settled}
    # Planned is the model as it is in its files: what padding makes of it the planner knows itself.
    check_fit(model, {**chosen, **sizes}, devices_for(num_ranks(settled) * replicas_here(settled), on_cpu=on_cpu), wish)
    return engine_arguments(
        settled,
        model=model,
        served_name=served_name,
        device_defaults={**_device_defaults(user), **lora_defaults(user)},
        progress_socket=progress_socket,
        log_requests=settings.log_requests,
        drain_s=settings.drain_s,
        to_processes=wish_config(settings.kv_cache_tokens, settings.max_concurrency) | pickle_permission(settings.engine),
    )


def _client(config: Any, engine_args: Any, work: Work) -> "Client":
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.executor import Executor

    from serving.engine.client import Client, pulse_logger

    return Client(
        work=work,
        vllm_config=config,
        executor_class=Executor.get_class(config),
        log_requests=engine_args.enable_log_requests,
        log_stats=not engine_args.disable_log_stats,
        aggregate_engine_logging=engine_args.aggregate_engine_logging,
        usage_context=UsageContext.OPENAI_API_SERVER,
        stat_loggers=[pulse_logger(work)],
    )


def _device_defaults(user: Mapping[str, Any]) -> dict[str, Any]:
    if not runs_on_cpu():
        return {}
    from vllm.utils.cpu_resource_utils import get_memory_node_info

    memory = get_memory_node_info()
    return cpu_defaults(user, memory_fraction(memory.available_memory, memory.total_memory, num_ranks(user)))


def _parse(arguments: dict[str, Any]) -> Namespace:
    """vLLM's own parser and checks over `arguments`: it knows the types and contradictions that only vLLM can know."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.launchers.launcher import validate_api_server_args
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise SettingsError(_one_line(message))

    args: Namespace = make_arg_parser(Parser()).parse_args(vllm_argv(arguments))
    try:
        if args.tool_parser_plugin:
            ToolParserManager.import_tool_parser(args.tool_parser_plugin)
        if args.reasoning_parser_plugin:
            ReasoningParserManager.import_reasoning_parser(args.reasoning_parser_plugin)
        validate_parsed_serve_args(args)
        validate_api_server_args(args)
    except (TypeError, ValueError, KeyError) as error:
        raise SettingsError(_one_line(error)) from error
    return args


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
