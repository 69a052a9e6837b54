"""Runs the CPU model inside the engine-core process instead of in a third one.

vLLM 0.32 always gives the CPU worker a process of its own, because only there could it set OpenMP's variables. Ours are set before the
engine core starts (`cpu.py`), so the third process would cost its start (a Python that imports torch and vLLM again) and a busy wait on
each side of the queue between the two, for nothing.
"""

import logging

from vllm.v1.executor.uniproc_executor import UniProcExecutor

from serving.engine.progress import send_error

logger = logging.getLogger("tokenport.engine")


class InProcessExecutor(UniProcExecutor):
    """One rank, in the process that schedules. A failure to start is logged whole, told to the server in one line, and ends the process."""

    def _init_executor(self) -> None:
        try:
            super()._init_executor()
        except Exception as error:
            logger.error("the model did not load", exc_info=True)
            send_error(self.vllm_config.additional_config, error)
            # An exception would be logged again by vLLM and printed, as plain text, by multiprocessing.
            raise SystemExit(1) from error
