"""Objects of S3 to files of a folder: in parts, on several threads, each file verified; what an interrupted call has fetched is kept.

Steps: make the files at full size; fetch the parts that the journal does not list, each straight to its place; when a file is whole,
compare it with S3's checksum. Every part is asked for by ETag, so that no file is made of two versions.
"""

import os
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.engine.interface import Report
from serving.engine.s3_checksums import differs
from serving.engine.s3_client import NUM_CONNECTIONS, Location, told_of
from serving.errors import ModelUnavailable

PHASE = "downloading"
PART_BYTES = 32 * 2**20
JOURNAL = ".parts"
STALL_DEADLINE_S = 120.0
_LEAST_BYTES_PER_S = 1e6
_SLACK_S = 600.0
_LOOK_S = 0.2
_CHUNK_BYTES = 2**20
_NUM_ATTEMPTS = 5
_FIRST_PAUSE_S = 0.5


@dataclass(frozen=True)
class Object:
    """One object: its key, its name below the model's folder, its size, its ETag without quotes."""

    key: str
    name: str
    size_bytes: int
    etag: str


@dataclass(frozen=True)
class _Part:
    object: Object
    start: int
    end: int

    @property
    def line(self) -> str:
        return f"{self.object.etag} {self.start} {self.end} {self.object.name}"


class Download:
    """One download of `objects` of `bucket` to `folder`, which may hold what an earlier one has left there. Use `run` once."""

    def __init__(self, client: Any, bucket: str, objects: Sequence[Object], folder: Path, *, part_bytes: int = PART_BYTES) -> None:
        self._client = client
        self._bucket = bucket
        self._folder = folder
        self._total_bytes = sum(item.size_bytes for item in objects)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        journal = folder / JOURNAL
        lines = journal.read_text(encoding="utf-8").split("\n")[:-1] if journal.exists() else []
        self._journal = journal.open("w", encoding="utf-8")
        self._parts: queue.SimpleQueue[_Part] = queue.SimpleQueue()
        self._open: dict[Object, int] = {}
        self.fetched_bytes = 0
        """Of all that this call and those before it have brought."""
        for item in objects:
            self._plan(item, frozenset(lines), part_bytes)

    def run(self, report: Report, stall_deadline_s: float = STALL_DEADLINE_S) -> None:
        """Fetch what is missing, verify, and take the journal away.

        Raises:
            ModelUnavailable: in one line with the URI.
        """
        give_up = time.monotonic() + _SLACK_S + self._total_bytes / _LEAST_BYTES_PER_S
        # Daemons: a start that is given up must not wait for them.
        threads = [threading.Thread(target=self._work, name=f"s3-{number}", daemon=True) for number in range(NUM_CONNECTIONS)]
        for thread in threads:
            thread.start()
        try:
            self._watch(threads, report, give_up, stall_deadline_s)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(_LOOK_S)
            with self._lock:
                self._journal.close()
        (self._folder / JOURNAL).unlink()

    def _plan(self, item: Object, done: frozenset[str], part_bytes: int) -> None:
        path = self._folder / item.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.stat().st_size != item.size_bytes:
            done = frozenset()
            with path.open("wb") as file:
                file.truncate(item.size_bytes)
        parts = [_Part(item, start, min(start + part_bytes, item.size_bytes)) for start in range(0, item.size_bytes, part_bytes)]
        missing = [part for part in parts if part.line not in done]
        # A file that was whole and not verified yet has its last part fetched once more.
        missing = missing or parts[-1:]
        for part in parts:
            if part not in missing:
                self._note(part)
        self._open[item] = len(missing)
        for part in missing:
            self._parts.put(part)

    def _note(self, part: _Part) -> None:
        self.fetched_bytes += part.end - part.start
        self._journal.write(part.line + "\n")
        self._journal.flush()

    def _watch(self, threads: Sequence[threading.Thread], report: Report, give_up: float, stall_deadline_s: float) -> None:
        seen, moved = -1, time.monotonic()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(_LOOK_S)
            if self._errors:
                raise self._errors[0]
            now, fetched = time.monotonic(), self.fetched_bytes
            if fetched != seen:
                seen, moved = fetched, now
                report(PHASE, min(1.0, fetched / max(1, self._total_bytes)))
            if now - moved > stall_deadline_s or now > give_up:
                why = f"nothing came for {now - moved:.0f} s" if now - moved > stall_deadline_s else "it takes too long"
                raise ModelUnavailable(f"s3://{self._bucket}: the download stopped ({why}): start again, what came is kept")
            if not threads[0].is_alive():
                time.sleep(_LOOK_S / 4)
        if self._errors:
            raise self._errors[0]

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    part = self._parts.get_nowait()
                except queue.Empty:
                    return
                self._fetch(part)
        except BaseException as error:  # told by `run`, on the caller's thread
            self._errors.append(error)
            self._stop.set()

    def _fetch(self, part: _Part) -> None:
        location = Location(self._bucket, part.object.key)
        with told_of(location):
            for attempt in range(_NUM_ATTEMPTS):
                if self._try(part, is_last=attempt == _NUM_ATTEMPTS - 1):
                    break
                self._stop.wait(_FIRST_PAUSE_S * 2**attempt)
        if self._stop.is_set():
            return
        with self._lock:
            self._journal.write(part.line + "\n")
            self._journal.flush()
            self._open[part.object] -= 1
            is_whole = self._open[part.object] == 0
        if is_whole:
            self._verify(part.object, location)

    def _try(self, part: _Part, *, is_last: bool) -> bool:
        """Whether the part has come. If the connection broke in the middle of it another attempt is due, unless this was the last."""
        from botocore import exceptions
        from urllib3.exceptions import HTTPError

        try:
            if self._receive(part) == part.end - part.start or self._stop.is_set():
                return True
            cut: Exception = ConnectionError("the answer ended early")
        except (
            exceptions.HTTPClientError,
            exceptions.ConnectionError,
            exceptions.IncompleteReadError,
            HTTPError,
            ConnectionError,
        ) as error:
            cut = error
        if is_last:
            raise exceptions.HTTPClientError(error=cut) from cut
        return False

    def _receive(self, part: _Part) -> int:
        name, size_bytes = self._folder / part.object.name, part.end - part.start
        answer = self._client.get_object(
            Bucket=self._bucket, Key=part.object.key, Range=f"bytes={part.start}-{part.end - 1}", IfMatch=f'"{part.object.etag}"'
        )
        came = 0
        with answer["Body"] as body, name.open("r+b") as file:
            try:
                file.seek(part.start)
                while not self._stop.is_set() and (chunk := body.read(_CHUNK_BYTES)):
                    file.write(chunk)
                    came += len(chunk)
                    self._count(len(chunk))
                file.flush()
                # The journal must not say more than the disk has.
                os.fdatasync(file.fileno())
            finally:
                if came != size_bytes:
                    self._count(-came)
        return came

    def _count(self, num_bytes: int) -> None:
        with self._lock:
            self.fetched_bytes += num_bytes

    def _verify(self, item: Object, location: Location) -> None:
        with told_of(location):
            head = self._client.head_object(Bucket=self._bucket, Key=item.key, ChecksumMode="ENABLED", IfMatch=f'"{item.etag}"')
            part_bytes = item.size_bytes
            if "-" in item.etag:
                part_bytes = self._client.head_object(Bucket=self._bucket, Key=item.key, PartNumber=1)["ContentLength"]
        if (kind := differs(self._folder / item.name, head, part_bytes)) is not None:
            # Its size is what a next start goes by: all of it is to be fetched again.
            os.truncate(self._folder / item.name, 0)
            raise ModelUnavailable(f"{location}: what came differs from S3's {kind}: start again, and replace the object if that repeats")
