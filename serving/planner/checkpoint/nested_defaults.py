"""What the config of a decoder inside a multimodal model's leaves out: Transformers writes of a nested config only what differs from the
defaults of its class (`to_diff_dict` in transformers/configuration_utils.py).

The defaults are data (`nested_defaults.json`), held to Transformers' classes by a test.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def completed(nested: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`nested` with the defaults of its class for what is not in it, and a line that says so if there are any."""
    model_type = str(nested.get("model_type"))
    added = {name: value for name, value in _defaults().get(model_type, {}).items() if name not in nested}
    if not added:
        return dict(nested), ()
    told = ", ".join(f"{name}={value}" for name, value in added.items())
    return {**nested, **added}, (f"{told}: left out of the decoder's config, so the defaults of {model_type}'s",)


@cache
def _defaults() -> Mapping[str, Mapping[str, Any]]:
    """By model_type."""
    document: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("nested_defaults.json").read_text(encoding="utf-8"))
    return document
