"""`tokenport invoke TARGET [PROMPT]`: one client for every model elsewhere."""

import asyncio
import os
import sys
import uuid
from collections.abc import Mapping, Sequence

from serving.cascade.invoke.options import Options, read_options
from serving.cascade.invoke.output import Transcript
from serving.engine.interface import Kind, RemoteModel
from serving.errors import InvalidRequest

_INTERRUPTED_EXIT_CODE = 130
_NOBODY_READS_EXIT_CODE = 141
"""Of a process that SIGPIPE ended, as shells write it."""
_CHAT: Kind = "chat"


def run_invoke(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Ask, and write the answer. Returns 0, 130 when it was interrupted, 141 when nobody read the answer any more; a wrong command line
    ends the process with 2.

    Raises:
        TokenportError: no answer, or none that is whole; in one line.
    """
    options = read_options(words, environ, sys.stdin)
    try:
        asyncio.run(_ask(options))
    except KeyboardInterrupt:
        return _INTERRUPTED_EXIT_CODE
    except BrokenPipeError:
        # What is still to be flushed at the end of the process would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOBODY_READS_EXIT_CODE
    return 0


async def _ask(options: Options) -> None:
    model = await _model(options)
    try:
        if (field := model.cannot_honour(_CHAT, options.body)) is not None:
            raise InvalidRequest(f"{options.target.service} has nothing for {field}")
        transcript = Transcript(sys.stdout, shows_json=options.shows_json)
        answer = await model.generate(_CHAT, options.body, uuid.uuid4().hex, deadline_s=options.timeout_s)
        if isinstance(answer, bytes):
            transcript.whole(answer)
        else:
            await transcript.stream(answer)
    finally:
        await model.close()
    if not options.is_quiet:
        print(transcript.summary(), file=sys.stderr)


async def _model(options: Options) -> RemoteModel:
    # Only what is asked is imported: botocore takes a while.
    target = options.target
    if target.service == "sagemaker":
        from serving.aws.sagemaker_model import SageMakerModel

        return SageMakerModel(target.name, target.component, model=options.model, region=options.region)
    if target.service == "bedrock":
        from serving.aws.bedrock_model import BedrockModel

        return BedrockModel(target.name, region=options.region)
    from serving.cascade.invoke.server import server_model

    return await server_model(target.name, options.model, options.api_key, route=options.route)
