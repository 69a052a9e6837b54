import pytest

from serving.engine.work import Ticket, Work


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def work(clock: Clock) -> Work:
    return Work(clock)


def begin(work: Work, num_prompt_tokens: int = 10, max_tokens: int = 20) -> Ticket:
    return work.begin(num_prompt_tokens, max_tokens, lambda: None)


def test_without_work_there_is_no_standstill(work, clock):
    clock.now += 1000
    assert work.standstill_s() == 0


def test_work_without_a_step_is_a_standstill_from_its_begin(work, clock):
    clock.now += 1000
    begin(work)
    clock.now += 7
    begin(work)
    clock.now += 1
    assert work.standstill_s() == pytest.approx(8)


def test_a_step_without_a_token_is_progress(work, clock):
    begin(work)
    clock.now += 7
    work.step(0)
    clock.now += 2
    assert work.standstill_s() == pytest.approx(2)


def test_a_client_that_gives_up_does_not_end_a_standstill_and_a_step_does(work, clock):
    ticket = begin(work)
    clock.now += 7
    work.end(ticket)
    assert work.standstill_s() == pytest.approx(7)
    begin(work)
    clock.now += 1
    assert work.standstill_s() == pytest.approx(8)
    work.step(1)
    assert work.standstill_s() == 0


def test_the_rate_is_of_busy_time_only(work, clock):
    assert work.tokens_per_s is None
    ticket = begin(work)
    for _ in range(10):
        clock.now += 1
        work.step(50)
    assert work.tokens_per_s == pytest.approx(50)
    work.end(ticket)
    work.step(0)
    clock.now += 10_000
    begin(work)
    clock.now += 1
    work.step(50)
    assert work.tokens_per_s == pytest.approx(50)


def test_the_rate_forgets(work, clock):
    begin(work)
    for _ in range(100):
        clock.now += 1
        work.step(10)
    for _ in range(200):
        clock.now += 1
        work.step(100)
    assert work.tokens_per_s == pytest.approx(100, rel=0.01)


def test_a_limit_on_tokens_that_is_never_reached_counts_as_the_usual_length(work):
    begin(work, num_prompt_tokens=100, max_tokens=100_000)
    first_guess = work.num_tokens - 100
    assert first_guess < 1000
    for _ in range(100):
        ticket = begin(work)
        ticket.num_generated = 20
        work.end(ticket)
    assert work.num_tokens == pytest.approx(100 + 20, rel=0.01)


def test_an_answer_longer_than_usual_is_expected_to_go_on(work):
    ticket = begin(work, num_prompt_tokens=100, max_tokens=5000)
    ticket.num_generated = 2000
    assert work.num_tokens == 2000
    ticket.num_generated = 4000
    assert work.num_tokens == 1000


def test_a_cut_reaches_every_ticket_and_the_first_reason_stands(work):
    aborted = []
    tickets = [work.begin(1, 1, lambda number=number: aborted.append(number)) for number in range(3)]
    tickets[0].cut("deadline")
    work.cut_all("shutdown")
    assert sorted(aborted) == [0, 0, 1, 2]
    assert [ticket.ended_by for ticket in tickets] == ["deadline", "shutdown", "shutdown"]


def test_what_was_cut_short_says_nothing_of_the_usual_length(work):
    before = work._expected(Ticket(0, 10**6, lambda: None))
    ticket = begin(work)
    ticket.num_generated = 1
    ticket.cut("deadline")
    work.end(ticket)
    assert work._expected(Ticket(0, 10**6, lambda: None)) == before
