"""A small and a less small model, trained here in minutes on questions with one right answer: something real to try a cascade on.

`python -m benchmarks.tiny_pair OUT` writes both, and questions held out from training. What they show is that the mechanism works, with
true log-probabilities and streams; it says nothing of what a cascade saves on other models.
"""
