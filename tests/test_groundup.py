"""The front door: verbs, precedence of settings, one-line errors, and nothing heavy before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsConfigDict

import groundup
from groundup import UsageError, main, parse


class Inner(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    lr: float = Field(0.1, gt=0)
    """Learning rate of the test."""


class Config(BaseSettings):
    """A config with every kind of field."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="FRONTDOOR_", env_nested_delimiter="__", use_attribute_docstrings=True
    )
    inputs: CliPositionalArg[tuple[Path, ...]] = ()
    """Paths."""
    num_steps: int = Field(10, ge=1)
    """How many."""
    is_loud: bool = False
    """Whether to shout."""
    key: SecretStr | None = None
    optim: Inner = Inner()

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.is_loud and self.num_steps > 100:
            raise ValueError("--num-steps: too many to shout them all")
        return self


def parsed(*arguments: str) -> Config:
    return parse(Config, arguments, prog="test")


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.toml"
    file.write_text("num_steps = 2\nis_loud = true\n[optim]\nlr = 0.2\n")
    assert parsed().num_steps == 10
    from_file = parsed("--config", str(file))
    assert (from_file.num_steps, from_file.is_loud, from_file.optim.lr) == (2, True, 0.2)
    monkeypatch.setenv("FRONTDOOR_NUM_STEPS", "3")
    monkeypatch.setenv("FRONTDOOR_OPTIM__LR", "0.3")
    from_environment = parsed(f"--config={file}")
    assert (from_environment.num_steps, from_environment.optim.lr) == (3, 0.3)
    from_flags = parsed("--config", str(file), "--num-steps", "4", "--optim.lr", "0.4", "--no-is-loud")
    assert (from_flags.num_steps, from_flags.is_loud, from_flags.optim.lr) == (4, False, 0.4)


def test_the_result_is_the_declared_class_so_that_it_can_travel_to_other_processes() -> None:
    config = parsed("a", "b", "--is-loud", "--key", "secret")
    assert type(config) is Config
    assert config.inputs == (Path("a"), Path("b"))
    assert config.is_loud
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-steps", "0"], "--num-steps: Input should be greater than or equal to 1"),
        (["--num-steps", "many"], "--num-steps: Input should be a valid integer, unable to parse string as an integer"),
        (["--optim.lr", "-1"], "--optim.lr: Input should be greater than 0"),
        (["--num-stps", "1"], "--num-stps: unknown flag; did you mean --num-steps?"),
        (["--optim.rl", "1"], "--optim.rl: unknown flag; did you mean --optim.lr?"),
        (["--qqq"], "--qqq: unknown flag; see --help"),
        (["--num-steps"], "--num-steps: expected one argument"),
        (["a", "--num-steps", "3", "b"], "b: one argument too many; see --help"),
        (["--num-steps", "101", "--is-loud"], "--num-steps: too many to shout them all"),
        (["--config"], "--config: expected one argument"),
        (["--config", "/does/not/exist"], "--config: /does/not/exist: No such file or directory"),
    ],
)
def test_a_wrong_flag_is_named_with_what_to_do(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(*arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("num_stps = 1", "--num-stps: unknown setting; did you mean --num-steps?"),
        ("num_steps = 0", "--num-steps: Input should be greater than or equal to 1"),
        ("num_steps = ", "not TOML"),
        ("\xff", "not TOML"),
    ],
)
def test_a_wrong_file_is_named_with_what_to_do(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "run.toml").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=message):
        parsed("--config", str(tmp_path / "run.toml"))


class Positional(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="FRONTDOOR_")

    place: CliPositionalArg[int] = Field(gt=0)


@pytest.mark.parametrize(("arguments", "message"), [([], "PLACE: required"), (["0"], "PLACE: Input should be greater")])
def test_what_is_no_flag_is_not_named_as_one(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}"):
        parse(Positional, arguments, prog="test")


def test_help_prints_the_strings_beneath_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for expected in (
        "usage: test",
        "A config with every kind of field.",
        "--num-steps int How many. (default: 10)",
        "Learning rate of the test.",
        "TOML file with settings by name",
    ):
        assert expected in text


def test_the_overview_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["-h"], ["help"]):
        assert main(arguments) == 0
        text = capsys.readouterr().out
        assert all(f"  {name}" in text for name in groundup.VERBS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("groundup ")


def test_an_unknown_verb_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["srve"]) == 2
    assert capsys.readouterr().err == "error: srve: unknown verb; did you mean serve?\n"


def test_a_verb_may_have_two_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", "prepare", "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: groundup data prepare")
    assert main(["data", "prepre"]) == 2
    assert main(["data"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == "error: data prepre: unknown verb; did you mean data prepare?"
    assert errors[1].startswith("error: data: unknown verb")


def test_a_users_mistake_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["generate", str(tmp_path / "nowhere")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_the_origin_of_an_error_can_be_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GROUNDUP_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no such directory"):
        main(["generate", str(tmp_path / "nowhere")])


@pytest.mark.parametrize("verb", list(groundup.VERBS))
def test_every_verb_has_help_and_a_job(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: groundup {verb}")
    assert callable(groundup.load(groundup.VERBS[verb].run))


def test_help_never_waits_for_torch() -> None:
    program = (
        "import sys, groundup\n"
        "for verb in ['', *groundup.VERBS]:\n"
        "    try: groundup.main([verb, '--help'] if verb else ['--help'])\n"
        "    except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, stdout=subprocess.DEVNULL)


def test_ctrl_c_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(
        "from pydantic_settings import BaseSettings\n"
        "class Config(BaseSettings): pass\n"
        "def run(config): raise KeyboardInterrupt\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    verb = groundup.Verb("interrupted:Config", "interrupted:run", "")
    monkeypatch.setitem(groundup.VERBS, "interrupted", verb)
    assert main(["interrupted"]) == 130


def test_half_of_a_verb_is_answered_with_its_other_half(capsys: pytest.CaptureFixture[str]) -> None:
    assert groundup.main(["data"]) == 2
    assert capsys.readouterr().err == "error: data: unknown verb; add one of: fetch, prepare\n"
    assert groundup.main(["data", "--help"]) == 0
    assert "  bench-training  measure" in capsys.readouterr().out


def test_a_missing_extra_is_one_line_that_says_how_to_get_it() -> None:
    code = (
        "import sys, groundup; sys.modules['matplotlib'] = None; "
        "sys.exit(groundup.main(['instruct', '--data', 'a', '--base', 'b', '--out', 'runs/x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "error: matplotlib is not installed; training needs it: pip install 'groundup[training]'"
    )
