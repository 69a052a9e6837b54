"""Who counts tokens: a folder's tokenizer, the server's routes, or an estimate."""

import json

import pytest

from benchmarks.load.tokenizers import EstimatingTokenizer, LocalTokenizer, ServerTokenizer, find_tokenizer, http_post
from serving.errors import BenchmarkError

HELLO = ({"role": "user", "content": "Hello, Alice."},)


def posts_of(tokenizer):
    """What vLLM's routes answer, for a tokenizer of ours, and a list of the bodies they were sent."""
    bodies = []

    def post(path, body):
        bodies.append((path, body))
        if path == "/detokenize":
            return {"prompt": tokenizer.decode(body["tokens"])}
        tokens = [0] * tokenizer.count_chat(body["messages"]) if "messages" in body else tokenizer.encode(body["prompt"])
        return {"tokens": tokens, "count": len(tokens), "max_model_len": 2048}

    return post, bodies


def test_the_servers_routes_are_asked(tokenizer):
    post, bodies = posts_of(tokenizer)
    server = ServerTokenizer(post, "m")
    ids = server.encode("Down the hole")
    assert ids == tokenizer.encode("Down the hole")
    assert server.decode(ids) == "Down the hole"
    assert server.count_chat(HELLO) == tokenizer.count_chat(HELLO)
    assert bodies == [
        ("/tokenize", {"model": "m", "prompt": "Down the hole"}),
        ("/detokenize", {"model": "m", "tokens": ids}),
        ("/tokenize", {"model": "m", "messages": list(HELLO)}),
    ]


def test_a_chat_is_counted_with_its_template_and_the_answers_opening(tokenizer):
    rendered = "<s>user\nHello, Alice.</s>\n<s>assistant\n"
    assert tokenizer.count_chat(HELLO) == len(tokenizer.encode(rendered))


def test_a_template_may_lie_in_a_file_of_its_own(tokenizer_folder, tmp_path):
    (tmp_path / "tokenizer.json").write_text((tokenizer_folder / "tokenizer.json").read_text())
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert LocalTokenizer(tmp_path).count_chat(HELLO) == len(LocalTokenizer(tmp_path).encode("Hello, Alice."))


def test_tags_for_training_are_passed_over(tokenizer_folder, tmp_path):
    (tmp_path / "tokenizer.json").write_text((tokenizer_folder / "tokenizer.json").read_text())
    (tmp_path / "chat_template.jinja").write_text("{% generation %}{{ messages[0].content }}{%- endgeneration -%}")
    assert LocalTokenizer(tmp_path).count_chat(HELLO) == len(LocalTokenizer(tmp_path).encode("Hello, Alice."))


def test_without_a_template_chat_is_not_counted(bos_tokenizer):
    assert bos_tokenizer.count_chat(HELLO) is None


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% if %}", "its chat template cannot be read"),
        ("{{ raise_exception('no users here') }}", "its chat template cannot be rendered: no users here"),
        ("{{ messages.__class__.__mro__ }}", "its chat template cannot be rendered"),
    ],
)
def test_a_template_that_fails_is_told(tokenizer_folder, tmp_path, template, told):
    (tmp_path / "tokenizer.json").write_text((tokenizer_folder / "tokenizer.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(BenchmarkError) as error:
        LocalTokenizer(tmp_path).count_chat(HELLO)
    assert told in str(error.value)


def test_a_folder_without_a_tokenizer_is_told(tmp_path):
    with pytest.raises(BenchmarkError, match=r"--tokenizer .*: must be a folder with a tokenizer.json"):
        LocalTokenizer(tmp_path)


def test_an_estimate_gives_text_back_as_it_was():
    estimate = EstimatingTokenizer()
    ids = estimate.encode("Down the rabbit-hole")
    assert len(ids) == 5
    assert estimate.decode(ids) == "Down the rabbit-hole"
    assert estimate.count_chat(HELLO) is None


def test_the_folder_comes_before_the_server_and_the_server_before_the_estimate(tokenizer, tokenizer_folder):
    post, _ = posts_of(tokenizer)

    def refuse(path, body):
        raise BenchmarkError("404")

    def answer_otherwise(path, body):
        return {"result": []}

    assert isinstance(find_tokenizer(tokenizer_folder, post, None), LocalTokenizer)
    assert isinstance(find_tokenizer(None, post, None), ServerTokenizer)
    assert isinstance(find_tokenizer(None, refuse, None), EstimatingTokenizer)
    assert isinstance(find_tokenizer(None, answer_otherwise, None), EstimatingTokenizer)
    assert isinstance(find_tokenizer(None, None, None), EstimatingTokenizer)


def test_a_server_that_is_not_there_is_told():
    with pytest.raises(BenchmarkError, match=r"http://127\.0\.0\.1:9/tokenize: .*--tokenizer DIR"):
        http_post("http://127.0.0.1:9/v1/", timeout_s=5)("/tokenize", {})
