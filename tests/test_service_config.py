"""ServiceConfig: settings from environment variables."""

from dataclasses import fields
from pathlib import Path

import pytest

from service import config as config_file
from service.config import ServiceConfig, listed, usable_cores
from service.errors import ConfigError


def errors(**variables: str) -> list[str]:
    """The errors about an environment with these variables, without CAPTION_."""
    with pytest.raises(ConfigError) as refusal:
        ServiceConfig.from_env({f"CAPTION_{name}": value for name, value in variables.items()})
    return str(refusal.value).splitlines()


def test_every_field_has_its_variable() -> None:
    chosen = {
        "checkpoint": "runs/mine",
        "device": "cuda:1",
        "bind": "[::1]:80",
        "workers": 3,
        "threads": 40,
        "queue": 5,
        "max_bytes": 1000,
        "max_pixels": 2000,
        "min_side": 3,
        "max_side": 400,
        "api_key": "s3cret",
        "rate_limit": "60/minute",
        "rate_limit_storage": "redis://h:1",
        "cors_origins": "https://a.example, http://b.example:8080",
        "trusted_hosts": "a.example,.b.example",
        "trusted_proxies": 2,
    }
    assert set(chosen) == {field.name for field in fields(ServiceConfig)}
    environment = {f"CAPTION_{name.upper()}": f" {value} " for name, value in chosen.items()}
    assert ServiceConfig.from_env(environment) == ServiceConfig(**chosen)  # type: ignore[arg-type]


def test_other_variables_are_ignored() -> None:
    assert ServiceConfig.from_env({"HOME": "/", "IMAGE_CAPTION_X": "1"}) == ServiceConfig()


def test_all_errors_are_reported_at_once() -> None:
    found = errors(THREADS="many", MAX_BYTES="0", BIND="8000", RATE_LIMIT="often", WORKER="2")
    assert len(found) == 5
    for name in ("THREADS", "MAX_BYTES", "BIND", "RATE_LIMIT", "WORKER"):
        [sentence] = [line for line in found if line.startswith(f"CAPTION_{name} is ")]
        assert sentence.endswith((".", "?"))


@pytest.mark.parametrize(
    ("name", "nearest"), [("MAX_PIXLES", "MAX_PIXELS"), ("APIKEY", "API_KEY"), ("threads", "THREADS")]
)
def test_unknown_setting_suggests_the_nearest(name: str, nearest: str) -> None:
    [sentence] = errors(**{name: "1"})
    assert f"CAPTION_{name} is not a setting" in sentence
    assert f" CAPTION_{nearest}?" in sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CHECKPOINT", ""),
        ("DEVICE", " "),
        ("BIND", "127.0.0.1"),
        ("BIND", ":8000"),
        ("BIND", "::1:8000"),
        ("BIND", "127.0.0.1:80000"),
        ("WORKERS", "-1"),
        ("WORKERS", ""),
        ("QUEUE", "-1"),
        ("TRUSTED_PROXIES", "-1"),
        ("MAX_BYTES", "20MB"),
        ("MAX_PIXELS", "200000000"),
        ("MIN_SIDE", "0"),
        ("API_KEY", "two words"),
        ("API_KEY", "schlüssel"),
        ("RATE_LIMIT", "0/minute"),
        ("RATE_LIMIT", "60"),
        ("RATE_LIMIT_STORAGE", ""),
        ("RATE_LIMIT_STORAGE", "memcached://h:1"),
        ("CORS_ORIGINS", "photos.example"),
        ("CORS_ORIGINS", "https://photos.example/page"),
        ("CORS_ORIGINS", "https://*.example"),
        ("TRUSTED_HOSTS", "https://photos.example"),
        ("TRUSTED_HOSTS", "*"),
    ],
)
def test_invalid_value_is_named(name: str, value: str) -> None:
    [sentence] = errors(**{name: value})
    assert sentence.startswith(f"CAPTION_{name} is ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bind", "unix:/run/caption.sock"),
        ("bind", "localhost:0"),
        ("queue", 0),
        ("rate_limit", "10/second;1000 per day"),
        ("rate_limit_storage", "rediss://:word@h:1/0"),
        ("cors_origins", "*"),
        ("trusted_hosts", "localhost"),
    ],
)
def test_valid_value_is_accepted(name: str, value: str | int) -> None:
    config = ServiceConfig.from_env({f"CAPTION_{name.upper()}": str(value)})
    assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("variables", "mentions"),
    [
        ({"MIN_SIDE": "300", "MAX_SIDE": "200"}, ("CAPTION_MIN_SIDE", "CAPTION_MAX_SIDE")),
        ({"THREADS": "9"}, ("CAPTION_THREADS", "CAPTION_QUEUE")),  # a thread short of 8 that wait
        ({"QUEUE": "31"}, ("CAPTION_THREADS", "CAPTION_QUEUE")),
    ],
)
def test_contradicting_settings_are_refused(variables: dict[str, str], mentions: tuple[str, ...]) -> None:
    [sentence] = errors(**variables)
    assert all(mention in sentence for mention in mentions)


@pytest.mark.parametrize(
    ("name", "secret"), [("api_key", "hush hush"), ("rate_limit_storage", "mysql://root:hush@h")]
)
def test_secrets_never_appear_in_messages(name: str, secret: str) -> None:
    assert "hush" not in "".join(errors(**{name.upper(): secret}))
    valid = {"api_key": "hush", "rate_limit_storage": "redis://:hush@h:1"}
    assert "hush" not in repr(ServiceConfig(**valid))  # type: ignore[arg-type]


def test_lists_are_comma_separated() -> None:
    assert listed(" a, b ,,c ") == ("a", "b", "c")
    assert listed("") == ()


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 1), ("300000 100000", 3), ("max 100000", 4), (None, 4)]
)
def test_container_cpu_share_bounds_processes(
    quota: str | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpu.max"
    if quota:
        file.write_text(f"{quota}\n")
    monkeypatch.setattr(config_file, "_CPU_QUOTA", file)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3})
    assert usable_cores() == cores
