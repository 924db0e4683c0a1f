"""Settings: flags before environment before defaults, and every mistake said at once."""

from __future__ import annotations

import pytest

from service.settings import PREFIX, Settings, SettingsError, bounds, load_settings, settings_table


def load(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], **flags: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings(flags, environment)


def test_flag_beats_environment_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, {"POOLSERVE_PORT": "9000", "POOLSERVE_MAX_IMAGES": "3"}, port="9001")
    assert (settings.port, settings.max_images, settings.host) == (9001, 3, "127.0.0.1")
    rows = {row.name: row for row in settings_table(settings, {"port": "9001"}, {"POOLSERVE_MAX_IMAGES": "3"})}
    assert [rows[name].source for name in ("port", "max_images", "host")] == ["flag", "environment", "default"]
    assert rows["port"].value == "9001"


def test_unknown_variable_is_an_error_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SettingsError, match="POOLSERVE_MAX_PIXLES: unknown setting; the nearest is POOLSERVE_MAX_PIXELS"
    ):
        load(monkeypatch, {"POOLSERVE_MAX_PIXLES": "1"})


def test_all_mistakes_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, {"POOLSERVE_PORT": "70000", "POOLSERVE_NOPE": "1"}, provider="tpu", timeout_s="0")
    text = str(caught.value)
    for words in (
        "POOLSERVE_NOPE",
        "port: ",
        "0 … 65535",
        "provider: ",
        "auto | cpu | cuda",
        "timeout_s: ",
        "> 0 … 3600",
    ):
        assert words in text


def test_every_setting_has_a_reason_and_bounds() -> None:
    for row in settings_table(Settings(), {}, {}):
        assert len(row.reason) > 10, row.name
        assert row.bounds, row.name
        assert row.source == "default"


@pytest.mark.parametrize("name", [n for n, f in Settings.model_fields.items() if "…" in bounds(f)])
def test_bounds_are_enforced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = (float(end.removeprefix("> ")) for end in bounds(Settings.model_fields[name]).split(" … "))
    for outside in (low - 1, high * 2 + 1):
        with pytest.raises(SettingsError, match=name):
            load_settings({name: str(int(outside))}, {})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]
    assert PREFIX == "POOLSERVE_"
    assert Settings().models == "models"
