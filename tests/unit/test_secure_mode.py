"""SageMaker's secure mode: each control stops the start, names itself and the file, and touches nothing else."""

import json

import pytest

from serving.errors import SettingsError, StartError
from serving.secure_mode import CHAT_TEMPLATES, PICKLES, REMOTE_CODE, REQUIREMENTS, SCRIPTS, adapter_violation, check_start
from serving.settings import load_settings
from serving.settings_names import SECURITY_CONTROLS


@pytest.fixture
def channel(tmp_path):
    """An untrusted channel that is the model folder, with nothing forbidden in it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    return folder


def environ(*controls, channels="", **variables):
    return {
        "SAGEMAKER_SECURE_MODE": "true",
        "SAGEMAKER_SECURITY_CONTROLS": ",".join(controls),
        "SAGEMAKER_UNTRUSTED_CHANNELS": str(channels),
        **variables,
    }


def check(folder, variables, location=None):
    check_start(load_settings([], variables), str(folder) if location is None else location, folder)


def put(folder, name, text="x"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refusal(*arguments, **named):
    with pytest.raises(StartError) as caught:
        check(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_clean_channel_passes_all_five_controls(channel):
    check(channel, environ(*SECURITY_CONTROLS, channels=channel))


VIOLATIONS = [
    (SCRIPTS, "code/inference.py", "x"),
    (SCRIPTS, "code/lib/helpers.py", "x"),
    (SCRIPTS, "model.py", "x"),
    (REQUIREMENTS, "requirements.txt", "x"),
    (REQUIREMENTS, "code/requirements.txt", "x"),
    (PICKLES, "pytorch_model.bin", "x"),
    (PICKLES, "weights.PT", "x"),
    (PICKLES, "old/epoch.ckpt", "x"),
    (PICKLES, "a/b/c/tensors.pth", "x"),
    (PICKLES, "vectors.pkl", "x"),
    (CHAT_TEMPLATES, "chat_template.jinja", "{{ messages }}"),
    (CHAT_TEMPLATES, "additional_chat_templates/tools.jinja", "{{ messages }}"),
    (CHAT_TEMPLATES, "draft/tokenizer_config.json", '{"chat_template": "{{ messages }}"}'),
    (CHAT_TEMPLATES, "tokenizer_config.json", '{"chat_template": [{"name": "default", "template": "{{ messages }}"}]}'),
    (CHAT_TEMPLATES, "chat_template.json", '{"chat_template": "{{ messages }}"}'),
    (CHAT_TEMPLATES, "processor_config.json", '{"chat_template": "{{ messages }}"}'),
]


@pytest.mark.parametrize(("control", "name", "text"), VIOLATIONS)
def test_a_forbidden_file_stops_the_start_in_one_line_that_names_control_and_file(channel, control, name, text):
    path = put(channel, name, text)
    message = refusal(channel, environ(control, channels=channel))
    assert control in message
    assert str(path) in message


@pytest.mark.parametrize(("control", "name", "text"), VIOLATIONS)
def test_the_same_file_passes_the_other_four_controls_and_a_start_without_secure_mode(channel, control, name, text):
    put(channel, name, text)
    others = [other for other in SECURITY_CONTROLS if other != control]
    check(channel, environ(*others, channels=channel))
    check(channel, {})
    check(channel, environ(control, channels=channel) | {"SAGEMAKER_SECURE_MODE": "false"})


@pytest.mark.parametrize(("control", "name", "text"), [row for row in VIOLATIONS if row[0] in (PICKLES, CHAT_TEMPLATES)])
def test_content_of_a_trusted_folder_is_not_checked(channel, tmp_path, control, name, text):
    put(channel, name, text)
    other = tmp_path / "other"
    other.mkdir()
    check(channel, environ(control, channels=other))
    check(channel, environ(control))


def test_code_of_the_model_is_refused_also_where_no_channel_is_named(channel):
    put(channel, "code/inference.py")
    assert SCRIPTS in refusal(channel, environ(SCRIPTS))


def test_code_is_refused_also_when_custom_code_is_switched_off(channel):
    put(channel, "code/inference.py")
    assert SCRIPTS in refusal(channel, environ(SCRIPTS, TOKENPORT_CUSTOM_CODE="false"))


def test_a_program_by_another_name_is_refused(channel):
    put(channel, "handler.py")
    assert "handler.py" in refusal(channel, environ(SCRIPTS, SAGEMAKER_PROGRAM="handler.py"))


def test_a_submit_directory_with_code_is_refused(channel, tmp_path):
    put(tmp_path, "elsewhere/inference.py")
    message = refusal(channel, environ(SCRIPTS, SAGEMAKER_SUBMIT_DIRECTORY=str(tmp_path / "elsewhere")))
    assert "SAGEMAKER_SUBMIT_DIRECTORY" in message


def test_every_channel_is_checked(channel, tmp_path):
    second = put(tmp_path, "second/draft/model.bin")
    assert str(second) in refusal(channel, environ(PICKLES, channels=f"{channel}, {tmp_path / 'second'}"))


def test_a_channel_that_is_no_folder_stops_the_start(channel, tmp_path):
    assert str(tmp_path / "nowhere") in refusal(channel, environ(PICKLES, channels=tmp_path / "nowhere"))


def test_links_are_followed_and_a_loop_ends(channel, tmp_path):
    put(tmp_path, "hidden/weights.bin")
    (channel / "loop").symlink_to(channel)
    check(channel, environ(*SECURITY_CONTROLS, channels=channel))
    (channel / "more").symlink_to(tmp_path / "hidden")
    assert "more/weights.bin" in refusal(channel, environ(PICKLES, channels=channel))


def test_a_link_by_a_forbidden_name_is_refused(channel):
    (channel / "model.bin").symlink_to(channel / "model.safetensors")
    assert "model.bin" in refusal(channel, environ(PICKLES, channels=channel))


def test_a_configuration_that_cannot_be_read_cannot_pass(channel):
    put(channel, "tokenizer_config.json", "{")
    assert "tokenizer_config.json" in refusal(channel, environ(CHAT_TEMPLATES, channels=channel))


@pytest.mark.parametrize(
    ("control", "variable", "value"),
    [
        (REMOTE_CODE, "TOKENPORT_TRUST_REMOTE_CODE", "true"),
        (REMOTE_CODE, "OPTION_TRUST_REMOTE_CODE", "true"),
        (REMOTE_CODE, "SM_VLLM_MM_PROCESSOR_KWARGS", '{"trust_remote_code": true}'),
        (SCRIPTS, "TOKENPORT_TOOL_PARSER_PLUGIN", "/opt/ml/model/parser.py"),
        (SCRIPTS, "TOKENPORT_REASONING_PARSER_PLUGIN", "/opt/ml/model/parser.py"),
        (SCRIPTS, "TOKENPORT_WORKER_CLS", "mine.Worker"),
        (SCRIPTS, "TOKENPORT_LOGITS_PROCESSORS", "mine:Processor"),
        (SCRIPTS, "TOKENPORT_KV_TRANSFER_CONFIG", '{"kv_connector_module_path": "mine"}'),
        (SCRIPTS, "TOKENPORT_DISTRIBUTED_EXECUTOR_BACKEND", "mine.Executor"),
        (CHAT_TEMPLATES, "TOKENPORT_TRUST_REQUEST_CHAT_TEMPLATE", "true"),
        (CHAT_TEMPLATES, "TOKENPORT_CHAT_TEMPLATE", "{{ messages }}"),
        (CHAT_TEMPLATES, "TOKENPORT_DEFAULT_CHAT_TEMPLATE_KWARGS", '{"chat_template": "{{ messages }}"}'),
    ],
)
def test_a_forbidden_option_is_refused_under_its_control_alone(channel, control, variable, value):
    message = refusal(channel, environ(control, channels=channel) | {variable: value})
    assert control in message
    assert variable in message
    others = [other for other in SECURITY_CONTROLS if other != control]
    check(channel, environ(*others, channels=channel) | {variable: value})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TOKENPORT_TRUST_REMOTE_CODE", "false"),
        ("TOKENPORT_WORKER_CLS", "auto"),
        ("TOKENPORT_DISTRIBUTED_EXECUTOR_BACKEND", "mp"),
        ("TOKENPORT_DEFAULT_CHAT_TEMPLATE_KWARGS", '{"enable_thinking": false}'),
    ],
)
def test_an_option_that_asks_for_nothing_forbidden_passes(channel, variable, value):
    check(channel, environ(*SECURITY_CONTROLS, channels=channel) | {variable: value})


def test_a_template_named_by_option_must_lie_outside_of_the_channels(channel, tmp_path):
    trusted = put(tmp_path, "templates/chat.txt")
    inside = put(channel, "chat.txt")
    link = tmp_path / "templates" / "link.txt"
    link.symlink_to(inside)
    check(channel, environ(CHAT_TEMPLATES, channels=channel, TOKENPORT_CHAT_TEMPLATE=str(trusted)))
    for path in (inside, link, tmp_path / "templates/missing.txt"):
        refusal(channel, environ(CHAT_TEMPLATES, channels=channel, TOKENPORT_CHAT_TEMPLATE=str(path)))


@pytest.mark.parametrize("control", [PICKLES, CHAT_TEMPLATES])
def test_what_would_be_downloaded_cannot_be_checked_and_is_refused(channel, control):
    assert "org/model" in refusal(channel, environ(control, channels=channel), location="org/model")
    draft = {"TOKENPORT_SPECULATIVE_CONFIG": json.dumps({"model": "org/draft", "num_speculative_tokens": 2})}
    assert "org/draft" in refusal(channel, environ(control, channels=channel) | draft)
    check(channel, environ(REQUIREMENTS, channels=channel), location="org/model")


def test_the_embedded_model_is_the_images_own(channel):
    check(channel, environ(*SECURITY_CONTROLS, channels=channel), location="")


@pytest.mark.parametrize("name", ["adapter_model.bin", "model.py", "requirements.txt"])
def test_an_adapter_loaded_later_is_held_to_the_same_wherever_it_lies(tmp_path, name):
    adapter = tmp_path / "adapter"
    put(adapter, "adapter_model.safetensors")
    # Training leaves it there; nobody reads an adapter's.
    put(adapter, "chat_template.jinja")
    secure = load_settings([], environ(*SECURITY_CONTROLS))
    assert adapter_violation(secure, adapter) is None
    put(adapter, name)
    assert str(adapter / name) in (adapter_violation(secure, adapter) or "")
    assert adapter_violation(load_settings([], {}), adapter) is None


def test_an_adapter_folder_that_is_not_there_is_no_adapter(tmp_path):
    assert "nowhere" in (adapter_violation(load_settings([], environ(PICKLES)), tmp_path / "nowhere") or "")


def test_an_unknown_control_is_an_error_with_the_nearest_name():
    with pytest.raises(SettingsError, match="did you mean DISALLOW_PICKLE_FILES"):
        load_settings([], environ("DISALLOW_PICKLE_FILE"))


def test_secure_mode_without_controls_is_an_error():
    with pytest.raises(SettingsError, match="SAGEMAKER_SECURITY_CONTROLS"):
        load_settings([], {"SAGEMAKER_SECURE_MODE": "true"})


def test_controls_without_secure_mode_are_an_error_rather_than_forgotten():
    with pytest.raises(SettingsError, match="SAGEMAKER_SECURE_MODE"):
        load_settings([], {"SAGEMAKER_SECURITY_CONTROLS": PICKLES})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("TOKENPORT_SECURE_MODE", "false"), ("TOKENPORT_SECURITY_CONTROLS", REQUIREMENTS), ("TOKENPORT_UNTRUSTED_CHANNELS", "/tmp")],
)
def test_what_the_platform_protects_nobody_else_can_set(variable, value):
    with pytest.raises(SettingsError, match=f"{variable}.*platform"):
        load_settings([], environ(PICKLES, **{variable: value}))


def test_compiled_code_that_comes_with_the_model_is_a_pickle_file(channel):
    trusting = {"TOKENPORT_TRUST_SHIPPED_CACHE": "true"}
    assert PICKLES in refusal(channel, environ(PICKLES, channels=channel, **trusting))
    check(channel, environ(SCRIPTS, channels=channel, **trusting))
