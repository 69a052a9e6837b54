"""How fast one plan is, for `tokenport plan MODEL` where the machine is named and nothing is ranked."""

import argparse
from dataclasses import dataclass
from typing import Any

from serving.errors import PlanError
from serving.planner.commands.target import target_of
from serving.planner.hardware import Gpu, Instance
from serving.planner.instances import Hardware
from serving.planner.model import Model
from serving.planner.plan import Plan
from serving.planner.ranking.as_json import ESTIMATE, target_json
from serving.planner.ranking.as_text import target_words
from serving.planner.ranking.by_concurrency import by_concurrency_json, operation_table
from serving.planner.ranking.cells import table
from serving.planner.ranking.operation import SPREAD_EXPERTS, Estimator, Operation, Target
from serving.planner.speed.calibration import read_measured
from serving.planner.speed.efficiency import published_efficiency


@dataclass(frozen=True)
class PlanSpeed:
    """`operations` by concurrency, none where there is no estimate; `basis`: what they stand on."""

    target: Target
    operations: tuple[Operation, ...]
    basis: str

    @property
    def keeps_target(self) -> bool:
        """With as many requests at once as were asked for."""
        return not any(one.reasons for one in self.operations if one.concurrency == self.target.flow.concurrency)

    def to_json(self) -> dict[str, Any]:
        """What `--json` has beside the plan."""
        return {
            "target": target_json(self.target),
            "by_concurrency": by_concurrency_json(self.operations),
            "estimate": ESTIMATE,
            "basis": self.basis,
        }

    def text(self) -> str:
        """For the terminal, under the plan."""
        if not self.operations:
            return ""
        rows = table(*operation_table(self.operations, self.target))
        title = f"{target_words(self.target)}; with other numbers of them:"
        return "\n".join(["", title, *rows, "", ESTIMATE, f"Speeds stand on {self.basis}.", ""])


def bare_machine(gpu: Gpu, num_gpus: int, hardware: Hardware, assumed: list[str]) -> Instance:
    """So many GPUs, linked as they are in the instances that have them, with no price."""
    links = {one.link for one in hardware.instances.values() if one.gpu.name == gpu.name and one.link is not None}
    link = links.pop() if len(links) == 1 else "pcie"
    if num_gpus > 1:
        assumed.append(f"link between the GPUs: {link}")
    return Instance(f"{num_gpus} x {gpu.name}", gpu, num_gpus, link if num_gpus > 1 else None, None, None, None)


def speed_of(options: argparse.Namespace, model: Model, plan: Plan, machine: Instance, hardware: Hardware, assumed: list[str]) -> PlanSpeed:
    """Of the replicas of `plan` on `machine`. Adds a line to `assumed` for each value that nobody told.

    Raises:
        PlanError: an option, or a file that one names, is wrong.
    """
    _refuse_what_needs_a_price(options)
    target = target_of(options, plan.request, assumed)
    measured = [read_measured(path, hardware.gpus) for path in options.calibrate or ()]
    try:
        estimator = Estimator(model, published_efficiency(), measured)
        service = estimator.service(plan, machine, plan.request.data_parallel_size, plan.max_concurrency)
    except PlanError as error:
        assumed.append(f"by_concurrency: empty; {error}")
        return PlanSpeed(target, (), "")
    assumed += estimator.without_effect
    if machine.price_per_hour is not None and plan.num_gpus < machine.num_gpus:
        assumed.append(f"USD/M output: of the whole instance, of whose {machine.num_gpus} GPUs this takes {plan.num_gpus}")
    assumed += [SPREAD_EXPERTS] if model.shape.num_experts and plan.request.data_parallel_size > 1 else []
    return PlanSpeed(target, tuple(service.by_concurrency(target)), service.efficiency.basis)


def _refuse_what_needs_a_price(options: argparse.Namespace) -> None:
    for name in ("budget", "prices", "html"):
        if getattr(options, name) is not None:
            said = f"--gpu {options.gpu} has no price"
            raise PlanError(f"--{name} {getattr(options, name)}: {said}; rank machines, your own too: --hardware FILE with price_per_hour")
