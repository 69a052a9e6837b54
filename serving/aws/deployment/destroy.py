"""A deployment taken away: all that carries its tag, in the order in which nothing needs what is gone, and nothing else."""

from collections.abc import Callable

from serving.aws.deployment.account import Account
from serving.aws.deployment.artifacts import delete_uploaded
from serving.aws.deployment.description import UPLOADED_TAG
from serving.aws.deployment.inventory import Found, find_all
from serving.aws.deployment.waiting import Waiting
from serving.errors import DeployError


def destroy(name: str, account: Account, waiting: Waiting, tell: Callable[[str], None], *, delete_artifacts: bool) -> int:
    """Number of resources deleted. What is gone already is no failure. Raises DeployError with what is left."""
    present = find_all(account, name)
    for position, found in enumerate(present):
        try:
            if UPLOADED_TAG in found.tags:
                # Before the model, whose tag is all that says where they are.
                _settle_artifacts(found.tags[UPLOADED_TAG], account, tell, delete=delete_artifacts)
            _remove(found, account, waiting)
        except DeployError as error:
            left = ", ".join(item.title for item in present[position:])
            raise DeployError(f"{error}. Left behind: {left}; the same command goes on") from error
        tell(f"{found.title}: deleted")
    return len(present)


def _settle_artifacts(uri: str, account: Account, tell: Callable[[str], None], *, delete: bool) -> None:
    if delete:
        tell(f"{uri}: {delete_uploaded(account, uri)} objects deleted")
    else:
        tell(f"{uri}: kept (--delete-artifacts deletes what was uploaded)")


def _remove(found: Found, account: Account, waiting: Waiting) -> None:
    try:
        account.attempt(found.removal)
    except DeployError:
        if found.find is None:
            raise
        # SageMaker refuses to delete what it is still changing.
        waiting.until_settled(found.title, found.find, found.status)
        account.attempt(found.removal)
    if found.find is not None:
        waiting.until_gone(found.title, found.find)
