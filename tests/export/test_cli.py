"""`python -m export`: what it writes, what it says, and how it fails."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from export.__main__ import COMMANDS, main
from export.backbones import create_backbone
from export.commands import export
from export.commands.export import number_of_classes, parse_settings, read_labels
from export.heads import HEADS
from export.network import Network
from export.verify import TOLERANCE
from graphs.card import ModelCard, Preprocessing
from tests.claims import relative_error

CONVNET = ["export", "--backbone", "convnet", "--channels", "L"]


def read_card(path: Path) -> ModelCard:
    card = ModelCard.read(ir.load(path))
    assert card is not None
    return card


def test_help_teaches_and_does_not_wait_for_torch() -> None:
    code = "import sys; from export.__main__ import main; print(main(['--help']), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"
    for command in COMMANDS:
        assert f"\n  {command} " in done.stdout
    assert "examples:\n  python -m export heads" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_and_explains_each_of_its_flags(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"usage: python -m export {command}" in capsys.readouterr().out
    parser = argparse.ArgumentParser()
    import_module(COMMANDS[command][0]).add_arguments(parser)
    assert [action.option_strings for action in parser._actions if not action.help] == []


def test_examples_of_export_are_commands_that_parse() -> None:
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    lines = export.EXAMPLES.replace("\\\n", " ").splitlines()
    examples = [shlex.split(line) for line in lines if line.strip().startswith("python -m export export")]
    assert len(examples) == 3
    for example in examples:
        arguments = parser.parse_args(example[4:])
        Network(create_backbone("convnet", 3), {**parse_settings(arguments.set), "pooling": arguments.head}, 2)


def test_no_command_and_an_unknown_one_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out
    assert main(["exprot"]) == 2
    assert "no command 'exprot'; there are export, heads" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main([*CONVNET, "--hed", "gap"])
    assert stop.value.code == 2


def test_heads_lists_every_head_with_its_settings(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["heads"]) == 0
    text = capsys.readouterr().out
    for name, head in HEADS.items():
        assert f"│ {name} " in text
        assert head.formula in text
    assert "p=3.0, per_channel=false, learned=true, eps=1e-06" in text
    assert "│ 21·C " in text


def test_export_with_random_weights_writes_a_described_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    out = tmp_path / "models" / "pets" / "1" / "model.onnx"
    flags = ["--labels", str(tmp_path / "labels.txt"), "--mean", "0.5", "--std", "0.25", "--description", "pets"]
    more = [
        "--head",
        "gem",
        "--set",
        "p=4",
        "--set",
        "per_channel=true",
        "--license",
        "CC0-1.0",
        "--activation",
        "sigmoid",
    ]
    assert main([*CONVNET, *flags, *more, "--seed", "3", "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert f"{out}: " in said
    assert "embedding 96, 2 classes" in said
    assert "allowed 1e-05" in said
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]
    card = read_card(out)
    assert card == ModelCard(
        description="pets",
        labels=("cat", "dog"),
        preprocessing=Preprocessing(channels="L", mean=(0.5,), std=(0.25,)),
        input="images",
        output="logits",
        embedding="embedding",
        activation="sigmoid",
        head={"pooling": "gem", "p": 4.0, "per_channel": True, "learned": True, "eps": 1e-6},
        backbone="convnet",
        license="CC0-1.0",
        training={"weights": "random", "seed": 3},
    )


def test_seed_decides_the_file_and_nothing_else_does(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    assert main([*CONVNET, "--num-classes", "2", "--seed", "5", "--out", str(tmp_path / "here.onnx")]) == 0
    assert torch.equal(torch.random.get_rng_state(), before)
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-W", "error", "-m", "export", *CONVNET, "--num-classes", "2", "--seed", "5", "--out"]
    done = subprocess.run(
        [*command, str(tmp_path / "there.onnx")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here.onnx").read_bytes() == (tmp_path / "there.onnx").read_bytes()
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("classes", [3, 4])
def test_brought_weights_are_what_runs(classes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brought = Network(create_backbone("convnet", 1), {"pooling": "gap"}, 3).eval()
    state = {name.removeprefix("backbone."): tensor for name, tensor in brought.state_dict().items()}
    state = {name.replace("classifier.", "fc."): tensor for name, tensor in state.items()}
    torch.save({"state_dict": state}, tmp_path / "brought.pth")
    out = tmp_path / "model.onnx"
    flags = ["--num-classes", str(classes)] if classes != 3 else []
    assert main([*CONVNET, "--weights", str(tmp_path / "brought.pth"), *flags, "--out", str(out)]) == 0
    images = torch.rand(2, 1, 70, 90)
    logits, embedding = ort.InferenceSession(out).run(["logits", "embedding"], {"images": images.numpy()})
    with torch.no_grad():
        wanted = [output.double().numpy() for output in brought(images)]
    assert relative_error(embedding, wanted[1]) <= TOLERANCE
    training = read_card(out).training
    assert training["weights"] == "brought.pth"
    assert len(training["sha256"]) == 64
    if classes == 3:
        assert relative_error(logits, wanted[0]) <= TOLERANCE
        assert "random" not in capsys.readouterr().err
        assert "classifier" not in training
    else:
        assert "The classifier is random: the file's (fc.weight, fc.bias) does not fit" in capsys.readouterr().err
        assert training["classifier"] == "random"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--num-classes", "2", "--set", "p=3"], "pooling head 'gap' does not know p"),
        (["--num-classes", "2", "--head", "gem", "--set", "p=-1"], "p must be a finite number > 0, got -1"),
        (["--num-classes", "2", "--head", "gem", "--set", "p"], "--set needs NAME=VALUE, got 'p'"),
        (["--num-classes", "2", "--mean", "1", "2"], "mean needs 1 or 1 numbers for L, got 2"),
        (["--num-classes", "0"], "how many classes?"),
        (["--num-classes", "-1"], "num_classes must be >= 1, got -1"),
        ([], "how many classes?"),
        (["--labels", "absent.txt"], "absent.txt"),
        (["--num-classes", "2", "--weights", "absent.pth"], "absent.pth"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_no_file(
    flags: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*CONVNET, *flags, "--out", str(tmp_path / "model.onnx")]) == 1
    said = capsys.readouterr().err
    assert said.startswith("python -m export export: ")
    assert says in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_settings_are_json_where_they_can_be() -> None:
    pairs = ["p=3", "levels=[1,2]", "gated=false", "kind=max", 'name="3"', "formula=a=b"]
    assert parse_settings(pairs) == {
        "p": 3,
        "levels": [1, 2],
        "gated": False,
        "kind": "max",
        "name": "3",
        "formula": "a=b",
    }


@pytest.mark.parametrize(
    ("name", "content", "labels"),
    [
        ("a.txt", "cat\n dog \n\n", ("cat", "dog")),
        ("b.txt", "chien d'arrêt\r\nчат", ("chien d'arrêt", "чат")),
        ("c.json", json.dumps(["cat", "dog, wet"]), ("cat", "dog, wet")),
    ],
)
def test_labels_are_read_by_line_or_as_json(name: str, content: str, labels: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_labels(tmp_path / name) == labels


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", ""), ("b.txt", "cat\n\ndog"), ("c.json", "{}"), ("d.json", "[1]"), ("e.json", "[]"), ("f.json", "no")],
)
def test_labels_that_are_none_are_refused(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} should be a list of class names, none empty"):
        read_labels(tmp_path / name)


def test_number_of_classes_comes_from_flag_labels_or_weights() -> None:
    state = {"fc.bias": torch.zeros(7)}
    assert number_of_classes(3, (), state) == 3
    assert number_of_classes(None, ("a", "b"), state) == 2
    assert number_of_classes(None, (), state) == 7
    with pytest.raises(ValueError, match="--num-classes 3 and 2 labels disagree"):
        number_of_classes(3, ("a", "b"), None)
