"""Deployment files: their own tools accept them, and they agree on ports, limits and settings."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from dockerfile_parse import DockerfileParser
from support.processes import PATH, ROOT

from service.config import ServiceConfig

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
NGINX = (DEPLOY / "nginx.conf").read_text()
UNIT = (DEPLOY / "sightline.service").read_text()
KUBERNETES = {part["kind"]: part for part in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}
POD = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
CONTAINERS = {container["name"]: container for container in POD["containers"]}
DOCKERFILE = {step["instruction"]: step["value"] for step in DockerfileParser(path=str(ROOT)).structure}
SETTINGS = {f"CAPTION_{name.upper()}" for name in ServiceConfig.__dataclass_fields__}
OLDEST_KUBERNETES, NEWEST_KUBERNETES = "1.29", "1.37"


def gunicorn_setting(name: str) -> int:
    """Read, not imported: to import it prepares the process for gunicorn."""
    text = (ROOT / "service" / "gunicorn_config.py").read_text(encoding="utf-8")
    return int(re.search(rf"^{name} = (\d+)", text, re.MULTILINE)[1])


def bytes_of(text: str) -> int:
    """Of a size as nginx, compose or Kubernetes write it."""
    number, unit = re.fullmatch(r"(\d+)([a-zA-Z]*)", text).groups()
    units = {"m": 2**20, "Mi": 2**20, "M": 10**6}
    return int(number) * units[unit]


def seconds_in(text: str, name: str) -> int:
    [seconds] = re.findall(rf"\b{name} (\d+)s;", text)
    return int(seconds)


def lint(*command: str) -> None:
    path = f"{PATH}:/usr/sbin"
    if shutil.which(command[0], path=path) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=ROOT, env={"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# What their tools say


def test_dockerfile_is_valid() -> None:
    lint("hadolint", "Dockerfile")


def test_compose_file_is_valid() -> None:
    assert PyCompose.from_yaml((ROOT / "compose.yaml").read_text()).service_names() == ["captioner", "nginx"]


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, NEWEST_KUBERNETES])
def test_kubernetes_manifests_are_valid(version: str) -> None:
    for part in KUBERNETES.values():
        kubernetes_validate.validate(part, version, strict=True)


def test_kustomize_adds_nginx_files_and_image() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(DEPLOY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made = {part["kind"]: part for part in yaml.safe_load_all(done.stdout)}
    files = made["ConfigMap"]["data"]
    assert files == {
        name: (DEPLOY / name).read_text() for name in ("nginx.conf", "listen.conf", "upstream.conf")
    }
    pod = made["Deployment"]["spec"]["template"]["spec"]
    assert pod["volumes"][-1]["configMap"]["name"] == made["ConfigMap"]["metadata"]["name"]
    assert pod["containers"][0]["image"].startswith("registry.example/sightline:")
    for part in made.values():
        kubernetes_validate.validate(part, NEWEST_KUBERNETES, strict=True)


def test_nginx_config_passes_security_lint(tmp_path: Path) -> None:
    for name in ("nginx.conf", "listen.conf", "upstream.conf"):
        shutil.copy(DEPLOY / name, tmp_path)
    # Names are asked for once on purpose: compose starts nginx anew when it replaces the replicas.
    lint("gixy-next", "--skips", "stale_dns_cache", str(tmp_path / "nginx.conf"))


@pytest.mark.parametrize("name", ["sightline.service", "sightline-nginx.service"])
def test_systemd_units_are_valid(tmp_path: Path, name: str) -> None:
    """With a program that is there instead of the one that is to be installed."""
    program = rf"\1{sys.executable}"
    (tmp_path / name).write_text(
        re.sub(r"^(ExecStart=)\S+", program, (DEPLOY / name).read_text(), flags=re.M)
    )
    lint("systemd-analyze", "verify", str(tmp_path / name))


# What they say of one another


def variables_in(text: str) -> set[str]:
    return set(re.findall(r"\bCAPTION_[A-Z_]+", text))


def test_deployed_settings_exist() -> None:
    for path in (ROOT / "Dockerfile", ROOT / "compose.yaml", *DEPLOY.iterdir()):
        assert variables_in(path.read_text()) - {"CAPTION_"} <= SETTINGS, path


def test_ports_agree() -> None:
    port = DOCKERFILE["EXPOSE"]
    assert f"CAPTION_BIND=0.0.0.0:{port} " in DOCKERFILE["ENV"]
    assert f"'127.0.0.1', {port}," in DOCKERFILE["HEALTHCHECK"]
    assert f"server captioner:{port} " in (DEPLOY / "upstream.conf").read_text()
    assert f"CAPTION_BIND=127.0.0.1:{port} " in UNIT
    assert CONTAINERS["captioner"]["ports"][0]["containerPort"] == int(port)
    annotations = KUBERNETES["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == port
    front = re.search(r"listen (\d+);", (DEPLOY / "listen.conf").read_text())[1]
    assert COMPOSE["services"]["nginx"]["ports"] == [f"{front}:{front}"]
    assert f":{front}/" in COMPOSE["services"]["nginx"]["healthcheck"]["test"][-1]
    assert CONTAINERS["nginx"]["ports"][0]["containerPort"] == int(front)


def test_commands_agree() -> None:
    [started] = re.findall(r"^ExecStart=/opt/sightline/.venv/bin/(.+)$", UNIT, re.MULTILINE)
    assert [part.strip('"') for part in started.split()] == yaml.safe_load(DOCKERFILE["CMD"])
    of_the_image = {pair for pair in DOCKERFILE["ENV"].split() if not pair.startswith("CAPTION_")}
    assert of_the_image <= set(re.findall(r"\w+=[^\s=]+(?=\s)", UNIT))
    assert CONTAINERS["nginx"]["command"][:3] == COMPOSE["services"]["nginx"]["command"][:3]


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'image.version="{version}"' in DOCKERFILE["LABEL"]
    assert COMPOSE["services"]["captioner"]["image"] == f"sightline:{version}"
    assert f"newTag: {version}\n" in (DEPLOY / "kustomization.yaml").read_text()
    assert CONTAINERS["nginx"]["image"] == COMPOSE["services"]["nginx"]["image"]


def test_nginx_body_limit_exceeds_service_limit() -> None:
    most = max(bytes_of(size) for size in re.findall(r"client_max_body_size (\w+);", NGINX))
    assert ServiceConfig().max_bytes < most < 1.2 * ServiceConfig().max_bytes


def test_nginx_keepalive_is_shorter_than_gunicorns() -> None:
    assert seconds_in((DEPLOY / "upstream.conf").read_text(), "keepalive_timeout") < gunicorn_setting(
        "keepalive"
    )


def test_grace_periods_cover_requests_in_flight() -> None:
    graceful = gunicorn_setting("graceful_timeout")
    assert int(re.search(r"TimeoutStopSec=(\d+)", UNIT)[1]) > graceful
    for service in COMPOSE["services"].values():
        assert int(service["stop_grace_period"].rstrip("s")) > graceful
    waits = {
        name: int(each["lifecycle"]["preStop"]["exec"]["command"][1]) for name, each in CONTAINERS.items()
    }
    assert waits["nginx"] < waits["captioner"]
    assert waits["captioner"] + graceful < POD["terminationGracePeriodSeconds"]


def test_uploads_fit_into_nginx_memory() -> None:
    """Files in memory count as memory of the container."""
    nginx = COMPOSE["services"]["nginx"]
    [folder] = re.findall(r"/tmp:size=(\w+),", nginx["tmpfs"][0])
    assert bytes_of(folder) < bytes_of(nginx["deploy"]["resources"]["limits"]["memory"])
    volumes = {volume["name"]: volume for volume in POD["volumes"]}
    size = bytes_of(volumes["nginx-tmp"]["emptyDir"]["sizeLimit"])
    assert size < bytes_of(CONTAINERS["nginx"]["resources"]["limits"]["memory"])


def hardened(container: dict[str, Any]) -> bool:
    context = container["securityContext"]
    return (
        context["readOnlyRootFilesystem"]
        and not context["allowPrivilegeEscalation"]
        and context["capabilities"] == {"drop": ["ALL"]}
        and context["runAsUser"] > 0
    )


def test_containers_are_unprivileged() -> None:
    assert POD["securityContext"]["runAsNonRoot"]
    assert all(hardened(container) for container in CONTAINERS.values())
    user, group = DOCKERFILE["USER"].split(":")
    context = CONTAINERS["captioner"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
    for service in COMPOSE["services"].values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_autoscaler_uses_the_adapter_metric() -> None:
    adapter = yaml.safe_load((DEPLOY / "prometheus-adapter.yaml").read_text())
    [metric] = KUBERNETES["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert [rule["name"]["matches"] for rule in adapter["rules"]["custom"]] == [name]
    assert float(metric["pods"]["target"]["averageValue"]) < ServiceConfig().queue
    metrics = (ROOT / "service" / "web" / "metrics.py").read_text()
    assert f'"{name}"' in metrics


WATCHED_IMPORT = """
import os, runpy, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("OMP_NUM_THREADS"), "TORCHINDUCTOR_CACHE_DIR" in os.environ)
            sys.exit()
sys.meta_path.insert(0, Watch())
runpy.run_path("service/gunicorn_config.py")
import torch
"""


def test_gunicorn_config_sets_torch_up_before_importing_it() -> None:
    command = [sys.executable, "-c", WATCHED_IMPORT]
    environment = {"PYTHONPATH": str(ROOT), "PROMETHEUS_MULTIPROC_DIR": "/nowhere"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", str(Path("/dev/shm").is_dir())]
