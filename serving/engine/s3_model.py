"""A model below an S3 prefix, or in an archive that is one object, as a folder of the cache.

Steps: list; choose what is needed; look at the disk; download into a folder named by the objects' ETags; put it into place. A prefix that
has not changed is not downloaded again, and where S3 cannot be reached the copy that came last is taken.
"""

import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from serving.engine.cache_folder import check_space, make_once, megabytes, slug
from serving.engine.interface import Report
from serving.engine.s3_client import Location, Unreachable, make_client, told_of
from serving.engine.s3_download import PHASE, Download, Object
from serving.engine.s3_files import INDEX, PICKLE_FORMATS, PICKLES, needed, shards_only
from serving.errors import ModelUnavailable

logger = logging.getLogger("tokenport.engine")

_MAX_OBJECTS = 20_000
_MAX_INDEX_BYTES = 100_000_000
_NUM_SHOWN = 5
Choose = Callable[[Any, Location, list[Object]], list[Object]]


def fetch_folder(location: Location, cache_dir: Path, report: Report, *, load_format: str, with_code: bool, with_weights: bool) -> Path:
    """The folder with the model's files; with `with_weights` false all but the weights. See `s3_files.needed`.

    Raises:
        ModelUnavailable: in one line that names the URI.
    """

    def choose(client: Any, location: Location, found: list[Object]) -> list[Object]:
        return _choose(client, location, found, load_format, with_code=with_code, with_weights=with_weights)

    kind = f"{load_format} {with_code} {with_weights}"
    return _fetch(location, cache_dir, report, kind, lambda client: choose(client, location, _list(client, location)))


def fetch_archive(location: Location, cache_dir: Path, report: Report) -> Path:
    """The object, as the one file of a folder.

    Raises:
        ModelUnavailable: in one line that names the URI.
    """
    folder = _fetch(location, cache_dir, report, "archive", lambda client: [_head(client, location)])
    return folder / location.name


def _fetch(location: Location, cache_dir: Path, report: Report, kind: str, find: Callable[[Any], list[Object]]) -> Path:
    report("looking into S3", None)
    place = cache_dir.absolute() / "models" / f"s3-{slug(location.name)}-{_short_hash(str(location), kind)}"
    client = make_client()
    try:
        with told_of(location):
            objects = find(client)
        version = _short_hash(*(f"{item.name} {item.etag} {item.size_bytes}" for item in sorted(objects, key=lambda item: item.name)))
        return make_once(place / version, _fill(client, location, objects, report), report, resumable=True)
    except Unreachable as error:
        if (copy := _last_copy(place)) is None:
            raise
        logger.warning("%s: the copy in the cache is served, which may be out of date", error)
        return copy
    finally:
        client.close()


def _fill(client: Any, location: Location, objects: list[Object], report: Report) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        there_bytes = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
        total_bytes = sum(item.size_bytes for item in objects)
        check_space(folder, max(0, total_bytes - there_bytes), str(location))
        logger.info("downloading", extra={"uri": str(location), "files": len(objects), "size": megabytes(total_bytes)})
        report(PHASE, 0.0)
        Download(client, location.bucket, objects, folder).run(report)

    return fill


def _last_copy(place: Path) -> Path | None:
    copies = [path for path in place.glob("*") if not path.name.startswith(".")]
    return max(copies, key=lambda path: path.stat().st_mtime, default=None)


def _list(client: Any, location: Location) -> list[Object]:
    """Every object below the prefix, but for the empty ones that stand for folders."""
    prefix = f"{location.key}/" if location.key else ""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=prefix)
    entries = itertools.chain.from_iterable(page.get("Contents", ()) for page in pages)
    found = [
        Object(entry["Key"], entry["Key"].removeprefix(prefix), entry["Size"], entry["ETag"].strip('"'))
        for entry in itertools.islice(entries, _MAX_OBJECTS)
        if not entry["Key"].endswith("/")
    ]
    if len(found) == _MAX_OBJECTS:
        raise ModelUnavailable(f"{location} holds {_MAX_OBJECTS} objects or more: name the prefix of one model")
    if not found:
        raise ModelUnavailable(f"{location}: there is nothing below this prefix: check bucket, prefix and region")
    return found


def _head(client: Any, location: Location) -> Object:
    head = client.head_object(Bucket=location.bucket, Key=location.key)
    return Object(location.key, location.name, head["ContentLength"], head["ETag"].strip('"'))


def _choose(client: Any, location: Location, found: list[Object], load_format: str, *, with_code: bool, with_weights: bool) -> list[Object]:
    by_name = {item.name: item for item in found}
    if "config.json" not in by_name:
        raise ModelUnavailable(f"{location} holds no model: no config.json in it (found: {_listed(by_name)})")
    names = needed(by_name, load_format, with_code=with_code, with_weights=with_weights)
    pickles = [name for name in by_name if name.endswith(PICKLES)]
    if with_weights and not any(name.endswith((".safetensors", *PICKLES)) for name in names) and load_format != "dummy":
        if pickles and load_format not in PICKLE_FORMATS:
            told = f"{location} has its weights as pickles only ({_listed(pickles)}), which can run code"
            raise ModelUnavailable(f"{told}: upload them as safetensors, or ask for them with --load-format pt")
        raise ModelUnavailable(f"{location} has no weights: no *.safetensors in it (found: {_listed(by_name)})")
    if INDEX in names and load_format not in PICKLE_FORMATS:
        names = shards_only(names, _indexed(client, location, by_name[INDEX]))
    return [by_name[name] for name in names]


def _indexed(client: Any, location: Location, index: Object) -> list[str]:
    """The shards that the index names."""
    told = f"{location}/{INDEX} is no index of safetensors: upload the model anew"
    if index.size_bytes > _MAX_INDEX_BYTES:
        raise ModelUnavailable(told)
    try:
        content = json.loads(client.get_object(Bucket=location.bucket, Key=index.key)["Body"].read())
        return sorted({str(name) for name in content["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelUnavailable(told) from error


def _listed(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:_NUM_SHOWN]) + (f" and {len(shown) - _NUM_SHOWN} more" if len(shown) > _NUM_SHOWN else "")


def _short_hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
