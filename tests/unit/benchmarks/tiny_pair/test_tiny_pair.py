"""The tiny pair: questions that can be graded, never seen in training, and a folder that Transformers loads."""

from itertools import islice

import pytest

from benchmarks.tiny_pair.questions import LETTERS, held_out, questions

RIGHT = {
    "copy": str,
    "sort": lambda letters: "".join(sorted(letters)),
    "add": lambda numbers: str(sum(map(int, numbers.split("+")))),
}


def test_every_answer_is_right():
    for question in islice(questions(3), 500):
        task, asked = question.text.split(" ")
        assert question.answer == RIGHT[task](asked)
        assert question.task == task
        assert set(question.text + question.answer) <= set(LETTERS)


def test_the_same_seed_asks_the_same():
    assert list(islice(questions(3), 50)) == list(islice(questions(3), 50)) != list(islice(questions(4), 50))


def test_what_is_held_out_was_not_trained_on_and_is_there_once():
    seen = {question.text for question in islice(questions(1), 20_000)}
    found = [question.text for question in held_out(300, 1, 20_000, 2)]
    assert len(found) == len(set(found)) == 300
    assert not seen & set(found)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from benchmarks.tiny_pair.training import Size, train

    folder = tmp_path_factory.mktemp("tiny")
    losses = [
        train(Size(hidden_size=32, num_layers=1, num_steps=steps, batch_size=32), questions(1), folder / str(steps), seed=1)
        for steps in (1, 60)
    ]
    return folder / "60", losses


def test_training_lowers_the_loss(trained):
    _, (untrained, after) = trained
    assert after < 0.9 * untrained


def test_the_folder_answers_through_its_own_template(trained):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, _ = trained
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "add 1+2"}], tokenize=False)
    assert asked == "add 1+2="
    tokens = tokenizer(asked, return_tensors="pt").input_ids
    assert tokens.shape == (1, len(asked))
    assert tokenizer.decode(tokens[0]) == asked
    answer = AutoModelForCausalLM.from_pretrained(folder).generate(tokens, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > tokens.shape[1]
