"""What the Hugging Face hub has of a model: config.json, and the headers of its safetensors files by range requests.

Endpoint, token, cache and the wish to be offline are those of the hub's own client (HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE), whose
downloads are not used: they try again for most of a minute before they say that there is no network.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.errors import PlanError
from serving.planner.checkpoint.tensors import Tensor, read_tensors, tensors_of_header
from serving.planner.model import Fetched, parse_config

_DEADLINE_S = 10.0
"""For each request."""


def fetch(model: str) -> Fetched:
    """Of the hub id `model`; from the cache what is there.

    Raises:
        PlanError: the hub cannot be reached, or has not the model; says what would do instead.
    """
    # Importing it takes a third of a second, which a local model does not need.
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
    from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]  # the base of all that its HTTP client raises

    where = f"MODEL={model}: no such folder or config.json"
    try:
        cached = try_to_load_from_cache(model, "config.json")
        if isinstance(cached, str):
            return _from_cache(model, Path(cached))
        return Fetched(_config(model), _headers(model))
    except HFValidationError as error:
        raise PlanError(f"{where}, and no hub id") from error
    except OfflineModeIsEnabled as error:
        raise PlanError(f"{where}, and as a hub id it is not in the cache; unset HF_HUB_OFFLINE, or give a folder") from error
    except GatedRepoError as error:
        raise PlanError(f"{where}, and on the hub it is gated: accept its terms there and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise PlanError(f"{where}, and the hub has no such model, or it is private: check the id, set HF_TOKEN") from error
    except EntryNotFoundError as error:
        raise PlanError(f"{where}, and on the hub it has no config.json") from error
    except (ClientError, OSError, ValueError) as error:
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise PlanError(f"{where}, and the hub does not answer ({told}); give a folder or a config.json") from error


def _from_cache(model: str, file: Path) -> Fetched:
    config = parse_config(file.read_text(encoding="utf-8"), str(file))
    try:
        tensors = read_tensors(file.parent)
    except PlanError:  # an index is there, and not all its files
        tensors = ()
    return Fetched(config, tensors or _headers(model))


def _config(model: str) -> Mapping[str, Any]:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]  # lazily exported

    response = get_session().get(hf_hub_url(model, "config.json"), headers=build_hf_headers(), timeout=_DEADLINE_S, follow_redirects=True)
    hf_raise_for_status(response)
    return parse_config(response.text, f"config.json of {model} on the hub")


def _headers(model: str) -> tuple[Tensor, ...]:
    """Of the files on the hub; empty if the model has its weights as something else, or the client is to be offline."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import NotASafetensorsRepoError, OfflineModeIsEnabled, SafetensorsParsingError

    try:
        metadata = HfApi().get_safetensors_metadata(model, timeout=_DEADLINE_S)
    except (NotASafetensorsRepoError, OfflineModeIsEnabled):
        return ()
    except SafetensorsParsingError as error:
        raise PlanError(f"MODEL={model}: its safetensors files on the hub cannot be read ({error})") from error
    headers = {file: {name: vars(info) for name, info in of_file.tensors.items()} for file, of_file in metadata.files_metadata.items()}
    return tuple(tensor for file, header in headers.items() for tensor in tensors_of_header(file, header))
