"""What `tokenport cascade fit` says of a fit: what was assumed, what it came to, what to beware of."""

from serving.cascade.fitting.fit import Fitted
from serving.cascade.fitting.outcomes import Outcomes
from serving.cascade.fitting.replay import Replay
from serving.cascade.fitting.training import NUM_TOKENS
from serving.cascade.policy_file import unknown_signals

_NAME_WIDTH = 12


def report(fitted: Fitted, outcomes: Outcomes) -> list[str]:
    """Lines for people: the tiers, the rules, and the policy beside the naive threshold and the last tier alone."""
    policy, calibration, facts = fitted.policy, fitted.calibration, fitted.policy.fitted_on
    order = " (assumed: by mean cost; --tiers orders them otherwise)" if outcomes.assumed_order else ""
    rules = [f"{stage.tier} {' and '.join(name for name in ('before', 'after') if getattr(stage, name))}" for stage in policy.stages]
    hold = [f"; {stage.hold_tokens} tokens of {stage.tier} are held" for stage in policy.stages if stage.after is not None]
    large = policy.last_tier[:_NAME_WIDTH]
    return [
        f"tiers: {', '.join(outcomes.tiers)}{order}",
        f"rules: {', '.join(rules)}{''.join(hold)}",
        f"requests: {facts.num_training} to train, {facts.num_calibration} to calibrate (seed {facts.seed})",
        f"asked for: {facts.quality:g} of the mean quality of {policy.last_tier}, at confidence {facts.confidence:g}",
        "",
        f"{'on the calibrating half':<26}{'quality':>9}{f'of {large}':>16}{f'to {large}':>16}{'cost':>12}",
        _row("with the bound", fitted.bounded, fitted.alone, calibration),
        _row("naive threshold", fitted.naive, fitted.alone, calibration),
        _row(f"{large} alone", fitted.alone, fitted.alone, calibration),
    ]


def warnings(fitted: Fitted, outcomes: Outcomes, *, hold_tokens: int | None) -> list[str]:
    """What was assumed or is missing, a line each. `hold_tokens`: what the command line said of it."""
    policy, facts = fitted.policy, fitted.policy.fitted_on
    found = []
    if not any(stage.can_answer for stage in policy.stages):
        told = f"no threshold saves anything and keeps {facts.quality:g} at confidence {facts.confidence:g}"
        found.append(f"{told} on {facts.num_calibration} requests: the policy sends everything to {policy.last_tier}")
    for stage in policy.stages:
        if stage.after is not None and hold_tokens is None and NUM_TOKENS not in outcomes.signals[stage.tier]:
            told = f"nothing says of how many tokens the signals of {stage.tier} are"
            found.append(f"{told}; assumed {stage.hold_tokens} (--hold-tokens)")
    if unknown := unknown_signals(policy):
        found.append(f"the server does not compute {', '.join(unknown)}: the policy can be evaluated, not served")
    if not policy.valid_for:
        found.append("nothing says what the policy holds for (--model, --sampling, --valid-for): no server can tell when it is stale")
    return found


def _row(name: str, run: Replay, alone: Replay, calibration: Outcomes) -> str:
    share_large = float((run.answered == len(calibration.tiers) - 1).mean())
    quality, best = float(run.quality.mean()), float(alone.quality.mean())
    ratio = f"{quality / best:.1%}" if best else "-"
    return f"{name:<26}{quality:>9.4f}{ratio:>16}{share_large:>16.1%}{run.cost.mean():>12.6g}"
