"""The model's own code/inference.py, by the function names of SageMaker's inference toolkit: found, loaded, checked, started.

The engine is the model: input_fn makes a request's body, output_fn writes the answer, predict_fn may ask the engine as often as it likes.
The steps of a start: requirements -> import -> pre_model_fn -> model_fn -> the engine -> model_warmup_fn. Requests: custom_calls.py.
"""

import importlib
import importlib.util
import inspect
import logging
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.engine.interface import Engine, Report
from serving.errors import RequestError, StartError
from serving.settings import DEFAULT, Settings

if TYPE_CHECKING:
    from serving.api.custom_calls import CustomCalls, Functions

logger = logging.getLogger("tokenport.custom_code")

_NUM_ARGUMENTS = {
    "pre_model_fn": 1,
    "model_fn": 1,
    "model_warmup_fn": 2,
    "input_fn": 2,
    "predict_fn": 2,
    "output_fn": 2,
    "transform_fn": 4,
}
"""As the toolkit calls them; each may take the context as one more."""
_PARTS = ("input_fn", "predict_fn", "output_fn")


@dataclass(frozen=True)
class Script:
    """The file that defines the functions, and the model folder that they are given."""

    path: Path
    model_dir: Path


def find_script(settings: Settings, model_dir: Path) -> Script | None:
    """The custom code to run; None if there is none, or it is switched off. Imports nothing of it.

    Raises:
        StartError: it was named and is not there, or needs a package that is not installed.
    """
    folder = Path(settings.custom_code_dir) if settings.custom_code_dir is not None else model_dir / "code"
    path = folder / settings.custom_code_program
    if not settings.custom_code:
        return None
    if not path.is_file():
        named = [settings.sources[name] for name in ("custom_code_program", "custom_code_dir") if settings.sources[name] != DEFAULT]
        if named:
            raise StartError(f"{' and '.join(named)}: there is no file {path}")
        return None
    requirements = folder / "requirements.txt"
    if requirements.is_file():
        from serving.api.custom_requirements import missing  # only those with such a file pay for it

        if (first := next(missing(requirements), None)) is not None:
            raise StartError(f"{first}; nothing is installed at start: build an image that has it")
    return Script(path, model_dir)


class CustomCode:
    """Loaded with the server's start. `calls` answers invocations; it is there once the engine is."""

    def __init__(self, script: Script, settings: Settings) -> None:
        self._script = script
        self._settings = settings
        self.calls: CustomCalls | None = None

    async def start(self, engine: Engine, report: Report) -> None:
        """Start `engine` with the code's own steps around it.

        Raises:
            StartError: the code cannot be loaded, one of its steps failed, or the engine did not come up.
        """
        from serving.api.custom_engine import Context, Threads, UserCodeError, call

        model_dir = str(self._script.model_dir)
        threads = Threads(self._settings.custom_code_threads)
        report("custom code", None)
        # numpy and scipy come with it: only a model with code of its own waits for them, and the event loop does not.
        await threads.run(importlib.import_module, "serving.api.custom_calls")
        from serving.api.custom_calls import CustomCalls

        functions = await threads.run(load, self._script.path)
        logger.info("custom code", extra={"file": str(self._script.path), "functions": sorted(functions)})
        results: dict[str, Any] = {}
        try:
            for name in ("pre_model_fn", "model_fn"):
                if name in functions:
                    function, takes_context = functions[name]
                    context = (Context(model_dir),) if takes_context else ()
                    results[name] = await threads.run(call, name, function, model_dir, *context)
            await engine.start(report)
            calls = CustomCalls(functions, results.get("model_fn"), engine, threads, model_dir, log_messages=self._settings.log_requests)
            if "model_warmup_fn" in functions:
                await calls.warm_up()
        except UserCodeError as error:
            raise _start_error(self._script.path, error.__cause__ or error, f"{error.function} failed with ") from error
        except RequestError as error:
            raise StartError(f"{self._script.path}: model_warmup_fn: {error.message}") from error
        self.calls = calls


def load(path: Path) -> "Functions":
    """The functions that the file at `path` defines, each with whether it takes the context.

    Raises:
        StartError: it cannot be imported, defines none of them, or one in a way that cannot be called; with file and line.
    """
    if path.stem in sys.modules:
        raise StartError(f"{path}: a module called {path.stem} is loaded already; rename the file")
    # The model folder is never written to.
    sys.dont_write_bytecode = True
    # At the end: a helper beside the file must not stand in for a library.
    sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise StartError(f"{path} is not a Python file")
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(path.stem, None)
        raise _start_error(path, error, "") from error
    functions = {
        name: (function, _takes_context(path, name, function))
        for name in _NUM_ARGUMENTS
        if (function := getattr(module, name, None)) is not None
    }
    _refuse_combinations(path, functions)
    return functions


def _takes_context(path: Path, name: str, function: Any) -> bool:
    if not callable(function):
        raise StartError(f"{path}: {name} is no function")
    where = f"{path}:{function.__code__.co_firstlineno}" if inspect.isfunction(function) else str(path)
    num_given, num_taken = _NUM_ARGUMENTS[name], len(inspect.signature(function).parameters)
    if inspect.isgeneratorfunction(function) and name not in ("predict_fn", "transform_fn"):
        raise StartError(f"{where}: {name} yields; only predict_fn and transform_fn may")
    if inspect.isasyncgenfunction(function):
        raise StartError(f"{where}: {name} is an asynchronous generator; make it an ordinary one")
    if num_taken not in (num_given, num_given + 1):
        raise StartError(f"{where}: {name} takes {num_taken} arguments; it is called with {num_given}, or with the context as one more")
    return num_taken > num_given


def _refuse_combinations(path: Path, functions: "Functions") -> None:
    if not functions.keys() & {*_PARTS, "transform_fn"}:
        raise StartError(f"{path} defines none of {', '.join((*_PARTS, 'transform_fn'))}")
    if "transform_fn" in functions and functions.keys() & {*_PARTS}:
        raise StartError(f"{path}: transform_fn stands for {', '.join(_PARTS)}; define it or those")
    if "model_fn" in functions and not functions.keys() & {"predict_fn", "transform_fn", "model_warmup_fn"}:
        raise StartError(f"{path}: nothing uses what model_fn returns, the engine answers: remove it, or define predict_fn")


def _start_error(path: Path, error: BaseException, what: str) -> StartError:
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None
    place = f"{path}:{line}" if line else str(path)
    for frame in traceback.extract_tb(error.__traceback__):
        if Path(frame.filename).is_relative_to(path.parent):
            place = f"{frame.filename}:{frame.lineno}"
    message = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return StartError(f"{place}: {what}{type(error).__name__}" + (f": {message}" if message else ""))
