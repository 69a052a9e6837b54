"""`tokenport plan`: the words after it choose what is planned. One file a command, each `run(words, environ) -> exit code`."""

from collections.abc import Mapping, Sequence


def run_plan(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """`plan MODEL`: memory, speed, instance. `plan cost`: on demand, provisioned or one's own. `plan task`: the smallest model that does.

    Raises:
        PlanError, NoFit: in one line.
    """
    if words[:1] == ["cost"]:
        from serving.planner.commands import cost

        return cost.run(words[1:], environ)
    if words[:1] == ["task"]:
        from serving.planner.commands import task

        return task.run(words[1:], environ)
    from serving.planner.commands import plan

    return plan.run(words, environ)
