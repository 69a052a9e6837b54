"""The settings of LoRA adapters."""

import pytest

from serving.errors import SettingsError
from serving.settings import describe, load_settings

SAGEMAKERS = "SAGEMAKER_MAX_NUMBER_OF_ADAPTERS_IN_MEMORY"


def test_sagemakers_number_of_adapters_is_vllms_and_tokenports_own_word_outranks_it():
    assert load_settings([], {SAGEMAKERS: "5"}).engine["max_cpu_loras"] == 5
    assert load_settings([], {SAGEMAKERS: "5", "TOKENPORT_MAX_CPU_LORAS": "6"}).engine["max_cpu_loras"] == 6
    with pytest.raises(SettingsError, match=f"{SAGEMAKERS}: expected an integer"):
        load_settings([], {SAGEMAKERS: "many"})


def test_adapters_come_from_sagemakers_folder_unless_told_otherwise():
    assert load_settings([], {}).adapter_roots == ("/opt/ml",)
    settings = load_settings([], {"TOKENPORT_ADAPTER_ROOTS": "/opt/ml, /data/adapters"})
    assert settings.adapter_roots == ("/opt/ml", "/data/adapters")
    assert any(row[0] == "adapter_roots" and "/data/adapters" in row[1] for row in describe(settings))


@pytest.mark.parametrize("roots", ["adapters", "/opt/ml,adapters", ""])
def test_a_root_that_is_no_absolute_path_is_refused(roots):
    with pytest.raises(SettingsError, match="TOKENPORT_ADAPTER_ROOTS"):
        load_settings([], {"TOKENPORT_ADAPTER_ROOTS": roots})


@pytest.mark.parametrize("asking", [{SAGEMAKERS: "2"}, {"TOKENPORT_MAX_LORAS": "2"}, {"TOKENPORT_LORA_MODULES": "a=/a"}])
def test_lora_switched_off_and_asked_for_is_a_contradiction(asking):
    with pytest.raises(SettingsError, match=f"TOKENPORT_ENABLE_LORA switches LoRA off, {next(iter(asking))} asks for it"):
        load_settings([], {"TOKENPORT_ENABLE_LORA": "false", **asking})
