"""Modules that are imported when they are first used."""

import importlib
import sys
import threading
import types

import pytest

from serving.engine.deferred import SELDOM_USED, UNUSED_BY_THE_CORE, compiling_later, deferring

PACKAGE = "deferred_example"
TABLE = {PACKAGE: frozenset(), f"{PACKAGE}.part": frozenset({"work", "Thing"})}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that notes in `sys` what of it has been run."""
    folder = tmp_path / PACKAGE
    folder.mkdir()
    note = "import sys\nsys.deferred_example.append(__name__)\n"
    (folder / "__init__.py").write_text(note + "answer = 42\n")
    (folder / "part.py").write_text(note + "def work(): return 'done'\nclass Thing: name = 'a thing'\n")
    (folder / "other.py").write_text(note + "word = 'other'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "deferred_example", [], raising=False)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield sys.deferred_example
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]


def test_a_deferred_module_is_run_when_something_is_asked_of_it_and_once(package):
    with deferring(TABLE):
        module = importlib.import_module(PACKAGE)
    assert package == []
    assert (module.answer, module.answer) == (42, 42)
    assert package == [PACKAGE]
    assert type(module) is types.ModuleType
    assert module is sys.modules[PACKAGE]


def test_names_are_lent_until_they_are_used(package):
    with deferring(TABLE):
        from deferred_example.part import Thing, work
    assert package == []
    assert work() == "done"
    # The package before what is inside of it.
    assert package == [PACKAGE, f"{PACKAGE}.part"]
    real = sys.modules[f"{PACKAGE}.part"].Thing
    assert isinstance(real(), Thing)
    assert not isinstance(42, Thing)
    assert issubclass(real, Thing)
    assert Thing.name == "a thing"
    assert issubclass(types.new_class("Derived", (Thing,)), real)


def test_whoever_imports_later_gets_the_real_thing(package):
    with deferring(TABLE):
        importlib.import_module(f"{PACKAGE}.part")
    from deferred_example.part import Thing

    assert isinstance(Thing, type)


def test_what_is_not_in_the_table_is_imported_at_once_after_its_package(package):
    with deferring(TABLE):
        from deferred_example.other import word
    assert word == "other"
    assert package == [PACKAGE, f"{PACKAGE}.other"]


def test_a_package_may_import_what_is_inside_of_it_while_that_is_being_looked_for(package, tmp_path):
    (tmp_path / PACKAGE / "__init__.py").write_text("from deferred_example.other import word\n")
    with deferring(TABLE):
        importlib.import_module(PACKAGE)
    other = importlib.import_module(f"{PACKAGE}.other")
    assert package == [f"{PACKAGE}.other"]
    assert other.__spec__.origin == str(tmp_path / PACKAGE / "other.py")


def test_a_name_that_is_not_there_is_missing_as_in_any_module(package):
    with deferring(TABLE):
        module = importlib.import_module(PACKAGE)
    with pytest.raises(AttributeError, match="nothing"):
        _ = module.nothing
    assert package == [PACKAGE]


def test_threads_that_ask_at_once_wait_for_one_import(package, tmp_path):
    (tmp_path / PACKAGE / "__init__.py").write_text("import sys, time\nsys.deferred_example.append('run')\ntime.sleep(0.2)\nanswer = 42\n")
    with deferring(TABLE):
        module = importlib.import_module(PACKAGE)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(module.answer)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (answers, package) == ([42] * 4, ["run"])


def test_an_import_that_fails_is_told_where_it_is_used_and_tried_again(package, tmp_path):
    (tmp_path / PACKAGE / "__init__.py").write_text("import deferred_example_of_nothing\n")
    with deferring(TABLE):
        module = importlib.import_module(PACKAGE)
    for _ in range(2):
        with pytest.raises(ImportError, match="deferred_example_of_nothing"):
            _ = module.answer


def test_a_module_that_is_not_installed_is_missing_at_once(package):
    with deferring({"deferred_example_of_nothing": frozenset()}), pytest.raises(ModuleNotFoundError):
        importlib.import_module("deferred_example_of_nothing")


@pytest.mark.parametrize("module", [*SELDOM_USED, *UNUSED_BY_THE_CORE])
def test_what_the_tables_name_is_there(module):
    names = (SELDOM_USED | UNUSED_BY_THE_CORE)[module]
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None:
        pytest.skip(f"{module} is not installed")
    found = importlib.import_module(module)
    assert names <= vars(found).keys()


@pytest.fixture
def compiler(monkeypatch):
    """In the place of PyTorch's; what it has been given."""
    import torch

    given = []

    def compile(model=None, **options):
        given.append((model, options))
        return lambda *args: ("compiled", model(*args))

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    return given


def test_a_decorated_function_meets_the_compiler_when_it_is_first_called_and_once(compiler):
    import torch

    def double(number: int) -> int:
        return 2 * number

    theirs = torch.compile
    with compiling_later({"TORCH_COMPILE_DISABLE": "1"}):
        plainly, with_options = torch.compile(double), torch.compile(dynamic=True)(double)
    assert compiler == []
    assert torch.compile is theirs
    assert [plainly(2), plainly(3), with_options(4)] == [("compiled", 4), ("compiled", 6), ("compiled", 8)]
    assert compiler == [(double, {}), (double, {"dynamic": True})]
    assert plainly.__name__ == "double"


def test_where_compiling_is_on_the_compiler_is_asked_at_once(compiler):
    import torch

    with compiling_later({}):
        torch.compile(max)
    assert compiler == [(max, {})]
