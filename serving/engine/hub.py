"""Whether the Hugging Face hub can be had, told in seconds: its own client tries again for most of a minute before it gives up.

Rules: offline by wish, the model must be in the cache; else ask the hub once; no answer and the model in the cache, go on offline; no
answer and no copy is an error. Endpoint, proxies, token and cache are those of the hub's client.
"""

import threading
from collections.abc import Mapping

from serving.engine.s3_files import PICKLES
from serving.errors import ModelUnavailable

_ANSWER_DEADLINE_S = 6.0
"""Looking a name up can hang far longer than the connection that follows is allowed to."""
_OTHER_WAY = "or set TOKENPORT_MODEL to a local folder"


def must_work_offline(model: str, revision: str | None, environ: Mapping[str, str], *, reads_pickles: bool = False) -> bool:
    """Whether `model`, a hub id, is to be taken from the local cache without asking the hub.

    `reads_pickles`: the user has asked for them; a model that has its weights as nothing else is not to be had otherwise.

    Raises:
        ModelUnavailable: it cannot be had, in one line.
    """
    if environ.get("VLLM_USE_MODELSCOPE", "").lower() in ("1", "true"):
        return False  # another hub, asked by vLLM itself
    # Reading the hub's constants takes a third of a second, which a local model does not need.
    from huggingface_hub import constants, try_to_load_from_cache

    cached = isinstance(try_to_load_from_cache(model, "config.json", revision=revision), str)
    if constants.HF_HUB_OFFLINE:
        if not cached:
            where = f"it is not in the cache {constants.HF_HUB_CACHE}"
            raise ModelUnavailable(
                f"offline (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE), and {model} is a hub id: {where}; unset it, {_OTHER_WAY}"
            )
        return True
    reason = _unreachable(model, revision, reads_pickles=reads_pickles)
    if reason is None:
        return False
    if not cached:
        told = f"cannot reach {constants.ENDPOINT} ({reason}), and {model} is a hub id that is not in the cache"
        raise ModelUnavailable(f"{told}: connect to a network, {_OTHER_WAY}")
    # This process has read the variable already; its children read it anew from the environment.
    constants.HF_HUB_OFFLINE = True
    return True


def _unreachable(model: str, revision: str | None, *, reads_pickles: bool) -> str | None:
    """Why the hub does not answer; None if it does and has the model. Raises `ModelUnavailable` if it has not."""
    outcome: list[Exception] = []
    asking = threading.Thread(target=_ask, args=(model, revision, outcome, reads_pickles), name="hub", daemon=True)
    asking.start()
    asking.join(_ANSWER_DEADLINE_S)
    if asking.is_alive():
        return f"no answer within {_ANSWER_DEADLINE_S:.0f} s"
    if not outcome:
        return None
    error = outcome[0]
    if isinstance(error, ModelUnavailable):
        raise error
    return " ".join(str(error).split()) or type(error).__name__


def _ask(model: str, revision: str | None, outcome: list[Exception], reads_pickles: bool) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]  # the base of all that its HTTP client raises

    try:
        files = [file.rfilename for file in HfApi().model_info(model, revision=revision, timeout=_ANSWER_DEADLINE_S).siblings or ()]
        pickles = [file for file in files if file.endswith(PICKLES)]
        if pickles and not reads_pickles and not any(file.endswith(".safetensors") for file in files):
            told = f"the hub has the weights of {model} as pickles only ({pickles[0]}), which can run code"
            outcome.append(ModelUnavailable(f"{told}: take a revision with safetensors, or ask for them with --load-format pt"))
    except GatedRepoError:
        outcome.append(ModelUnavailable(f"{model} is gated: accept its terms on the hub and set HF_TOKEN, {_OTHER_WAY}"))
    except RevisionNotFoundError:
        outcome.append(ModelUnavailable(f"the hub has no revision {revision!r} of {model}"))
    except RepositoryNotFoundError:
        outcome.append(ModelUnavailable(f"the hub has no model {model}, or it is private: check the id, set HF_TOKEN, {_OTHER_WAY}"))
    except HFValidationError as error:
        outcome.append(ModelUnavailable(f"{model} is no hub id: {' '.join(str(error).split())}"))
    except (ClientError, OSError, ValueError) as error:
        outcome.append(error)
