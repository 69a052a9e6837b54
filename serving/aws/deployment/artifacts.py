"""A model folder in S3: uploaded once under a prefix that names its contents, and deleted only by the list that the upload left.

The list lies beside the folder, since SageMaker would place it among the model's files; it is written last, and says that all is there.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from serving.aws.deployment.account import Absent, Account
from serving.aws.deployment.description import Call
from serving.errors import DeployError

_LIST_SUFFIX = ".uploaded.json"
_NUM_HASH_DIGITS = 16
_BLOCK_BYTES = 1 << 20
_MAX_DELETED_AT_ONCE = 1000
"""https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html"""


@dataclass(frozen=True)
class Upload:
    """`files` by the key that each gets; `sums` are their SHA-256. `uri` is the prefix, with its slash."""

    bucket: str
    prefix: str
    files: Mapping[str, Path]
    sums: Mapping[str, str]

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def list_key(self) -> str:
        return self.prefix.rstrip("/") + _LIST_SUFFIX

    def calls(self) -> list[Call]:
        """As the dry run shows them; boto3 splits what is large."""
        keys = [*self.files, self.list_key]
        return [Call("s3", "PutObject", {"Bucket": self.bucket, "Key": key}) for key in keys]


def plan_upload(folder: Path, target: str, name: str) -> Upload:
    """Reads every file once. Raises DeployError: no model folder, a file that cannot be read, or no S3 location."""
    if not (folder / "config.json").is_file():
        raise DeployError(f"--model {folder} is neither an s3:// location nor a model folder: there is no config.json in it")
    bucket, prefix = split_uri("--upload", target)
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    try:
        sums = {relative: _sha256(path) for relative, path in paths.items()}
    except OSError as error:
        raise DeployError(f"--model {folder} cannot be read: {error}") from error
    contents = hashlib.sha256("".join(f"{sha}  {relative}\n" for relative, sha in sums.items()).encode()).hexdigest()
    # The deployment's name is in it, so that no other deployment's model is deleted with this one's.
    root = "/".join(part for part in (prefix.rstrip("/"), name, contents[:_NUM_HASH_DIGITS]) if part) + "/"
    files = {root + relative: path for relative, path in paths.items()}
    return Upload(bucket, root, files, {root + relative: sha for relative, sha in sums.items()})


def carry_out(upload: Upload, account: Account, tell: Callable[[str], None]) -> int:
    """Number of files sent: none if an earlier upload finished, only what is missing if it did not."""
    if _read_list(account, upload.bucket, upload.list_key) is not None:
        tell(f"{upload.uri}: as it should be")
        return 0
    num_sent = 0
    for key, path in upload.files.items():
        if not _is_there(account, upload, key):
            account.send_file(path, upload.bucket, key, {"sha256": upload.sums[key]})
            num_sent += 1
            tell(f"{upload.uri}: {num_sent} files sent, {path.name} is there")
    body = json.dumps({"objects": sorted(upload.files)}).encode()
    account.send(Call("s3", "PutObject", {"Bucket": upload.bucket, "Key": upload.list_key, "Body": body}))
    return num_sent


def delete_uploaded(account: Account, uri: str) -> int:
    """Number of objects deleted under `uri`, an `Upload.uri`: those in its list, and the list."""
    bucket, prefix = split_uri("the tag of the model", uri)
    list_key = prefix.rstrip("/") + _LIST_SUFFIX
    listed = _read_list(account, bucket, list_key)
    if listed is None:
        return 0
    for start in range(0, len(listed), _MAX_DELETED_AT_ONCE):
        objects = [{"Key": key} for key in listed[start : start + _MAX_DELETED_AT_ONCE]]
        answer = account.send(Call("s3", "DeleteObjects", {"Bucket": bucket, "Delete": {"Objects": objects, "Quiet": True}}))
        if errors := answer.get("Errors"):
            raise DeployError(f"{len(errors)} objects of {uri} are left: S3 answers {errors[0].get('Code')} for {errors[0].get('Key')}")
    # The list last: what was not deleted is found again.
    account.send(Call("s3", "DeleteObject", {"Bucket": bucket, "Key": list_key}))
    return len(listed) + 1


def split_uri(option: str, uri: str) -> tuple[str, str]:
    """Bucket and key of an S3 location. Raises DeployError naming the option that it came by."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise DeployError(f"{option} {uri!r} is no S3 location: s3://bucket/prefix is")
    return bucket, key


def _read_list(account: Account, bucket: str, key: str) -> list[str] | None:
    try:
        answer = account.send(Call("s3", "GetObject", {"Bucket": bucket, "Key": key}))
    except Absent:
        return None
    objects: list[str] = json.loads(answer["Body"].read())["objects"]
    # Whatever became of the list, nothing but the folder's own objects is deleted by it.
    prefix = key.removesuffix(_LIST_SUFFIX) + "/"
    return [name for name in objects if name.startswith(prefix)]


def _is_there(account: Account, upload: Upload, key: str) -> bool:
    found = account.attempt(Call("s3", "HeadObject", {"Bucket": upload.bucket, "Key": key}))
    return found is not None and found.get("Metadata", {}).get("sha256") == upload.sums[key]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
