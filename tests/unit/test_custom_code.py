"""Finding, checking and loading a model's own code: what is wrong with it stops the start in one line with the place."""

import sys

import pytest

from serving.api.custom_code import find_script, load
from serving.errors import SettingsError, StartError
from serving.settings import load_settings


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write code/inference.py, or another file of the model folder; leave no trace of it in this interpreter."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)

    def put(text, name="code/inference.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield put
    sys.modules.pop("inference", None)


OUTPUT = "def output_fn(prediction, accept): return 'x'\n"


def find(folder, environ=None):
    return find_script(load_settings([], environ or {}), folder)


def test_a_model_without_code_has_none(tmp_path):
    assert find(tmp_path) is None


def test_code_is_found_unless_switched_off(write, tmp_path):
    path = write(OUTPUT)
    assert find(tmp_path).path == path
    assert find(tmp_path, {"TOKENPORT_CUSTOM_CODE": "false"}) is None


@pytest.mark.parametrize("program", ["handler.py", "handler"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_program_and_folder_are_named_as_for_the_toolkit(write, tmp_path, program, scheme):
    path = write(OUTPUT, "elsewhere/handler.py")
    environ = {"SAGEMAKER_PROGRAM": program, "SAGEMAKER_SUBMIT_DIRECTORY": f"{scheme}{tmp_path / 'elsewhere'}"}
    assert find(tmp_path, environ).path == path


def test_empty_names_are_those_the_sdk_sets_and_mean_nothing(tmp_path):
    assert find(tmp_path, {"SAGEMAKER_PROGRAM": "", "SAGEMAKER_SUBMIT_DIRECTORY": ""}) is None


def test_a_named_program_that_is_not_there_stops_the_start(tmp_path):
    with pytest.raises(StartError, match=r"SAGEMAKER_PROGRAM: there is no file .*code/handler.py"):
        find(tmp_path, {"SAGEMAKER_PROGRAM": "handler.py"})


@pytest.mark.parametrize(
    ("variable", "value"), [("SAGEMAKER_SUBMIT_DIRECTORY", "s3://bucket/code.tar.gz"), ("SAGEMAKER_PROGRAM", "src/inference.py")]
)
def test_what_is_not_a_file_in_a_local_folder_is_refused(variable, value):
    with pytest.raises(SettingsError, match=variable):
        load_settings([], {variable: value})


@pytest.mark.parametrize("line", ["numpy", "numpy>=1", "# a comment", "", "numpy  # why", "absent; python_version < '3'"])
def test_fulfilled_requirements_pass(write, tmp_path, line):
    write(OUTPUT)
    write(f"{line}\n", "code/requirements.txt")
    assert find(tmp_path) is not None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("no-such-package-here", "is not installed"),
        ("numpy<1", "numpy .* is installed"),
        ("numpy @ https://example.com/numpy.whl", "elsewhere"),
        ("-r more.txt", "cannot be looked up"),
        ("--index-url https://example.com", "cannot be looked up"),
    ],
)
def test_requirements_that_are_not_installed_stop_the_start_with_their_line(write, tmp_path, line, reason):
    write(OUTPUT)
    write(f"numpy\n{line}\n", "code/requirements.txt")
    with pytest.raises(StartError, match=rf"requirements.txt:2: .*{reason}"):
        find(tmp_path)


def test_functions_are_loaded_and_helpers_beside_them_importable(write):
    write("WORD = 'helped'\n", "code/helper_of_this_test.py")
    path = write("import helper_of_this_test\ndef output_fn(prediction, accept, context): return helper_of_this_test.WORD\n")
    functions = load(path)
    function, takes_context = functions["output_fn"]
    assert function(None, None, None) == "helped"
    assert takes_context


def test_loading_writes_nothing_into_the_model_folder(write, tmp_path):
    write("X = 1\n", "code/another_helper_of_this_test.py")
    load(write("import another_helper_of_this_test\n" + OUTPUT))
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_helper_does_not_stand_in_for_a_library(write):
    write("raise RuntimeError\n", "code/json.py")
    load(write("import json\njson.dumps({})\n" + OUTPUT))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "defines none of"),
        ("def output_fn(:\n", r"inference.py:1: SyntaxError"),
        ("\nimport no_such_module_here\n", r"inference.py:2: ModuleNotFoundError: .*no_such_module_here"),
        ("\n\nraise SystemExit(3)\n", r"inference.py:3: SystemExit: 3"),
        ("\ndef output_fn(prediction): pass\n", r"inference.py:2: output_fn takes 1 arguments; it is called with 2"),
        ("def transform_fn(model, data, a, b): pass\ndef input_fn(data, a): pass\n", "transform_fn stands for"),
        ("def model_fn(model_dir): pass\n" + OUTPUT, "nothing uses what model_fn returns"),
        ("def input_fn(data, content_type): yield 1\n", "yields"),
        ("output_fn = 3\n", "output_fn is no function"),
    ],
)
def test_code_that_cannot_work_stops_the_start_in_one_line_with_the_place(write, text, message):
    with pytest.raises(StartError, match=message) as caught:
        load(write(text))
    assert "\n" not in str(caught.value)
    assert "inference.py" in str(caught.value)


def test_a_file_named_like_a_loaded_module_is_refused(write):
    with pytest.raises(StartError, match="rename"):
        load(write(OUTPUT, "code/json.py"))
