"""When LoRA is on, and how many adapters a batch may hold."""

import pytest

from serving.engine.lora_arguments import lora_defaults


@pytest.mark.parametrize(
    ("user", "chosen"),
    [
        ({}, {}),
        ({"max_lora_rank": 32}, {}),
        ({"enable_lora": False}, {}),
        ({"enable_lora": True}, {"enable_lora": True}),
        ({"max_loras": 2}, {"enable_lora": True}),
        ({"lora_modules": ["a=/a"]}, {"enable_lora": True}),
        ({"max_cpu_loras": 3}, {"enable_lora": True, "max_loras": 3}),
        ({"max_cpu_loras": 30}, {"enable_lora": True, "max_loras": 4}),
        ({"max_cpu_loras": 30, "max_loras": 1}, {"enable_lora": True}),
    ],
)
def test_lora_is_on_when_a_setting_means_nothing_without_it(user, chosen):
    assert lora_defaults(user) == chosen
