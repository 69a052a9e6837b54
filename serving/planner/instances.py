"""What there is to run on: the table of SageMaker's GPU instances, and the user's own machines from a file of the same form.

The figures are data (`instances.json`), each with its source; nothing here knows a GPU by heart. A file is read strictly: a field that is
not known stops the reading with its name.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml

from serving.errors import PlanError
from serving.planner.hardware import Gpu, Instance
from serving.planner.interval import Interval, exactly
from serving.planner.prices import InstancePrice, read_prices

_TABLE = Path(__file__).with_name("instances.json")
_MIB, _GIB, _GIGA, _TERA = 2**20, 2**30, 10**9, 10**12
_RATES = ("float16", "float8", "int8")
_Named = TypeVar("_Named", Gpu, Instance)
_GPU_FIELDS = ("name", "memory_mib", "usable_mib", "bandwidth_gb_per_s", "tflops", "bfloat16", "source", "as_of")
_INSTANCE_FIELDS = ("name", "gpu", "num_gpus", "link", "price_per_hour", "host_memory_gib", "disk_gb", "note", "unsupported")


@dataclass(frozen=True)
class Hardware:
    """GPUs and instances by name."""

    gpus: Mapping[str, Gpu]
    instances: Mapping[str, Instance]


def load_hardware(path: Path | None = None, *, prices: Mapping[str, InstancePrice] | None = None) -> Hardware:
    """The table, and what `path` (YAML or JSON) adds to it or says otherwise. `prices`: the project's own table if None.

    Raises:
        PlanError: the file cannot be read, or a field of it is unknown, missing or wrong.
    """
    prices = read_prices() if prices is None else prices
    table = _read(_document(_TABLE), str(_TABLE), {}, prices)
    if path is None:
        return table
    own = _read(_document(path), f"--hardware {path}", table.gpus, prices)
    return Hardware({**table.gpus, **own.gpus}, {**table.instances, **own.instances})


def find_instance(name: str, hardware: Hardware | None = None) -> Instance:
    """By SageMaker's name (`ml.g6.2xlarge`); the `ml.` may be left out. In the table, if no `hardware` is given.

    Raises:
        PlanError: there is none; names the nearest.
    """
    hardware = hardware or load_hardware()
    for known in (name, f"ml.{name}"):
        if known in hardware.instances:
            return hardware.instances[known]
    raise PlanError(f"--instance {name}: not known; {_nearest(name, hardware.instances)}, or describe it in a file for --hardware")


def find_gpu(name: str, hardware: Hardware | None = None) -> Gpu:
    """By its name, in capitals or not (`l40s`). In the table, if no `hardware` is given.

    Raises:
        PlanError: there is none; names the nearest.
    """
    hardware = hardware or load_hardware()
    by_folded = {known.lower(): gpu for known, gpu in hardware.gpus.items()}
    if name.lower() in by_folded:
        return by_folded[name.lower()]
    raise PlanError(f"--gpu {name}: not known; {_nearest(name, hardware.gpus)}, or describe it in a file for --hardware")


def _nearest(name: str, known: Iterable[str]) -> str:
    """One that begins alike before any other: of `A100` it is A100-40GB, not H100."""
    by_folded, folded = {one.lower(): one for one in known}, name.lower()
    alike = [one for one in by_folded if one.startswith(folded) or folded.startswith(one)]
    near = get_close_matches(folded, alike or by_folded, n=1, cutoff=0.0)
    return f"the nearest is {by_folded[near[0]]}"


def _document(path: Path) -> Any:
    """JSON is YAML too; the table is read as JSON, which is faster."""
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise PlanError(f"--hardware {path}: cannot be read ({error.strerror})") from error
    except (ValueError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())  # YAML's errors have lines
        raise PlanError(f"--hardware {path}: cannot be read as {'JSON' if path.suffix == '.json' else 'YAML'} ({told})") from error


def _read(document: Any, where: str, known: Mapping[str, Gpu], prices: Mapping[str, InstancePrice]) -> Hardware:
    _check_fields(document, ("gpus", "instances", "note"), where)
    gpus = [_gpu(one, f"{where}: gpus[{index}]") for index, one in enumerate(_items(document, "gpus", where))]
    by_name = {**known, **{gpu.name: gpu for gpu in gpus}}
    rows = enumerate(_items(document, "instances", where))
    instances = [_instance(one, f"{where}: instances[{index}]", by_name, prices) for index, one in rows]
    return Hardware(_by_name(gpus, f"{where}: gpus"), _by_name(instances, f"{where}: instances"))


def _by_name(entries: Sequence[_Named], where: str) -> dict[str, _Named]:
    names = [entry.name for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise PlanError(f"{where}: {twice} is there twice")
    return dict(zip(names, entries, strict=True))


def _gpu(entry: Any, where: str) -> Gpu:
    _check_fields(entry, _GPU_FIELDS, where)
    _check_fields(entry.get("tflops", {}), _RATES, f"{where}.tflops")
    rates = {name: _number(entry["tflops"], name, f"{where}.tflops") for name in entry.get("tflops", {})}
    return Gpu(
        name=_text(entry, "name", where),
        memory_bytes=int(_number(entry, "memory_mib", where) * _MIB),
        usable_bytes=_interval(entry, "usable_mib", where).times(_MIB),
        bandwidth_bytes_per_s=_number(entry, "bandwidth_gb_per_s", where) * _GIGA,
        flops_per_s={name: rate * _TERA for name, rate in rates.items()},
        source=_text(entry, "source", where),
        as_of=_text(entry, "as_of", where),
        has_bfloat16=_truth(entry, "bfloat16", where) if "bfloat16" in entry else True,
    )


def _instance(entry: Any, where: str, gpus: Mapping[str, Gpu], prices: Mapping[str, InstancePrice]) -> Instance:
    _check_fields(entry, _INSTANCE_FIELDS, where)
    gpu, link, num_gpus = _text(entry, "gpu", where), entry.get("link"), _number(entry, "num_gpus", where)
    if gpu not in gpus:
        raise PlanError(f"{where}.gpu {gpu}: not known; {_nearest(gpu, gpus)}")
    if link not in ("nvlink", "pcie", None):
        raise PlanError(f"{where}.link {link!r}: must be nvlink or pcie")
    if num_gpus != int(num_gpus):
        raise PlanError(f"{where}.num_gpus {num_gpus:g}: must be a whole number")
    if num_gpus > 1 and link is None and "unsupported" not in entry:
        raise PlanError(f"{where}.link: missing; say nvlink or pcie, since there are {num_gpus:g} GPUs")
    name = _text(entry, "name", where)
    price = prices.get(name)
    own_price = _number(entry, "price_per_hour", where) if "price_per_hour" in entry else None
    return Instance(
        name=name,
        gpu=gpus[gpu],
        num_gpus=int(num_gpus),
        link=link,
        price_per_hour=own_price or (price.usd_per_hour if price else None),
        price_as_of=None if own_price or not price else price.as_of,
        price_source=where if own_price else price.source if price else None,
        host_memory_bytes=int(_number(entry, "host_memory_gib", where) * _GIB) if "host_memory_gib" in entry else None,
        disk_bytes=int(_number(entry, "disk_gb", where) * _GIGA) if "disk_gb" in entry else None,
        note=_text(entry, "note", where) if "note" in entry else None,
        unsupported=_text(entry, "unsupported", where) if "unsupported" in entry else None,
    )


def _check_fields(entry: Any, known: Iterable[str], where: str) -> None:
    if not isinstance(entry, dict):
        raise PlanError(f"{where}: must be a mapping with the fields {', '.join(known)}")
    for name in entry:
        if name not in known:
            raise PlanError(f"{where}: unknown field {name}; {_nearest(str(name), known)}")


def _items(document: Mapping[str, Any], name: str, where: str) -> list[Any]:
    items = document.get(name, [])
    if not isinstance(items, list):
        raise PlanError(f"{where}: {name} must be a list")
    return items


def _text(entry: Mapping[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if value is None or value == "" or isinstance(value, dict | list | bool):
        raise PlanError(f"{where}.{name}{f' {value!r}' if name in entry else ': missing'}: must be text")
    return str(value)


def _number(entry: Mapping[str, Any], name: str, where: str) -> float:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise PlanError(f"{where}.{name} {value!r}: must be a number above 0")
    return float(value)


def _truth(entry: Mapping[str, Any], name: str, where: str) -> bool:
    value = entry[name]
    if not isinstance(value, bool):
        raise PlanError(f"{where}.{name} {value!r}: must be true or false")
    return value


def _interval(entry: Mapping[str, Any], name: str, where: str) -> Interval:
    value = entry.get(name)
    if not isinstance(value, dict):
        return exactly(_number(entry, name, where))
    _check_fields(value, ("estimate", "low", "high"), f"{where}.{name}")
    low, estimate, high = (_number(value, end, f"{where}.{name}") for end in ("low", "estimate", "high"))
    if not low <= estimate <= high:
        raise PlanError(f"{where}.{name}: must have low <= estimate <= high")
    return Interval(estimate, low, high)
