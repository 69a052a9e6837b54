"""`python -m benchmarks.tiny_pair OUT`: OUT/tiny-small, OUT/tiny-large, and OUT/questions.jsonl, which they were not trained on."""

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.tiny_pair.questions import held_out, questions
from benchmarks.tiny_pair.training import SIZES, train

_TRAINING_SEED, _HELD_OUT_SEED = 1, 2


def main() -> int:
    """Train both, one after the other, from the same questions."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_pair", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--num-questions", type=int, default=4000, help="held out from training (default: %(default)s)")
    options = parser.parse_args()
    for name, size in SIZES.items():
        started = time.monotonic()
        loss = train(size, questions(_TRAINING_SEED), options.out / f"tiny-{name}", seed=_TRAINING_SEED)
        print(f"{name}: {size.num_steps} steps, loss {loss:.3f}, {time.monotonic() - started:.0f} s", flush=True)
    num_seen = max(size.num_steps * size.batch_size for size in SIZES.values())
    with (options.out / "questions.jsonl").open("w", encoding="utf-8") as file:
        for number, question in enumerate(held_out(options.num_questions, _TRAINING_SEED, num_seen, _HELD_OUT_SEED)):
            messages = [{"role": "user", "content": question.text}]
            file.write(json.dumps({"id": f"{question.task}-{number}", "messages": messages, "answer": question.answer}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
