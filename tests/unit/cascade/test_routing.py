"""Which tiers may answer, and why the first of them is the first, among three."""

from serving.cascade.asked import Asked
from serving.cascade.config import Bounds
from serving.cascade.policy import Policy, Rule, Stage
from serving.cascade.routing import chosen
from tests.unit.cascade.scripted import CHAT, FITTED_ON, SHORT, Model, tier

NEVER = Rule({}, 0.0, (0.5,), (0.5,), None)


def three(**takes: Bounds):
    return [tier("small", Model(), takes=takes), tier("middle", Model()), tier("large", Model())]


def before(**rules: Rule) -> Policy:
    return Policy(tuple(Stage(name, rule, None, 0) for name, rule in rules.items()), "large", FITTED_ON, {})


def test_a_conversation_that_its_tier_does_not_accept_is_handed_on():
    route = chosen(three(), before(small=SHORT, middle=NEVER), Asked("chat", CHAT), sticky="middle")
    assert [step.tier.name for step in route.steps] == ["large"]
    assert route.decision == "escalated"


def test_what_the_policy_does_not_accept_is_told_before_what_a_rule_does_not_take():
    tiers = three(words=Bounds(max=0))
    assert chosen(tiers, before(small=SHORT, middle=NEVER), Asked("chat", CHAT), None).decision == "escalated"
    assert chosen(tiers, before(small=SHORT, middle=SHORT), Asked("chat", CHAT), None).decision == "rule"
