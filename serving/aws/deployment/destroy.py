"""A deployment taken away: all that carries its tag, in the order in which nothing needs what is gone, and nothing else."""

from collections.abc import Callable

from serving.aws.deployment.account import Absent, Account
from serving.aws.deployment.artifacts import delete_uploaded
from serving.aws.deployment.description import UPLOADED_TAG
from serving.aws.deployment.inventory import Found, find_all
from serving.aws.deployment.waiting import Waiting
from serving.errors import DeployError


def destroy(name: str, account: Account, waiting: Waiting, tell: Callable[[str], None], *, delete_artifacts: bool) -> int:
    """Number of resources deleted. What is gone already is no failure. Raises DeployError with what is left."""
    present = find_all(account, name)
    uploaded = {found.tags[UPLOADED_TAG] for found in present if UPLOADED_TAG in found.tags}
    for position, found in enumerate(present):
        try:
            _remove(found, account, waiting, tell)
        except DeployError as error:
            left = ", ".join(item.title for item in present[position:])
            raise DeployError(f"{error}. Left behind: {left}; the same command goes on") from error
    for uri in sorted(uploaded):
        if delete_artifacts:
            tell(f"{uri}: {delete_uploaded(account, uri)} objects deleted")
        else:
            tell(f"{uri}: kept (--delete-artifacts deletes what was uploaded)")
    return len(present)


def _remove(found: Found, account: Account, waiting: Waiting, tell: Callable[[str], None]) -> None:
    for call in found.removal:
        try:
            account.send(call)
        except Absent:
            tell(f"{found.title}: was gone already")
        except DeployError:
            if found.find is None:
                raise
            # SageMaker refuses to delete what it is still changing.
            waiting.until_settled(found.title, found.find, found.status)
            account.send(call)
    if found.find is not None:
        waiting.until_gone(found.title, found.find)
    tell(f"{found.title}: deleted")
