"""The names settings go by: Tokenport's own, vLLM's, LMI's, the platform's; and those of vLLM's that are refused, with the reason.

A name both Tokenport and vLLM have (model, host, port, api_key, log_level) is Tokenport's.
"""

import dataclasses
import difflib
import functools
from collections.abc import Iterable, Mapping

from serving.engine_arguments import Argument, engine_arguments
from serving.settings_values import WrongValueError

LOG_LEVELS = ("debug", "info", "warning", "error")

OWN = {
    own.name: own
    for own in (
        Argument("model", "str", help="Model to serve: a directory or a Hugging Face id; also the word after `serve`"),
        Argument("host", "str", default="127.0.0.1", help="Address to listen on"),
        Argument("port", "int", default=8080, help="Port to listen on, 1 to 65535"),
        Argument("cache_dir", "str", default="~/.cache/tokenport", help="Directory for converted models and compiled code"),
        Argument("log_level", "folded", choices=LOG_LEVELS, default="info", help="Least severe messages to log"),
        Argument("log_requests", "bool", default=False, help="Allow prompts and completions in the log"),
        Argument("embedded_model", "bool", default=True, help="If no model is named or in /opt/ml/model, fetch and serve the default"),
        Argument("api_key", "str", many="words", default=[], help="Keys, separated by commas, of which a request must carry one"),
        Argument(
            "adapter_roots", "str", many="commas", default=["/opt/ml"], help="Directories that LoRA adapters may be in, separated by commas"
        ),
        Argument("drain_s", "float", default=25.0, help="Seconds that running requests have to finish after SIGTERM"),
        Argument("stall_s", "float", default=30.0, help="Seconds without progress, while requests run, after which /ping answers 503"),
        Argument("deadline_s", "float", help="Seconds until an answer that is not streamed ends with the text so far; 0 for none"),
        Argument("stream_deadline_s", "float", default=450.0, help="The same for a stream; 0 for none"),
        Argument("max_queue", "int", default=128, help="Requests that may wait beyond those the engine runs at once"),
        Argument("max_queue_tokens", "int", help="Tokens that may wait beyond those the KV cache holds; unset: as many again"),
        Argument("kv_cache_tokens", "size", help="Tokens that the KV cache holds; instead of gpu_memory_utilization"),
        Argument("max_concurrency", "int", help="Sequences of max_model_len that the KV cache holds; instead of gpu_memory_utilization"),
        Argument("max_body_bytes", "int", default=25 * 1024 * 1024, help="Largest request body"),
        Argument("trust_shipped_cache", "bool", default=False, help="Run the compiled code in the model's .tokenport-cache, if it has one"),
        Argument("custom_code", "bool", default=True, help="Run the model's own code/inference.py around /invocations, if it has one"),
        Argument("custom_code_program", "str", default="inference.py", help="File in the code folder that defines its functions"),
        Argument("custom_code_dir", "str", help="Folder of that file; unset: code in the model folder"),
        Argument("custom_code_threads", "int", default=64, help="Calls into that code that run at once"),
        Argument("secure_mode", "bool", default=False, help="Hold security_controls; only SAGEMAKER_SECURE_MODE sets it"),
        Argument(
            "security_controls", "str", many="commas", default=[], help="What secure mode forbids; only SAGEMAKER_SECURITY_CONTROLS sets it"
        ),
        Argument(
            "untrusted_channels",
            "str",
            many="commas",
            default=[],
            help="Folders secure mode checks; only SAGEMAKER_UNTRUSTED_CHANNELS sets it",
        ),
        Argument("verify_checksums", "bool", default=True, help="Compare the model's files with its SHA256SUMS or manifest; sizes always"),
        Argument("session_ttl_s", "float", default=1200.0, help="Seconds that a SageMaker session lasts"),
        Argument("cascade", "str", help="File of a cascade: its tiers, and the policy that chooses among them for the model `auto`"),
        Argument("emf_namespace", "str", help="Write CloudWatch metrics of this namespace into the log (embedded metric format)"),
        Argument("emf_interval_s", "float", default=10.0, help="Seconds between two such lines"),
        Argument("emf_endpoint_name", "str", help="The EndpointName that those metrics carry; unset: the model's name as ModelName"),
    )
}

PROTECTED = {
    "SAGEMAKER_SECURE_MODE": "secure_mode",
    "SAGEMAKER_SECURITY_CONTROLS": "security_controls",
    "SAGEMAKER_UNTRUSTED_CHANNELS": "untrusted_channels",
}
"""SageMaker lets nobody but itself set these variables, so the settings are taken from them alone."""

PLAIN = {
    "HF_MODEL_ID": "model",
    "VLLM_API_KEY": "api_key",
    "SM_NUM_GPUS": "tensor_parallel_size",
    "SAGEMAKER_BIND_TO_PORT": "port",
    "SAGEMAKER_PROGRAM": "custom_code_program",
    "SAGEMAKER_SUBMIT_DIRECTORY": "custom_code_dir",
    **PROTECTED,
    "SAGEMAKER_MAX_NUMBER_OF_ADAPTERS_IN_MEMORY": "max_cpu_loras",
}
"""Variables without a prefix that are settings all the same: TGI's, vLLM's, LMI's and SageMaker's."""

EMPTY_IS_UNSET = frozenset({"SAGEMAKER_PROGRAM", "SAGEMAKER_SUBMIT_DIRECTORY", "SAGEMAKER_UNTRUSTED_CHANNELS"})
"""The platform and its SDK set these to nothing where there is nothing to say."""

SECURITY_CONTROLS = (
    "DISALLOW_CUSTOM_INFERENCE_SCRIPTS",
    "DISALLOW_TRUST_REMOTE_CODE",
    "DISALLOW_PICKLE_FILES",
    "DISALLOW_CHAT_TEMPLATE",
    "DISALLOW_REQUIREMENTS_TXT",
)

LMI_NAMES = {
    "model_id": "model",
    "tensor_parallel_degree": "tensor_parallel_size",
    "pipeline_parallel_degree": "pipeline_parallel_size",
    "max_rolling_batch_size": "max_num_seqs",
    "max_rolling_batch_prefill_tokens": "max_num_batched_tokens",
    "quantize": "quantization",
    "cpu_offload_gb_per_gpu": "cpu_offload_gb",
}
_LMI_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}

LMI_MODES = {
    "engine": ("python",),
    "rolling_batch": ("auto", "vllm", "disable"),
    "async_mode": ("true",),
    "mpi_mode": ("false",),
    "entrypoint": ("djl_python.lmi_vllm.vllm_async_service",),
}
"""LMI's ways of running, with the values, in lower case, that mean what Tokenport does anyway. Others would not be honoured."""

_SERVER = "it belongs to vLLM's own HTTP server, which Tokenport does not run"
_LOAD_BALANCING = "it belongs to vLLM's multi-process launcher, which Tokenport does not run; start one container a replica"
_TLS = f"{_SERVER}; end TLS in front of the container"
_CORS = f"{_SERVER}; set CORS headers in front of the container"
_NOT_MOUNTED = "it adds routes outside of /v1, which Tokenport does not serve"

REFUSED = {
    "config": "name the file with TOKENPORT_CONFIG or --config",
    "shutdown_timeout": "use drain_s",
    "log_config_file": "logs are JSON lines in every process; use log_level",
    "logging_config": "logs are JSON lines in every process; use log_level",
    "disable_cascade_attn": "vLLM accepts it and does nothing",
    "uds": f"{_SERVER}; use host and port",
    "uvicorn_log_level": f"{_SERVER}; use log_level",
    "disable_uvicorn_access_log": f"{_SERVER}; use log_level",
    "disable_access_log_for_endpoints": f"{_SERVER}; use log_level",
    "h11_max_incomplete_event_size": _SERVER,
    "h11_max_header_count": _SERVER,
    "root_path": f"{_SERVER}; rewrite paths in front of the container",
    "middleware": _SERVER,
    "enable_request_id_headers": _SERVER,
    "disable_fastapi_docs": f"{_SERVER}; Tokenport serves no documentation pages",
    "enable_offline_docs": f"{_SERVER}; Tokenport serves no documentation pages",
    "grpc": "Tokenport serves HTTP only",
    "grpc_port": "Tokenport serves HTTP only",
    "allow_credentials": _CORS,
    "allowed_origins": _CORS,
    "allowed_methods": _CORS,
    "allowed_headers": _CORS,
    "ssl_keyfile": _TLS,
    "ssl_certfile": _TLS,
    "ssl_ca_certs": _TLS,
    "ssl_cert_reqs": _TLS,
    "ssl_ciphers": _TLS,
    "enable_ssl_refresh": _TLS,
    "headless": _LOAD_BALANCING,
    "api_server_count": _LOAD_BALANCING,
    "data_parallel_multi_port_external_lb": _LOAD_BALANCING,
    "data_parallel_supervisor_port": _LOAD_BALANCING,
    "dp_supervisor_probe_interval_s": _LOAD_BALANCING,
    "dp_supervisor_probe_timeout_s": _LOAD_BALANCING,
    "dp_supervisor_probe_failure_threshold": _LOAD_BALANCING,
    "tokens_only": _NOT_MOUNTED,
    "enable_scale_out": _NOT_MOUNTED,
    "enable_tokenizer_info_endpoint": _NOT_MOUNTED,
    "cohere_is_reasoning_model": f"it shapes answers of /cohere/v2/chat only; {_NOT_MOUNTED}",
    "enable_server_load_tracking": "it counts for the route /load, which Tokenport does not serve; read /metrics",
}
"""vLLM's arguments that would be accepted and not honoured, each with why and what to do instead."""


_WIDER = {name: dataclasses.replace(engine_arguments()[name], kind="int_or_auto") for name in ("tensor_parallel_size",)}
"""vLLM's arguments that may be said in more ways than vLLM takes; what is said so is settled before vLLM sees it."""


@functools.cache
def settable() -> Mapping[str, Argument]:
    """Every name a setting may be given by, in any source, and what it stands for."""
    vllms = (_WIDER.get(name, argument) for name, argument in engine_arguments().items() if name not in REFUSED and name not in OWN)
    return {name: argument for argument in vllms for name in argument.names} | OWN


@functools.cache
def vllm_names() -> frozenset[str]:
    """Names that vLLM knows: those the prefixes of other containers may carry."""
    return frozenset(name for argument in engine_arguments().values() for name in argument.names)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, if any is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


def from_lmi(name: str, value: str) -> tuple[str, str]:
    """LMI's name and value in vLLM's words.

    Raises:
        WrongValueError: LMI would size the tensor parallelism itself.
    """
    if name == "tensor_parallel_degree" and value.strip().lower() == "max":
        raise WrongValueError("write the number of GPUs instead of max, or auto for the fewest that hold the model")
    if name == "dtype":
        value = _LMI_DTYPES.get(value, value)
    return LMI_NAMES.get(name, name), value
