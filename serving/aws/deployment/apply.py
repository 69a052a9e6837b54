"""A deployment brought about: what is missing is made, what differs is changed, what is as it should be is left alone.

Each resource is looked at first, so a run that was interrupted goes on where it stopped, and a second one changes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serving.aws.deployment.account import Account
from serving.aws.deployment.description import TAG, Call, Deployment, Exactly, Reference, Resource
from serving.aws.deployment.inventory import find_attached, tags_of
from serving.aws.deployment.waiting import Waiting, state_of
from serving.errors import DeployError

_FAILED = "Failed"
"""Of the failed states the one after which SageMaker and Lambda allow nothing but deletion."""
_NAMED = frozenset({"endpoint", "inference-component", "alarm", "function", "role"})
"""Kinds that have the user's own name, or one made of it, which somebody else may have taken before."""
_SCALING = frozenset({"scalable-target", "scaling-policy", "alarm"})
"""Kinds that an update may take away before it, or that refer to these."""


class JobOver(DeployError):
    """A job failed, or was stopped. SageMaker keeps jobs and their names for good, so the same one cannot run again."""


@dataclass(frozen=True)
class Applied:
    """`found` is what is known of each resource, by title."""

    num_changes: int
    found: Mapping[str, Mapping[str, Any]]


def apply(
    deployment: Deployment, account: Account, waiting: Waiting, tell: Callable[[str], None], *, before: Sequence[str] = ()
) -> Applied:
    """`before`: what was made for it already. Raises DeployError: what failed, why, and what is left behind."""
    run = _Run(deployment, account, waiting, tell)
    try:
        run.prune()
        for resource in deployment.resources:
            run.bring(resource)
    except DeployError as error:
        told = f"{error}{run.put_back()}"
        left = ", ".join([*before, *run.found]) or "nothing"
        goes_on = "" if isinstance(error, JobOver) else "the same command goes on, "
        raise DeployError(f"{told}. There are: {left}; {goes_on}`tokenport deploy destroy {deployment.name}` takes all away") from error
    return Applied(run.num_changes, run.found)


def agrees(expected: Any, found: Any) -> bool:
    """Whether `found` shows all that is expected. The order of a list does not matter, nor what else is found, but in an `Exactly`."""
    if isinstance(expected, Exactly):
        return bool(expected.value == found)
    if isinstance(expected, Mapping):
        return isinstance(found, Mapping) and all(name in found and agrees(value, found[name]) for name, value in expected.items())
    if isinstance(expected, list):
        is_as_long = isinstance(found, list) and len(expected) == len(found)
        return is_as_long and all(any(agrees(item, other) for other in found) for item in expected)
    return bool(expected == found)


class _Run:
    def __init__(self, deployment: Deployment, account: Account, waiting: Waiting, tell: Callable[[str], None]) -> None:
        self._deployment = deployment
        self._account = account
        self._waiting = waiting
        self._tell = tell
        self._is_scaling_away = False
        self.found: dict[str, Mapping[str, Any]] = {}
        self.num_changes = 0

    def prune(self) -> None:
        """Take away the scaling and the alarms that an earlier run made and this one does not ask for. Older models and endpoint
        configurations stay: they cost nothing."""
        wanted = {resource.title for resource in self._deployment.resources}
        for endpoint in self._deployment.resources:
            if endpoint.kind != "endpoint" or (found := self._account.look(endpoint.find)) is None:
                continue
            self._refuse_foreign(endpoint, found)
            for present in find_attached(self._account, endpoint.name):
                if present.title not in wanted:
                    self._account.attempt(present.removal)
                    self._changed(f"{present.title}: no longer asked for, deleted")

    def bring(self, resource: Resource) -> None:
        """Make or change it, and wait until it is ready."""
        resource = self._resolved(resource)
        found = self._waiting.until_settled(resource.title, resource.find, resource.status)
        if found is not None:
            self.found[resource.title] = found
            self._refuse_foreign(resource, found)
            if state_of(found, resource.status) == _FAILED and resource.remove is not None:
                self._changed(f"{resource.title}: had failed ({_reason(resource, found)}), is made anew")
                self._account.attempt(resource.remove)
                self._waiting.until_gone(resource.title, resource.find)
                found = None
        if found is None:
            if resource.create is None:
                raise DeployError(f"{resource.title} is not there, though what it belongs to is")
            answer = self._waiting.send_with_new_role(resource.create)
            self._changed(f"{resource.title}: created")
            self.found[resource.title] = resource.find.part(answer) or answer
        elif agrees(resource.expected, found):
            self._refuse_failed(resource, found)
            self._tell(f"{resource.title}: as it should be")
            return
        else:
            self._update(resource)
        self._see_ready(resource)
        self._is_scaling_away = self._is_scaling_away and resource.before_update is None

    def put_back(self) -> str:
        """After a failed update: what had to go for it comes back, so that what runs on also scales. What became of that, to be told."""
        if not self._is_scaling_away:
            return ""
        try:
            for resource in self._deployment.resources:
                if resource.kind in _SCALING:
                    self.bring(resource)
        except DeployError as error:
            return f"; its scaling is not back: {error}"
        return "; its scaling is back"

    def _update(self, resource: Resource) -> None:
        if resource.update is None:
            raise DeployError(f"{resource.title} is there with other contents than its name tells, and cannot be changed")
        if resource.before_update is not None:
            self._account.attempt(resource.before_update)
            self._is_scaling_away = True
        self._waiting.send_with_new_role(resource.update)
        self._changed(f"{resource.title}: changed")

    def _see_ready(self, resource: Resource) -> None:
        if resource.status is None:
            return
        found = self._waiting.until_settled_again(resource.title, resource.find, resource.status)
        if found is None:
            raise DeployError(f"{resource.title} is gone while it was waited for")
        self.found[resource.title] = found
        self._refuse_failed(resource, found)
        if not agrees(resource.expected, found):
            raise DeployError(f"{resource.title}: the update was rolled back ({_reason(resource, found)}); what ran before runs on")

    def _refuse_failed(self, resource: Resource, found: Mapping[str, Any]) -> None:
        if resource.status is None or (state := state_of(found, resource.status)) not in resource.status.failed:
            return
        told = f"{resource.title}: {state}: {_reason(resource, found)}"
        if resource.kind == "transform-job":
            raise JobOver(f"{told}; other words, such as another --batch-output, make another job")
        raise DeployError(told)

    def _refuse_foreign(self, resource: Resource, found: Mapping[str, Any]) -> None:
        if resource.kind in _NAMED and tags_of(self._account, resource.kind, found).get(TAG) != self._deployment.name:
            raise DeployError(f"there is already one that this deployment did not make: {resource.title}; choose another --name")

    def _changed(self, line: str) -> None:
        self.num_changes += 1
        self._tell(line)

    def _resolved(self, resource: Resource) -> Resource:
        def of(call: Call | None) -> Call | None:
            return None if call is None else replace(call, parameters=_with_references(call.parameters, self.found))

        expected = _with_references(resource.expected, self.found)
        return replace(resource, create=of(resource.create), update=of(resource.update), expected=expected)


def _reason(resource: Resource, found: Mapping[str, Any]) -> str:
    reason = found.get(resource.status.reason_field, "") if resource.status else ""
    return " ".join(str(reason).split()) or "AWS gives no reason; see the container's log in CloudWatch"


def _with_references(value: Any, found: Mapping[str, Mapping[str, Any]]) -> Any:
    if isinstance(value, Reference):
        return found[value.title][value.field]
    if isinstance(value, Mapping):
        return {name: _with_references(item, found) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_references(item, found) for item in value]
    return value
