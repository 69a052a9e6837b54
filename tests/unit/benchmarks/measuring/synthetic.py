"""Records made up by rule, of which every metric is known."""

from benchmarks.measuring.record import Record


def stream(
    number: int,
    scheduled_s: float,
    *,
    ttft_s: float = 0.1,
    gap_s: float = 0.02,
    num_tokens: int = 11,
    late_s: float = 0.0,
    per_piece: int = 1,
    says_pieces: bool = False,
) -> Record:
    """A whole answer, sent `late_s` after its time, in pieces of `per_piece` tokens."""
    sent_s = scheduled_s + late_s
    arrivals = [sent_s + ttft_s + gap_s * place for place in range(-(-num_tokens // per_piece))]
    return Record(
        number=number,
        scheduled_s=scheduled_s,
        max_tokens=num_tokens,
        sent_s=sent_s,
        arrivals_s=arrivals,
        arrival_tokens=[per_piece] * len(arrivals) if says_pieces else None,
        ended_s=arrivals[-1],
        prompt_tokens=50,
        output_tokens=num_tokens,
        finish_reason="length",
        status=200,
    )


def failure(number: int, scheduled_s: float, kind: str = "refused") -> Record:
    """A request that got nothing."""
    return Record(number, scheduled_s, 11, sent_s=scheduled_s, ended_s=scheduled_s + 0.01, error=f"{kind}!", error_kind=kind, status=429)


def closed_loop(num_waves: int, concurrency: int, *, answer_s: float = 0.3) -> list[Record]:
    """Waves of answers that take 0.1 + 10 x 0.02 s each, one wave after the other."""
    return [stream(wave * concurrency + place, wave * answer_s) for wave in range(num_waves) for place in range(concurrency)]
