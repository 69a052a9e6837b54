"""The options of `tokenport plan cost` about instances of one's own: what one costs, what it does, and how their number changes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from serving.errors import PlanError
from serving.planner.commands.cost_options import Given
from serving.planner.commands.hub import fetch
from serving.planner.cost.autoscaling import Autoscaling
from serving.planner.cost.bench_results import read_capacity, read_cold_start
from serving.planner.cost.capacity import Capacity, parse_capacity
from serving.planner.cost.case import Own
from serving.planner.cost.estimate import estimated_capacity
from serving.planner.cost.load import Load
from serving.planner.cost.quantities import count, duration_s, number
from serving.planner.cost.report import Notes
from serving.planner.hardware import Instance
from serving.planner.instances import find_instance, load_hardware
from serving.planner.model import read_model
from serving.planner.prices import read_prices
from serving.planner.speed.calibration import Measured, read_measured

_DEFAULT_CONCURRENCY = "16"
# Of an instance's concurrency: what is left carries the load while another starts.
_TARGET_SHARE = 0.7


def read_own(given: Given, load: Load, most_units: int, notes: Notes) -> Own | None:
    """What the options describe; None without --instance.

    Raises:
        PlanError: a value or a file is wrong, or no price is known; names the option.
    """
    if "instance" not in given:
        notes.not_compared.append("endpoint: no --instance")
        return None
    instance_prices = read_prices(Path(given["instance_prices"])) if "instance_prices" in given else None
    hardware = load_hardware(Path(given["hardware"]) if "hardware" in given else None, prices=instance_prices)
    instance = find_instance(given["instance"], hardware)
    if instance.unsupported:
        raise PlanError(f"--instance {instance.name}: Tokenport does not run there: {instance.unsupported}")
    usd_per_hour, source = _price(given, instance)
    measured = [read_measured(Path(given["calibrate"]), hardware.gpus)] if "calibrate" in given else []
    capacity = _capacity(given, replace(instance, price_per_hour=usd_per_hour), load, measured, notes)
    notes.assumed += capacity.assumed
    notes.assumed.append("every request takes as long as on a full instance, and all instances share one queue")
    scaling = _autoscaling(given, capacity.concurrency, most_units, notes)
    return Own(instance.name, usd_per_hour, source, capacity, scaling)


def _price(given: Given, instance: Instance) -> tuple[float, str]:
    """Dollars an hour, and who says so."""
    if "price_per_hour" in given:
        return number("--price-per-hour", given["price_per_hour"]), "--price-per-hour"
    if instance.price_per_hour is None:
        raise PlanError(f"--instance {instance.name}: no price of it is known; give --price-per-hour")
    return instance.price_per_hour, f"{instance.price_source} ({instance.price_as_of or 'given'})"


def _capacity(given: Given, instance: Instance, load: Load, measured: Sequence[Measured], notes: Notes) -> Capacity:
    if "capacity" in given:
        return parse_capacity(given["capacity"])
    if "bench" in given:
        return read_capacity(Path(given["bench"]))
    concurrency = count("--concurrency", given.get("concurrency", _DEFAULT_CONCURRENCY))
    if "concurrency" not in given:
        notes.assumed.append(f"an instance works on {concurrency} requests at once: --concurrency")
    return estimated_capacity(read_model(given["model"], fetch), instance, load, concurrency, given.get("quantization"), measured)


def _autoscaling(given: Given, concurrency: int, most_units: int, notes: Notes) -> Autoscaling | None:
    cold_start_s = _cold_start_s(given, notes)
    if cold_start_s is None:
        return None
    target = number("--target-concurrency", given.get("target_concurrency", f"{_TARGET_SHARE * concurrency:g}"))
    scaling = Autoscaling(
        min_instances=count("--min-instances", given.get("min_instances", "1"), most=most_units),
        max_instances=most_units,
        target_concurrency=target,
        cold_start_s=cold_start_s,
        scale_out_after_s=duration_s("--scale-out-after", given.get("scale_out_after", "30s")),
        scale_in_after_s=duration_s("--scale-in-after", given.get("scale_in_after", "15m")),
        wake_after_s=duration_s("--wake-after", given.get("wake_after", "1m")),
    )
    if "target_concurrency" not in given:
        notes.assumed.append(f"scaling aims at {target:g} requests at once on an instance: --target-concurrency")
    for name, told in (
        ("min_instances", "1"),
        ("scale_out_after", "30 s above the target"),
        ("scale_in_after", "15 min below it"),
        ("wake_after", "1 min"),
    ):
        if name not in given:
            notes.assumed.append(f"scaling: --{name.replace('_', '-')} {told}")
    return scaling


def _cold_start_s(given: Given, notes: Notes) -> float | None:
    """From the decision to start an instance to its first answer."""
    if "cold_start" in given:
        seconds, source = duration_s("--cold-start", given["cold_start"]), "--cold-start"
    elif "startup" in given:
        seconds, source = read_cold_start(Path(given["startup"]))
        notes.assumed.append(
            "a new instance takes no longer than its server's start: --startup has neither the machine's nor the image's time"
        )
    else:
        notes.not_compared.append("endpoint that scales: how long a new instance takes is not known: give --cold-start or --startup")
        return None
    notes.sources.append(f"time to a new instance: {seconds:.1f} s: {source}")
    return seconds
