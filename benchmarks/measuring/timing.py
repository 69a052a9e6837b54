"""The latencies of one request, from its raw times. `DEFINITIONS` are written into every result."""

from collections.abc import Mapping

from benchmarks.measuring.record import Record

DEFINITIONS: Mapping[str, str] = {
    "scheduled": "When a request was due: by the arrival process in an open loop; when a place became free in a closed one; when the "
    "answer before it had ended, plus the time to think, in a conversation. Latencies run from it unless they stand under from_send.",
    "from_send": "The same figures from the moment the request was handed to the network: what tools that forget the wait in the client "
    "report.",
    "ttft_s": "Seconds to the first piece of output that reached the client. Events without output do not count. Of streams only.",
    "tpot_s": "Seconds from the first to the last piece of output, divided by the output tokens that came after the first piece.",
    "itl_s": "Inter-token latency: the gaps between the pieces of output as they came, over all requests. Tokens that come together are "
    "one piece.",
    "e2e_s": "Seconds to the last piece of output; of an answer not streamed, to its end. Of whole answers only.",
    "output_tokens_per_s": "Output tokens that arrived within the window, divided by its length. Tokens of failed requests that arrived "
    "are counted, as the server made them.",
    "input_tokens_per_s": "Prompt tokens, cached ones included, of the requests whose first output came within the window, divided by its "
    "length.",
    "requests_per_s": "Whole answers, each counted by the share of its time from sending to end that lies in the window, divided by the "
    "window's length.",
    "goodput": "Whole answers within the limits among the requests due in the window: their share of all of those, failed ones included, "
    "and what remains of the rates of requests and output tokens.",
    "window": "The part of the run in which the load was as asked for: ramp and drain left out where the run is long enough, see its "
    "`how`. Latencies are of the requests that were due in it.",
    "tokens": "As the server's usage counts them; where it gives none, by the stream, a piece a token (counted_by says which). "
    "num_mismatches: answers of which the stream told another number than the usage; num_shorter: answers shorter than asked for.",
    "mean_concurrency": "Request-seconds in the window divided by its length: the mean number of requests between sending and end.",
    "percentiles": "Linear between order statistics; null where there are fewer than 1/(1-p) samples. ci: 95 % intervals, of order "
    "statistics for percentiles (an end that the samples do not bound is null), of batch means for the mean, over repeats where there "
    "are some.",
}


def ttft_s(record: Record, *, from_send: bool = False) -> float | None:
    """Time to first token. None where none came, or the answer came as a whole."""
    origin = record.sent_s if from_send else record.scheduled_s
    return record.arrivals_s[0] - origin if record.is_streamed and record.arrivals_s and origin is not None else None


def tpot_s(record: Record) -> float | None:
    """Time per output token after the first. None for fewer than two tokens, or where all came in one piece."""
    if not record.is_streamed or record.num_tokens < 2 or len(record.arrivals_s) < 2:
        return None
    # Tokens that came with the first one were not waited for after it.
    num_first = record.arrival_tokens[0] if record.arrival_tokens else 1
    num_after = record.num_tokens - max(num_first, 1)
    return (record.arrivals_s[-1] - record.arrivals_s[0]) / num_after if num_after > 0 else None


def e2e_s(record: Record, *, from_send: bool = False) -> float | None:
    """Time to the last piece of output, or to the end of an answer that came as a whole."""
    origin = record.sent_s if from_send else record.scheduled_s
    end = record.arrivals_s[-1] if record.arrivals_s else record.ended_s
    return end - origin if record.is_whole and origin is not None and end is not None else None


def itl_s(record: Record) -> list[float]:
    """Inter-token latencies: the gaps between the pieces of output as they came."""
    if not record.is_streamed:
        return []
    return [later - earlier for earlier, later in zip(record.arrivals_s, record.arrivals_s[1:], strict=False)]
