"""Settings that contradict each other are refused by the flags' names, and secrets cannot be printed."""

import hashlib
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import ServiceSettings


def make(**changes: object) -> ServiceSettings:
    return ServiceSettings.model_validate({"checkpoints": ["some-model"], **changes})


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"max_num_seqs": 32, "max_num_batched_tokens": 16}, ("--max-num-seqs", "--max-num-batched-tokens")),
        ({"engine_hang_s": 90}, ("--engine-hang-s", "--liveness-timeout-s")),
        ({"queue_timeout_s": 60, "request_timeout_s": 30}, ("--queue-timeout-s", "--request-timeout-s")),
        ({"quantize": "int8", "dtype": "bfloat16"}, ("--quantize", "--dtype")),
        ({"quantize": "int8", "device": "cuda"}, ("--quantize", "--device")),
        ({"compile": True, "device": "cuda"}, ("--compile", "--device")),
    ],
)
def test_limits_that_contradict_each_other_are_refused_by_name(
    changes: dict[str, object], flags: tuple[str, str]
) -> None:
    with pytest.raises(ValidationError) as error:
        make(**changes)
    assert all(flag in str(error.value) for flag in flags)


@pytest.mark.parametrize(
    "changes", [{"checkpoints": []}, {"port": 65536}, {"max_n": 129}, {"device": "tpu"}, {"surprise": 1}]
)
def test_values_out_of_range_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        make(**changes)


def test_the_environment_speaks_where_no_flag_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_MAX_NUM_SEQS", "7")
    assert make().max_num_seqs == 7
    assert make(max_num_seqs=9).max_num_seqs == 9


def test_a_status_may_come_as_text_as_it_does_from_flags_and_environment() -> None:
    assert make(overload_status="429").overload_status == 429
    with pytest.raises(ValidationError, match="503 or 429"):
        make(overload_status="500")


def test_keys_come_from_environment_and_file_and_are_known_by_their_digests(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GROUNDUP_API_KEYS", "first, team-a:sk:1")
    file = tmp_path / "keys"
    file.write_text("# comment\n\nteam-b:sk-2\n")
    settings = make(api_keys_file=file)
    expected = {"key-1": "first", "team-a": "sk:1", "team-b": "sk-2"}
    assert settings.api_key_hashes == {name: hashlib.sha256(key.encode()).digest() for name, key in expected.items()}


def test_keys_are_never_printed() -> None:
    settings = make(api_keys="name:very-secret")
    assert "very-secret" not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot read"), ("# only a comment\n", "holds no key"), ("a:1\na:2\n", "two keys")]
)
def test_a_key_file_that_would_leave_the_door_open_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValidationError, match=message):
        make(api_keys_file=file)


def test_every_setting_is_explained() -> None:
    assert [name for name, field in ServiceSettings.model_fields.items() if not field.description] == []


def test_the_admin_key_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("# for operators\nsecret\n")
    settings = ServiceSettings(checkpoints=(Path("none"),), admin_key_file=file)
    assert settings.admin_key_hashes == {"admin": hashlib.sha256(b"secret").digest()}
    assert ServiceSettings(checkpoints=(Path("none"),)).admin_key_hashes == {}
    file.write_text("one\ntwo\n")
    with pytest.raises(ValueError, match=r"--admin-key-file: .* holds 2 keys; it must hold one"):
        ServiceSettings(checkpoints=(Path("none"),), admin_key_file=file)


def test_models_may_be_added_from_where_the_first_ones_lie_unless_told_otherwise(tmp_path: Path) -> None:
    settings = ServiceSettings(checkpoints=(tmp_path / "a" / "one", tmp_path / "a" / "two"))
    assert settings.model_roots == (tmp_path / "a",)
    settings = ServiceSettings(checkpoints=(tmp_path / "a" / "one",), admin_model_roots=(tmp_path / "b",))
    assert settings.model_roots == (tmp_path / "b",)
