"""The Dockerfile, what starts the image, and the compose file: what can be seen without building, which takes minutes and gigabytes."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from serving.engine_arguments import engine_arguments
from serving.settings import load_settings
from serving.settings_names import OWN

ROOT = Path(__file__).parents[2]
IMAGE_SCRIPT = ROOT / "container" / "image.sh"
FINAL = ("cpu", "cuda")


@dataclass
class Stage:
    """One FROM of the Dockerfile with its instructions, continuation lines joined."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def values(self, word: str) -> list[str]:
        return [value for instruction, value in self.instructions if instruction == word]

    def pairs(self, word: str) -> dict[str, str]:
        """The NAME=VALUE pairs of all its ENV or LABEL instructions."""
        return {name: value.strip('"') for text in self.values(word) for name, value in re.findall(r'([\w.-]+)=("[^"]*"|\S+)', text)}


def dockerfile() -> tuple[str, list[Stage]]:
    """What stands before the first FROM, and the stages."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    head, *rest = re.split(r"^(?=FROM )", re.sub(r"\\\n\s*", " ", text), flags=re.MULTILINE)
    stages = []
    for part in rest:
        first, *lines = filter(None, map(str.strip, part.splitlines()))
        _, base, _, name = first.split()
        stages.append(Stage(name, base, [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]))
    return head, stages


def lineage(name: str) -> list[Stage]:
    """The stage and those it is built on, outermost first."""
    stages = {stage.name: stage for stage in dockerfile()[1]}
    found = [stages[name]]
    while found[0].base in stages:
        found.insert(0, stages[found[0].base])
    return found


def last(name: str, word: str) -> str:
    return [value for stage in lineage(name) for value in stage.values(word)][-1]


def packages(stage: Stage) -> set[str]:
    """The Debian packages that the stage installs."""
    return {word for run in stage.values("RUN") for words in re.findall(r"--no-install-recommends ([^&]+)", run) for word in words.split()}


def test_every_stage_stands_on_the_one_base_image_that_can_be_chosen() -> None:
    head, stages = dockerfile()
    assert re.fullmatch(r"ARG BASE_IMAGE=docker\.io/library/debian:bookworm-\d{8}-slim\s*", head)
    names = {stage.name for stage in stages}
    assert {stage.base for stage in stages} - names == {"${BASE_IMAGE}"}


def test_a_plain_build_makes_the_image_for_gpus_and_the_cpu_image_needs_none_of_its_stages() -> None:
    """Docker takes the last stage; a builder without BuildKit makes every stage above the one it is asked for."""
    order = [stage.name for stage in dockerfile()[1]]
    assert order[-1] == "cuda"
    assert max(order.index(stage.name) for stage in lineage("cpu")) < order.index("cuda-packages")
    assert order.index("cpu-packages") < order.index("cpu") < order.index("cuda-packages")


@pytest.mark.parametrize("target", FINAL)
def test_the_server_is_started_without_a_shell_and_gets_the_signals(target: str) -> None:
    assert json.loads(last(target, "ENTRYPOINT")) == ["/opt/tokenport/.venv/bin/python", "-P", "-m", "serving"]
    assert json.loads(last(target, "CMD")) == ["serve"]
    assert last(target, "STOPSIGNAL") == "SIGTERM"
    assert not any(stage.values("USER") for stage in lineage(target))


@pytest.mark.parametrize("target", FINAL)
def test_labels_tell_sagemaker_what_the_image_can(target: str) -> None:
    labels = {name: value for stage in lineage(target) for name, value in stage.pairs("LABEL").items()}
    capabilities = {
        name.removeprefix("com.amazonaws.sagemaker.capabilities."): value for name, value in labels.items() if "amazonaws" in name
    }
    assert capabilities == {"accept-bind-to-port": "true", "bidirectional-streaming": "true"}
    assert labels["org.opencontainers.image.version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert ("tokenport.sagemaker.inference-ami-version" in labels) == (target == "cuda")


@pytest.mark.parametrize("target", FINAL)
def test_python_packages_come_from_the_targets_lock_alone(target: str) -> None:
    """setup.sh is what checks the hashes; see test_packaging.py."""
    runs = [run for stage in (*lineage(f"{target}-packages"), *lineage(target)) for run in stage.values("RUN")]
    assert not [run for run in runs if re.search(r"\bpip3? install\b|\bcurl\b|\bwget\b", run)]
    assert [re.findall(r"DEVICE=(\w+) container/setup.sh", run) for run in runs if "setup.sh" in run] == [[target], [target]]
    (builder,) = (stage for stage in lineage(target) if stage.name == target)
    assert builder.values("COPY")[0] == f"--from={target}-packages /opt/tokenport/ ./"


def test_only_the_image_for_gpus_holds_a_compiler_and_none_holds_what_builds_it() -> None:
    installed = {target: set().union(*map(packages, lineage(target))) for target in FINAL}
    assert installed["cuda"] - installed["cpu"] == {"gcc", "libc6-dev", "python3-dev"}
    assert installed["cpu"] == {"ca-certificates", "libnuma1", "python3"}


def test_the_build_has_nothing_that_podman_or_a_builder_without_a_network_lacks() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^# *syntax=.*|<<-?\w+|--link\b", text, re.MULTILINE) == []


@pytest.mark.parametrize("target", FINAL)
def test_what_is_copied_exists_and_the_builder_is_sent_it(target: str) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copies = [copy.split()[:-1] for stage in (*lineage(f"{target}-packages"), *lineage(target)) for copy in stage.values("COPY")]
    sources = {source for words in copies if not words[0].startswith("--from=") for source in words}
    assert {
        "pyproject.toml",
        "serving/",
        "benchmarks/",
        "container/setup.sh",
        f"container/locks/{target}.txt",
        "container/locks/source.txt",
    } == sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [source for source in sources if not any(Path(source).match(pattern) for pattern in allowed)] == []


@pytest.mark.parametrize("target", FINAL)
def test_the_images_settings_are_accepted_and_mean_what_they_say(target: str) -> None:
    environ = {name: value for stage in lineage(target) for name, value in stage.pairs("ENV").items()}
    settings = load_settings([], environ)
    assert (settings.host, settings.port, settings.embedded_model, str(settings.cache_dir)) == ("0.0.0.0", 8080, False, "/tmp/tokenport")
    assert environ["PATH"].startswith(str(Path(json.loads(last(target, "ENTRYPOINT"))[0]).parent))
    # All that a read-only container can write to.
    assert environ["HOME"] == "/tmp"


@pytest.mark.parametrize(("answer", "code"), [(b"HTTP/1.1 200 OK\r\n\r\n", 0), (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", 1)])
@pytest.mark.parametrize("variable", ["TOKENPORT_PORT", "SAGEMAKER_BIND_TO_PORT"])
def test_the_health_check_passes_on_what_ping_says(answer: bytes, code: int, variable: str) -> None:
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(1000))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert health_check({variable: str(listener.getsockname()[1])}) == code
        thread.join(10)
    assert heard == [b"GET /ping HTTP/1.0\r\n\r\n"]


def test_the_health_check_fails_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert health_check({"TOKENPORT_PORT": str(taken.getsockname()[1])}) == 1


def health_check(environ: dict[str, str]) -> int:
    words = json.loads(last("cpu", "HEALTHCHECK").split(" CMD ", 1)[1])
    assert words[0] == json.loads(last("cpu", "ENTRYPOINT"))[0]
    return subprocess.run([sys.executable, *words[1:]], env=environ, stderr=subprocess.DEVNULL, timeout=30, check=False).returncode


def test_any_other_job_is_refused_in_one_line() -> None:
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "serving", "train"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (2, "", 1)
    assert "'train'" in answer.stderr


def build(folder: Path, *arguments: str, engines: dict[str, str], **environ: str) -> subprocess.CompletedProcess[str]:
    """Run image.sh where only these engines are; each is the body of a shell script."""
    for name in ("bash", "dirname", "readlink", "env", "git"):
        (folder / name).symlink_to(f"/usr/bin/{name}" if Path(f"/usr/bin/{name}").exists() else f"/bin/{name}")
    for name, body in engines.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return subprocess.run(
        [IMAGE_SCRIPT, *arguments],
        env={"PATH": str(folder), "HOME": os.environ["HOME"], **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_image_is_built_by_docker_where_its_daemon_answers(tmp_path: Path) -> None:
    answer = build(tmp_path, "--pull", engines={"docker": 'echo "docker $*"', "podman": 'echo "podman $*"'})
    assert re.fullmatch(
        r"docker build --target cuda --tag tokenport:cuda( --label org\.opencontainers\.image\.revision=\S+)? --pull \.\n", answer.stdout
    )


def test_the_image_is_built_by_podman_where_no_docker_daemon_answers(tmp_path: Path) -> None:
    answer = build(tmp_path, engines={"docker": "exit 1", "podman": 'echo "$*"'}, DEVICE="cpu", IMAGE="mine:1")
    assert answer.stdout.startswith("build --target cpu --tag mine:1 --format docker ")


def test_the_build_without_docker_or_podman_says_so_in_one_line(tmp_path: Path) -> None:
    answer = build(tmp_path, engines={})
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (1, "", 1)
    assert "podman" in answer.stderr


def test_a_target_that_is_not_there_is_refused(tmp_path: Path) -> None:
    answer = build(tmp_path, engines={"podman": 'echo "$*"'}, DEVICE="rocm")
    assert (answer.returncode, answer.stdout, answer.stderr) == (1, "", "image: DEVICE=rocm is not cpu or cuda\n")


COMPOSE = (ROOT / "container" / "compose.yaml").read_text()


def compose() -> dict[str, object]:
    """The service of the compose file, with every variable at its default."""
    service: dict[str, object] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE))["services"]["tokenport"]
    return service


def test_compose_starts_the_gpu_image_on_loopback_and_lets_it_drain() -> None:
    service = compose()
    assert (service["image"], service["command"]) == ("tokenport:cuda", ["serve"])
    assert service["ports"] == ["127.0.0.1:8080:8080"]
    assert service["restart"] == "on-failure:3"
    assert int(str(service["stop_grace_period"]).removesuffix("s")) > OWN["drain_s"].default
    assert service["deploy"] == {
        "resources": {"reservations": {"devices": [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]}}
    }


def test_compose_keeps_models_and_caches_in_declared_volumes_and_writes_nowhere_else() -> None:
    service = compose()
    assert service["read_only"] is True
    assert service["volumes"] == ["models:/opt/ml/model:ro", "cache:/cache"]
    assert set(yaml.safe_load(COMPOSE)["volumes"]) == {"models", "cache"}
    assert load_settings([], {name: value for name, value in service["environment"].items() if value}).cache_dir == Path("/cache/tokenport")


def test_compose_passes_on_settings_that_exist() -> None:
    names = {name.removeprefix("TOKENPORT_").lower() for name in compose()["environment"] if name.startswith("TOKENPORT_")}
    assert names - OWN.keys() - engine_arguments().keys() == set()


def test_every_variable_of_the_compose_file_has_a_default() -> None:
    assert re.findall(r"\$(?!\{\w+:-[^}]+\})\S+", COMPOSE) == []
