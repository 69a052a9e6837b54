"""Modules that vLLM imports with all others, and few servers ever use, are imported when they are first used.

`import a.b` yields a stand-in, which becomes the module itself when something is asked of it, like the standard library's `LazyLoader`.
`from a.b import c` asks at once: for the names in the tables below it yields a stand-in too, which imports `a.b` when `c` is called, looked
into or compared with. That is so only while `deferring`: whoever imports the module later gets the real things.
"""

import contextlib
import functools
import importlib.abc
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any

Deferred = Mapping[str, frozenset[str]]
"""Modules, and of each the names that may be had before it is imported: functions to call, classes for `isinstance` and annotations."""

SELDOM_USED: Deferred = {
    # vLLM resamples audio with it for one model.
    "scipy.signal": frozenset(),
    # Transformers has its losses for the detection of objects in every model's base class.
    "scipy.optimize": frozenset({"linear_sum_assignment"}),
    # With --otlp-traces-endpoint.
    "opentelemetry.exporter.otlp.proto.grpc.trace_exporter": frozenset({"OTLPSpanExporter"}),
    "opentelemetry.exporter.otlp.proto.http.trace_exporter": frozenset({"OTLPSpanExporter"}),
    # With weights on object storage.
    "runai_model_streamer": frozenset({"list_safetensors", "pull_files", "SafetensorsStreamer"}),
}
UNUSED_BY_THE_CORE: Deferred = {
    # The engine's process asks them where a grammar begins, with --reasoning-parser; they bring the whole of the server's protocol.
    "vllm.reasoning": frozenset({"ReasoningParser", "ReasoningParserManager"}),
    "vllm.parser": frozenset(),
    "vllm.parser.engine": frozenset(),
    "vllm.parser.engine.adapters": frozenset({"ParserEngineReasoningAdapter"}),
}
UNUSED_WITHOUT_COMPILER: Deferred = {"torch._inductor.lowering": frozenset()}
"""What `compiling_later` leaves of PyTorch's compiler."""
_ABSENT = {"torch._inductor.lowering": "FALLBACK_ALLOW_LIST"}
"""What is looked for in a module only to be changed if it is there: vLLM has the compiler write less into its log."""


@contextlib.contextmanager
def compiling_later(environ: Mapping[str, str]) -> Iterator[None]:
    """Where compiling is switched off, functions decorated with `torch.compile` within are given to it when they are first called: it
    imports all of the compiler even there. Nowhere else, since what is being compiled could not call such a function."""
    if environ.get("TORCH_COMPILE_DISABLE") != "1":
        yield
        return
    import torch

    original = torch.compile
    torch.compile = _later(original)
    try:
        with deferring(UNUSED_WITHOUT_COMPILER):
            yield
    finally:
        torch.compile = original


def _later(decorator: Any) -> Any:
    """`decorator`, applied to a function when that is first called."""

    def decorate(decorated: Any = None, **options: Any) -> Any:
        if decorated is None:
            return functools.partial(decorate, **options)
        if not isinstance(decorated, FunctionType):
            return decorator(decorated, **options)
        apply = functools.cache(lambda: decorator(decorated, **options))
        return functools.wraps(decorated)(lambda *given, **named: apply()(*given, **named))

    return decorate


@contextlib.contextmanager
def deferring(*tables: Deferred) -> Iterator[None]:
    """Defer what is imported within, as far as `tables` name it."""
    finder = _Finder({name: names for table in tables for name, names in table.items()})
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        # The finder stays, for what is inside of modules that are still stand-ins.
        finder.deferred = {}


class _StandIn(ModuleType):
    """A module that has not been imported yet."""

    def __getattr__(self, name: str) -> Any:
        loader = _loader_of(self)
        if name in loader.lent(self.__name__):
            return _Name(self, name)
        # The machinery of imports looks for names with underscores in every module.
        is_asked_for = not (name.startswith("__") and name.endswith("__")) and _ABSENT.get(self.__name__) != name
        if is_asked_for and loader.load(self):
            return getattr(self, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _Name:
    """A function or class of a module that may not have been imported yet."""

    def __init__(self, module: ModuleType, name: str) -> None:
        self._module = module
        self._name = name

    def _real(self) -> Any:
        _import(self._module)
        # Not by asking the module: while it is being imported, it would lend the name again.
        return vars(self._module)[self._name]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real(), name)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._real())

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._real(),)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, deferred: Deferred) -> None:
        self.deferred = deferred

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self.deferred:
            # A package before what is inside of it, as always.
            _import(_package_of(fullname))
            module = sys.modules.get(fullname)
            if module is None or target is not None:
                return None
            # Its package imported it just now. Python looks at the module's own specification then, and would run it again.
            module.__spec__ = ModuleSpec(fullname, _Present(module))
            return module.__spec__
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.loader is not None:
            spec.loader_state = spec.loader = _Loader(spec.loader, self)
        return spec


class _Present(importlib.abc.Loader):
    """Of a module that was imported by its package, while it was being looked for."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Loader(importlib.abc.Loader):
    """Makes a stand-in, and of that the module."""

    def __init__(self, original: importlib.abc.Loader, finder: _Finder) -> None:
        self._original = original
        self._finder = finder
        self._lock = threading.RLock()
        self._is_loading = False

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Later."""

    def lent(self, module: str) -> frozenset[str]:
        """The names that may be had of `module` without importing it."""
        return self._finder.deferred.get(module, frozenset())

    def load(self, module: ModuleType) -> bool:
        """Import it, once. Returns whether it is there: not to the thread that is at it."""
        with self._lock:
            if self._is_loading:
                return False
            if type(module) is _StandIn:
                self._is_loading = True
                try:
                    self._run(module)
                finally:
                    self._is_loading = False
            return True

    def _run(self, module: ModuleType) -> None:
        _import(_package_of(module.__name__))
        if module.__spec__ is not None:
            module.__spec__.loader = self._original
        module.__loader__ = self._original
        self._original.exec_module(module)
        module.__class__ = ModuleType


def _loader_of(module: _StandIn) -> _Loader:
    loader: _Loader = module.__dict__["__spec__"].loader_state
    return loader


def _package_of(name: str) -> ModuleType | None:
    return sys.modules.get(name.rpartition(".")[0])


def _import(module: ModuleType | None) -> None:
    if type(module) is _StandIn:
        _loader_of(module).load(module)
