"""must_work_offline: what the hub tells of a model before anything of it is downloaded."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from serving.engine.hub import must_work_offline
from serving.errors import ModelUnavailable

FILES = {
    "org/pickles": ["config.json", "pytorch_model.bin"],
    "org/both": ["pytorch_model.bin", "model.safetensors"],
    "org/neither": ["config.json"],
}


@pytest.fixture
def _hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            model = "/".join(self.path.split("?")[0].split("/")[3:5])
            body = json.dumps({"id": model, "siblings": [{"rfilename": name} for name in FILES[model]]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield
        server.shutdown()


@pytest.mark.usefixtures("_hub")
def test_pickles_alone_are_refused_before_they_are_downloaded():
    with pytest.raises(ModelUnavailable, match=r"the weights of org/pickles as pickles only \(pytorch_model\.bin\)"):
        must_work_offline("org/pickles", None, {})
    assert must_work_offline("org/pickles", None, {}, reads_pickles=True) is False


@pytest.mark.usefixtures("_hub")
@pytest.mark.parametrize("model", ["org/both", "org/neither"])
def test_other_models_are_had(model):
    assert must_work_offline(model, None, {}) is False
