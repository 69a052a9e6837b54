"""Real LoRA adapters, with random weights, on the real engine: loaded, chosen, evicted and removed while the server goes on serving."""

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.conftest import MODEL, Server, start_server

pytestmark = pytest.mark.engine

NUM_LAYERS = 30
HIDDEN, KEYS, INTERMEDIATE = 576, 192, 1536
MODULES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, KEYS),
    "self_attn.v_proj": (HIDDEN, KEYS),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (HIDDEN, INTERMEDIATE),
    "mlp.up_proj": (HIDDEN, INTERMEDIATE),
    "mlp.down_proj": (INTERMEDIATE, HIDDEN),
}
HEADER = "X-Amzn-SageMaker-Adapter-Identifier"
PLACES = 2
MAX_RANK = 8
PROMPT = "The capital of France is"


def make_adapter(
    folder: Path,
    seed: int,
    *,
    rank: int = MAX_RANK,
    modules: tuple[str, ...] = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"),
    num_layers: int = NUM_LAYERS,
    hidden: int = HIDDEN,
    config: dict | None = None,
) -> Path:
    """An adapter in PEFT's format whose weights are large enough to change every answer."""
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(num_layers):
        for module in modules:
            num_in, num_out = MODULES.get(module, (HIDDEN, HIDDEN))
            num_in = hidden if num_in == HIDDEN else num_in
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = (random.standard_normal((rank, num_in)) / num_in**0.5).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = (random.standard_normal((num_out, rank)) / 2).astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    targets = [module.rpartition(".")[2] for module in modules]
    whole = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": targets, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(whole | (config or {})))
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def lora_server(root: Path, tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[Server]:
    settings = {
        "SAGEMAKER_MAX_NUMBER_OF_ADAPTERS_IN_MEMORY": str(PLACES),
        "TOKENPORT_MAX_LORA_RANK": str(MAX_RANK),
        "TOKENPORT_ADAPTER_ROOTS": str(root),
        # Texts are compared between requests alone and together: in 16 bits the size of a batch tips the scales between near words.
        "TOKENPORT_DTYPE": "float32",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "true",
    }
    with start_server(tmp_path_factory.mktemp("lora-server"), cache_dir, **settings) as server:
        yield server


@pytest.fixture
def http(lora_server: Server) -> Iterator[httpx.Client]:
    """No adapter is registered before or after a test."""
    with httpx.Client(base_url=lora_server.url, timeout=120) as client:
        yield client
        for adapter in client.get("/adapters").json()["adapters"]:
            client.delete(f"/adapters/{adapter['name']}")


@pytest.fixture(scope="module")
def folders(root: Path) -> dict[str, Path]:
    return {name: make_adapter(root / name, seed) for seed, name in enumerate(("one", "two", "three"))}


def register(http: httpx.Client, name: str, src: Path, **more) -> httpx.Response:
    return http.post("/adapters", json={"name": name, "src": str(src), **more})


def ask(http: httpx.Client, model: str | None = None, headers: dict | None = None, num_tokens: int = 6) -> str:
    body = {"prompt": PROMPT, "max_tokens": num_tokens, "temperature": 0, "ignore_eos": True}
    answer = http.post("/invocations", json=body | ({"model": model} if model else {}), headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def shown(http: httpx.Client) -> dict[str, dict]:
    return {adapter["name"]: adapter for adapter in http.get("/adapters").json()["adapters"]}


def loaded(http: httpx.Client) -> set[str]:
    return {name for name, adapter in shown(http).items() if adapter["loaded"]}


def test_an_adapter_changes_the_answer_and_leaves_the_base_models_alone(http, folders):
    base = ask(http)
    answer = register(http, "one", folders["one"])
    assert (answer.status_code, answer.text) == (200, "Adapter one registered")
    adapted = ask(http, "one")
    assert adapted != base
    assert ask(http) == base
    assert ask(http, MODEL) == base
    assert ask(http, "one") == adapted
    answer = http.delete("/adapters/one")
    assert (answer.status_code, answer.text) == (200, "Adapter one unregistered")
    assert ask(http) == base


def test_every_road_to_an_adapter_gives_the_same_answer(http, folders):
    register(http, "one", folders["one"])
    register(http, "two", folders["two"])
    by_model = ask(http, "two")
    assert by_model not in (ask(http), ask(http, "one"))
    header = {HEADER: "two"}
    completion = {"prompt": PROMPT, "max_tokens": 6, "temperature": 0, "ignore_eos": True}
    assert ask(http, headers=header) == by_model
    assert ask(http, "two", header) == by_model
    assert http.post("/v1/completions", json={"model": "two", **completion}).json()["choices"][0]["text"] == by_model
    answer = http.post("/v1/completions", json=completion, headers=header).json()
    assert (answer["choices"][0]["text"], answer["model"]) == (by_model, "two")
    parameters = {"max_new_tokens": 6, "ignore_eos": True}
    for body, headers in (
        ({"inputs": PROMPT, "parameters": {"adapter_id": "two", **parameters}}, {}),
        ({"inputs": PROMPT, "parameters": parameters}, header),
        ({"inputs": PROMPT, "parameters": {"adapter_id": "two", **parameters}}, header),
    ):
        assert http.post("/invocations", json=body, headers=headers).json()["generated_text"] == by_model
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "temperature": 0}
    chosen = [http.post(path, json=chat, headers=header).json() for path in ("/invocations", "/v1/chat/completions")]
    assert {answer["model"] for answer in chosen} == {"two"}
    assert len({answer["choices"][0]["message"]["content"] for answer in chosen}) == 1


@pytest.mark.parametrize("path", ["/invocations", "/v1/completions"])
def test_header_and_model_that_differ_are_refused_on_every_route(http, folders, path):
    register(http, "one", folders["one"])
    answer = http.post(path, json={"prompt": PROMPT, "model": MODEL}, headers={HEADER: "one"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model"
    assert "'one'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/invocations", "/v1/completions"])
@pytest.mark.parametrize("how", ["header", "model"])
def test_an_unknown_adapter_is_a_404_that_lists_the_names_there_are(http, folders, path, how):
    register(http, "one", folders["one"])
    body = {"prompt": PROMPT, "max_tokens": 1} | ({"model": "nine"} if how == "model" else {})
    answer = http.post(path, json=body, headers={HEADER: "nine"} if how == "header" else {})
    assert answer.status_code == 404
    assert f"{MODEL}, one" in answer.json()["error"]["message"]


def test_models_lists_the_adapters(http, folders):
    register(http, "one", folders["one"])
    register(http, "two", folders["two"], preload=False)
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == [MODEL, "one", "two"]


def test_requests_for_the_base_model_and_for_adapters_share_steps_without_touching_each_other(http, folders):
    for name in ("one", "two"):
        register(http, name, folders[name])
    models = (None, "one", "two")
    alone = {model: ask(http, model) for model in models}
    assert len(set(alone.values())) == 3
    with ThreadPoolExecutor(9) as pool:
        together = list(pool.map(lambda model: (model, ask(http, model)), models * 3))
    assert together == [(model, alone[model]) for model in models * 3]


def test_the_least_recently_used_adapter_leaves_memory_and_comes_back_when_asked_for(http, folders):
    for name in ("one", "two"):
        register(http, name, folders[name])
    answers = {name: ask(http, name) for name in ("two", "one")}
    register(http, "three", folders["three"])
    assert loaded(http) == {"one", "three"}
    assert ask(http, "two") == answers["two"]
    assert loaded(http) == {"two", "three"}
    assert ask(http, "one") == answers["one"]


def test_more_adapters_than_places_are_answered_all_the_same_when_asked_at_once(http, folders):
    alone = {}
    for name, folder in folders.items():
        register(http, name, folder)
        alone[name] = ask(http, name)
    names = list(folders) * 3
    with ThreadPoolExecutor(9) as pool:
        assert list(pool.map(lambda name: ask(http, name), names)) == [alone[name] for name in names]
    assert len(loaded(http)) == PLACES


def test_a_pinned_adapter_stays_and_a_place_that_cannot_come_free_is_a_507(http, folders):
    register(http, "one", folders["one"], pin=True)
    register(http, "two", folders["two"])
    register(http, "three", folders["three"])
    assert loaded(http) == {"one", "three"}
    assert register(http, "three", folders["three"], pin=True).status_code == 200
    for answer in (
        http.post("/invocations", json={"prompt": PROMPT, "model": "two"}),
        http.post("/v1/completions", json={"prompt": PROMPT, "model": "two"}),
        register(http, "four", folders["two"]),
    ):
        assert answer.status_code == 507
        assert "pinned" in answer.json()["error"]["message"]
    assert register(http, "one", folders["one"], pin=False).status_code == 200
    ask(http, "two")
    assert loaded(http) == {"two", "three"}


def test_registering_twice_is_the_same_as_once_and_another_folder_is_a_conflict(http, folders):
    assert register(http, "one", folders["one"]).status_code == 200
    assert register(http, "one", folders["one"]).status_code == 200
    answer = register(http, "one", folders["two"])
    assert answer.status_code == 409
    assert str(folders["one"]) in answer.json()["error"]["message"]
    assert register(http, MODEL, folders["one"]).status_code == 409


def test_without_preload_an_adapter_is_loaded_by_the_first_request_for_it(http, folders):
    assert register(http, "one", folders["one"], preload=False).status_code == 200
    assert shown(http)["one"] == {"name": "one", "src": str(folders["one"]), "pin": False, "loaded": False, "running": 0}
    ask(http, "one")
    assert http.get("/adapters/one").json()["loaded"] is True


def test_a_stream_on_an_adapter_that_is_removed_goes_on_to_its_end(http, folders):
    register(http, "one", folders["one"])
    whole = ask(http, "one", num_tokens=40)
    body = {"prompt": PROMPT, "max_tokens": 40, "temperature": 0, "ignore_eos": True, "model": "one", "stream": True}
    texts = []
    with http.stream("POST", "/invocations", json=body) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: {"):
                texts.append(json.loads(line.removeprefix("data: "))["choices"][0]["text"])
            if len(texts) == 3:
                assert shown(http)["one"]["running"] == 1
                assert http.delete("/adapters/one").status_code == 200
                assert http.post("/invocations", json=body).status_code == 404
                # The other place is given away, the one in use is not.
                register(http, "two", folders["two"])
                register(http, "three", folders["three"])
                assert loaded(http) == {"three"}
                texts.append("")
    assert "".join(texts) == whole
    ask(http, "two")
    assert loaded(http) == {"two", "three"}


def test_an_adapter_with_new_weights_under_an_old_name_is_not_answered_from_what_was_cached(http, root, folders):
    changing = root / "changing"
    shutil.copytree(folders["one"], changing)
    prompt = {"prompt": "word " * 200, "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    answers = []
    for weights in ("one", "two"):
        shutil.copy(folders[weights] / "adapter_model.safetensors", changing)
        register(http, "changing", changing)
        register(http, "fixed", folders[weights])
        ours, theirs = (http.post("/invocations", json={**prompt, "model": model}).json() for model in ("changing", "fixed"))
        assert ours["choices"][0]["text"] == theirs["choices"][0]["text"]
        answers.append(ours["choices"][0]["text"])
        http.delete("/adapters/changing")
        http.delete("/adapters/fixed")
    assert answers[0] != answers[1]


def test_an_adapter_whose_folder_is_gone_is_a_503_and_the_engine_lives(http, root, folders):
    register(http, "gone", shutil.copytree(folders["one"], root / "gone"))
    for name in ("two", "three"):
        register(http, name, folders[name])
    shutil.rmtree(root / "gone")
    answer = http.post("/invocations", json={"prompt": PROMPT, "model": "gone"})
    assert answer.status_code == 503
    assert "'gone' cannot be loaded" in answer.json()["error"]["message"]
    ask(http, "two")


def bad_adapters(root: Path) -> dict[str, tuple[Path, str]]:
    def less(name: str, file: str) -> Path:
        folder = make_adapter(root / name, 0)
        (folder / file).unlink()
        return folder

    pickled = less("pickled", "adapter_model.safetensors")
    (pickled / "adapter_model.bin").write_bytes(b"\x80\x04.")
    garbage = less("garbage", "adapter_model.safetensors")
    (garbage / "adapter_model.safetensors").write_bytes(b"no safetensors at all")
    halved = make_adapter(root / "halved", 0)
    weights = halved / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    a, b = np.ones((8, HIDDEN), np.float32), np.ones((HIDDEN, 8), np.float32)
    endless, alone = make_adapter(root / "endless", 0), make_adapter(root / "alone", 0)
    save_file({f"{module}.lora_A.weight": a * np.inf, f"{module}.lora_B.weight": b}, endless / weights.name)
    save_file({f"{module}.lora_A.weight": a}, alone / weights.name)
    outside = root.parent / "outside-the-roots"
    if not outside.exists():
        make_adapter(outside, 0)
    (root / "link").symlink_to(outside)
    return {
        "no config": (less("no-config", "adapter_config.json"), "has no adapter_config.json"),
        "no weights": (less("no-weights", "adapter_model.safetensors"), "has no adapter_model.safetensors"),
        "pickle": (pickled, "a pickle may run code"),
        "garbage": (garbage, "not a safetensors file"),
        "cut off": (halved, "no adapter for this model"),
        "infinite": (endless, "not a finite number"),
        "half a pair": (alone, "only one of lora_A and lora_B"),
        "larger base": (make_adapter(root / "larger", 0, hidden=1024), "made for another base model"),
        "smaller base": (make_adapter(root / "smaller", 0, hidden=288), "made for another base model"),
        "deeper base": (make_adapter(root / "deeper", 0, num_layers=32), "is no module of this model"),
        "unknown module": (make_adapter(root / "unknown", 0, modules=("self_attn.x_proj",)), "x_proj"),
        "rank": (make_adapter(root / "rank", 0, rank=16), "at most 8"),
        "hidden rank": (make_adapter(root / "hidden-rank", 0, rank=16, config={"r": 8}), "at most 8"),
        "dora": (make_adapter(root / "dora", 0, config={"use_dora": True}), "DoRA"),
        "not lora": (make_adapter(root / "ia3", 0, config={"peft_type": "IA3"}), "only 'LORA'"),
        "outside": (outside, "is not under"),
        "traversal": (root / ".." / outside.name, "is not under"),
        "link": (root / "link", "is not under"),
        "missing": (root / "nowhere", "does not exist"),
        "hub id": (Path("someone/some-lora"), "not an absolute path"),
    }


def test_bad_adapters_are_refused_with_the_reason_and_the_server_goes_on(http, root, folders, tmp_path_factory):
    register(http, "one", folders["one"])
    base, adapted = ask(http), ask(http, "one")
    told = {}
    cases = bad_adapters(root)
    for case, (src, _) in cases.items():
        answer = register(http, "bad", src)
        told[case] = (answer.status_code, answer.json()["error"]["param"], answer.json()["error"]["message"])
    for case, (_, reason) in cases.items():
        assert told[case][:2] == (400, "src"), (case, told[case])
        assert reason in told[case][2], (case, told[case])
    assert list(shown(http)) == ["one"]
    # No half-loaded adapter takes a place.
    register(http, "two", folders["two"])
    assert loaded(http) == {"one", "two"}
    assert (ask(http), ask(http, "one")) == (base, adapted)


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/load_lora_adapter/"])
def test_vllms_own_adapter_routes_are_not_there_whatever_the_environment_says(http, folders, path):
    answer = http.post(path, json={"lora_name": "one", "lora_path": str(folders["one"])})
    assert answer.status_code == 404
    assert http.get("/v1/models").json()["data"][0]["id"] == MODEL
    assert shown(http) == {}


def test_a_client_that_goes_away_gives_its_adapter_back(http, folders):
    register(http, "one", folders["one"])
    body = {"prompt": PROMPT, "max_tokens": 1500, "temperature": 0, "ignore_eos": True, "model": "one", "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith('data: {"id"')
        assert shown(http)["one"]["running"] == 1
    give_up = time.monotonic() + 20
    while shown(http)["one"]["running"]:
        assert time.monotonic() < give_up
        time.sleep(0.1)
