"""The commands as people use them: what they print, what they write, and where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from foreword.backbone.backbone import Backbone
from foreword.cli import demo
from foreword.data.read import read_rows
from foreword.data.row import Row
from foreword.data.sample import per_class
from foreword.evaluation.evaluate import evaluate
from foreword.export.base import NotVerified, Verified
from foreword.export.registry import EXPORTS
from foreword.prompt.prompt import Prompt
from foreword.training.settings import Training
from toys import get, rows, write

Cli = Callable[..., Any]


def one_object(text: str) -> dict[str, Any]:
    """The one JSON object that is all of the standard output."""
    assert text.endswith("\n")
    assert text.count("\n") == 1
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def fits(text: str) -> None:
    assert text.strip()
    assert max(map(len, text.splitlines())) <= 80, text


# train --------------------------------------------------------------------------------------------


def test_train_writes_a_prompt_and_says_so(world: Any, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "sub" / "p.safetensors"
    answer = cli(*world.train(out, "--method", "soft", "--length", "3"))
    assert answer.status == 0
    assert answer.out.startswith(f"{out}: ")
    assert "96 numbers; dev accuracy" in answer.out
    assert answer.err.splitlines()[-1] == f"curves: foreword plot {out.parent / 'p.log.jsonl'}"
    prompt = Prompt.load(out)
    assert prompt.method["name"] == "soft"
    assert prompt.task.labels == {"good": (" good",), "bad": (" bad",)}  # type: ignore[attr-defined]
    assert sorted(p.name for p in out.parent.iterdir()) == ["p.log.jsonl", "p.safetensors"]


def test_train_says_what_it_trains_and_keeps_the_settings(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    """One line, or with --verbose the settings that the run has come to."""
    out = tmp_path / "p.safetensors"
    given = world.train(out, "--lr", "0.02", "--shots", "2")
    line = (
        "2 labels, 24 rows: prefix, since label words score few labels better than a head "
        "(up to 4)\ntuning prefix (2112 numbers) for classify on model: 24 rows, 8 dev rows, "
        "1 epoch, 3 steps"
    )
    assert cli(*given).err.startswith(f"{line}\nstep 0 of 3: ")
    answer = cli(*given, "--verbose", "--json")
    assert answer.err.startswith(f"{line}\n")
    result = one_object(answer.out)
    assert result["out"] == str(out)
    assert result["dev"].keys() == {"accuracy", "rows"}
    assert result["seconds"] > 0
    assert result["parameters"] == sum(
        tensor.numel() for _, tensor in Prompt.load(out).injection.tensors()
    )
    shown = [line.split() for line in answer.err.splitlines()]
    for name, value in (("method", "prefix"), ("shots", "2"), ("rate", "0.02"), ("epochs", "1")):
        assert [name, value] in shown
    assert ["labels", "bad,", "good"] in shown  # from the rows
    log = json.loads((tmp_path / "p.log.jsonl").read_text("utf-8").splitlines()[0])["config"]
    log["data"].pop("demonstrations")
    assert result["config"] == log
    assert Prompt.load(out).method == log["method"]
    assert log["method"]["training"]["rate"] == 0.02


def test_train_scores_test_rows_and_keeps_the_scores(world: Any, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    answer = cli(*world.train(out, "--test", world.path("test.jsonl"), "--json"))
    result = one_object(answer.out)
    prompt = Prompt.load(out, get_model(world))
    assert result["test"] == prompt.scores["test"]
    assert result["test"]["rows"] == 12
    expected = evaluate(prompt, world.path("test.jsonl"))
    assert result["test"]["accuracy"] == expected["accuracy"]
    answer = cli(*world.train(out, "--test", world.path("test.jsonl")))
    assert "macro F1" in answer.out
    fits("\n".join(answer.out.splitlines()[1:]))


def get_model(world: Any) -> Any:
    from foreword.backbone.backbone import Backbone

    return Backbone.load(world.path("model"))


def test_train_takes_some_of_the_rows_by_the_seed(world: Any, cli: Cli, tmp_path: Path) -> None:
    digests = []
    for seed in ("0", "0", "1"):
        answer = cli(
            *world.train(tmp_path / "p.safetensors", "--rows", "12", "--dev-rows", "4"),
            *("--seed", seed, "--json"),
        )
        data = one_object(answer.out)["config"]["data"]
        assert [data["train"]["rows"], data["dev"]["rows"]] == [12, 4]
        digests.append(data["train"]["sha256"])
    assert digests[0] == digests[1] != digests[2]


def test_train_reads_other_columns_and_labels_with_words(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    data = tmp_path / "d.csv"
    data.write_text("sentence,class\n" + "it was a film,1\nbad film,0\n" * 6)
    answer = cli(
        *world.train(tmp_path / "p.safetensors", "--train", data, "--dev", data, "--json"),
        *("--columns", "text=sentence", "label=class", "--labels", "1=good,a good film", "0= bad"),
    )
    task = one_object(answer.out)["config"]["task"]
    assert task["labels"] == {"1": [" good", " a good film"], "0": [" bad"]}


def test_train_holds_rows_back_and_says_so(world: Any, cli: Cli, tmp_path: Path) -> None:
    arguments = world.train(tmp_path / "p.safetensors")
    at = arguments.index("--dev")
    answer = cli(*arguments[:at], *arguments[at + 2 :])
    assert answer.status == 0
    assert "no dev rows given: 2 of the training rows are held back" in answer.err


def test_train_announces_rows_that_were_cut(world: Any, cli: Cli, tmp_path: Path) -> None:
    long = write(tmp_path / "long.jsonl", rows(8))
    text = long.read_text().replace('"text": "', '"text": "' + "film " * 60)
    long.write_text(text)
    answer = cli(*world.train(tmp_path / "p.safetensors", "--train", long, "--max-length", "30"))
    assert answer.status == 0
    assert "8 of 8 training rows were too long and were cut" in answer.err


@pytest.mark.parametrize("suffix", ["yaml", "toml"])
def test_a_run_file_gives_settings_and_flags_win(
    suffix: str, world: Any, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "p.safetensors"
    settings = {
        "model": world.path("model"),
        "train": world.path("train.jsonl"),
        "dev": world.path("dev.jsonl"),
        "template": "{text} :",
        "method": "soft",
        "length": 5,
        "batch-size": 8,
        "epochs": 3,
        "out": str(out),
    }
    lines = [f"{k}: {json.dumps(v)}" for k, v in settings.items()] + ["lr: 1e-3"]
    lines += ["labels:", '  good: "good"', '  bad: [bad, " a bad film"]']
    if suffix == "toml":
        lines = [f"{k} = {json.dumps(v)}" for k, v in settings.items()] + ["lr = 1e-3"]
        lines += ["[labels]", 'good = "good"', 'bad = ["bad", " a bad film"]']
    file = tmp_path / f"run.{suffix}"
    file.write_text("\n".join(lines))
    answer = cli("train", "--config", file, "--epochs", "1", "--json")
    assert answer.status == 0, answer.err
    config = one_object(answer.out)["config"]
    assert config["method"]["length"] == 5
    assert config["method"]["training"]["epochs"] == 1
    assert config["method"]["training"]["rate"] == 1e-3
    assert config["method"]["training"]["batch_size"] == 8
    assert config["task"]["labels"]["bad"] == [" bad", " a bad film"]


def test_train_generation(world: Any, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "g.safetensors"
    answer = cli(
        *world.train(out, "--task", "generate", "--max-new-tokens", "4", "--beams", "2"),
        *("--stop", "x", "--test", world.path("test.jsonl"), "--json"),
    )
    result = one_object(answer.out)
    assert result["dev"].keys() == {"log-likelihood", "rows"}
    assert {"bleu", "chrf", "rouge_l", "exact_match"} <= result["test"].keys()
    decoding = result["config"]["task"]["decoding"]
    assert (decoding["max_new_tokens"], decoding["beams"], decoding["stop"]) == (4, 2, ["x"])


def test_a_generation_ends_with_a_sample(world: Any, cli: Cli, tmp_path: Path) -> None:
    data = write(tmp_path / "t.jsonl", rows(3))
    more = ("--task", "generate", "--template", "{text} =", "--max-new-tokens", "3")
    given = world.train(tmp_path / "p.safetensors", *more, "--train", data, "--dev", data)
    shown = cli(*given).out.splitlines()[1:]
    assert shown[:2] == ["", f"a sample, {data}:1"]
    assert [line.split()[0] for line in shown[2:]] == ["text", "answer", "right"]
    assert shown[-1].split() == ["right", "answer", "good", "film"]


def test_a_sample_without_spaces_is_cut_and_not_left_out(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    data = tmp_path / "t.jsonl"
    data.write_text(3 * (json.dumps({"text": "film" * 99, "completion": "good"}) + "\n"))
    more = ("--task", "generate", "--template", "{text} =", "--max-new-tokens", "3")
    given = world.train(tmp_path / "p.safetensors", *more, "--train", data, "--dev", data)
    assert "".join(cli(*given).out.split()).count("film") >= 59


def test_a_preset_says_what_it_is_for_and_what_comes_next(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    answer = cli(*world.train(tmp_path / "p.safetensors", "--preset", "fast", "--shots", "2"))
    assert answer.status == 0, answer.err
    assert answer.err.startswith("preset fast: one pass over the rows, for a first impression;")
    last = answer.err.splitlines()[-1]
    assert last.startswith("next, for a higher score: --preset balanced")


def test_train_and_test_rows_of_another_shape_are_read_as_that(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    data = tmp_path / "alpaca.jsonl"
    row = {"instruction": "a film", "input": "it", "output": "good"}
    data.write_text((json.dumps(row) + "\n") * 4)
    arguments = ["train", "--model", world.path("model"), "--task", "generate"]
    arguments += ["--method", "soft", "--epochs", "1", "--max-new-tokens", "3"]
    for flag in ("--train", "--dev", "--test"):
        arguments += [flag, str(data)]
    answer = cli(*arguments, "--out", tmp_path / "g.safetensors", "--json")
    assert answer.status == 0, answer.err
    assert one_object(answer.out)["config"]["task"]["template"] == "{prompt}\n"


def test_resume_goes_on_and_anything_else_is_refused(world: Any, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    answer = cli(*world.train(out, "--resume"))
    assert answer.status == 0
    assert "nothing to resume" in answer.err


# eval ---------------------------------------------------------------------------------------------


def test_eval_prints_one_table_with_the_baselines(world: Any, cli: Cli) -> None:
    answer = cli(
        "eval", world.path("p.safetensors"), "--data", world.path("test.jsonl"), "--baselines"
    )
    assert answer.status == 0
    fits("\n".join(answer.out.splitlines()[1:]))
    for part in ("prompt", "zero-shot", "4 demonstrations in context", "accuracy", "precision"):
        assert part in answer.out
    assert answer.out.splitlines()[0].endswith("12 rows, 95% intervals")


def test_eval_json_has_the_scores_and_the_baselines(world: Any, cli: Cli) -> None:
    arguments = ["eval", world.path("p.safetensors"), "--data", world.path("test.jsonl")]
    result = one_object(cli(*arguments, "--baselines", "--json").out)
    assert {"accuracy", "macro_f1", "rows", "baselines", "cut"} <= result.keys()
    assert list(result["baselines"]) == ["zero-shot", "demonstrations"]
    assert {"accuracy", "macro_f1", "rows"} <= result["baselines"]["zero-shot"].keys()
    rows = ("--baselines", "--train", world.path("train.jsonl"))
    probe = one_object(cli(*arguments, *rows, "--json").out)["baselines"]["probe"]
    assert probe["model"] == "logistic regression"
    shown = cli(*arguments, *rows)
    fits("\n".join(shown.out.splitlines()[1:]))
    for part in ("logistic regression on states", "of 100 rows"):
        assert part in shown.out
    assert "give the rows that the prompt was tuned on with --train" in cli(*arguments, rows[0]).err
    alone = one_object(cli(*arguments, "--json", "--rows", "5").out)
    assert alone["rows"] == 5
    assert "baselines" not in alone


def test_eval_of_another_model_needs_force(world: Any, cli: Cli) -> None:
    arguments = ["eval", world.path("p.safetensors"), "--data", world.path("test.jsonl")]
    other = [*arguments, "--model", world.path("other")]
    refused = cli(*other)
    assert refused.status == 2
    assert "was tuned on" in refused.err
    forced = cli(*other, "--force", "--json")
    assert forced.status == 0
    assert one_object(forced.out)["rows"] == 12


# predict ------------------------------------------------------------------------------------------


def test_predict_answers_texts_as_the_prompt_does(world: Any, cli: Cli) -> None:
    texts = ["a film", "bad bad film", "[b]it[/b] :smile:"]
    answer = cli("predict", world.path("p.safetensors"), *texts)
    assert answer.status == 0
    expected = Prompt.load(world.path("p.safetensors"), get_model(world)).predict(texts)
    assert [line.split()[0] for line in answer.out.splitlines()] == expected
    assert all("%)" in line for line in answer.out.splitlines())


def test_predict_json_has_every_row_with_probabilities(world: Any, cli: Cli) -> None:
    result = one_object(cli("predict", world.path("soft.safetensors"), "a", "b", "--json").out)
    assert result["rows"] == 2
    for line, text in zip(result["predictions"], ("a", "b"), strict=True):
        assert line["text"] == text
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert line["label"] == max(line["probabilities"], key=line["probabilities"].__getitem__)


def test_predict_writes_rows_to_a_file(world: Any, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "sub" / "answers.jsonl"
    data = write(tmp_path / "d.jsonl", rows(5))
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    for line in lines:
        del line["label"]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["predict", world.path("p.safetensors"), "--data", data, "--out", out]
    answer = cli(*arguments)
    assert answer.status == 0
    assert answer.out == ""
    found = [row.fields for row in read_rows(out)]
    assert [row["text"] for row in found] == [line["text"] for line in lines]
    assert {row["label"] for row in found} <= {"good", "bad"}
    assert one_object(cli(*arguments, "--json").out)["out"] == str(out)


def test_predict_texts_that_look_like_flags_stand_after_two_dashes(world: Any, cli: Cli) -> None:
    answer = cli("predict", world.path("p.safetensors"), "--json", "--", "-1 star", "--bad")
    assert [line["text"] for line in one_object(answer.out)["predictions"]] == ["-1 star", "--bad"]


def test_predicted_text_is_printed_as_it_is(
    world: Any, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brackets are no markup to the terminal, and a name between colons is no picture."""
    from foreword.tasks.labels.classifier import Classifier

    label = "[bold]:smile:[/bold] " + "long " * 20
    monkeypatch.setattr(Classifier, "predict", lambda *_, **__: [{"label": label, "cut": False}])
    assert cli("predict", world.path("p.safetensors"), "a").out == f"{label}\n"


# info, export, import -----------------------------------------------------------------------------


def test_info_shows_the_file_without_its_model(world: Any, cli: Cli, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    shutil.copy(world.path("soft.safetensors"), copy)
    answer = cli("info", copy)
    assert answer.status == 0
    fits(answer.out)
    for part in ("{text} :", "soft", "fingerprint", "accuracy"):
        assert part in answer.out
    result = one_object(cli("info", copy, "--json").out)
    assert result["virtual tokens"] == 20
    assert result["tensors"] == {"embeds": [20, 32]}
    assert result["parameters"] == 640
    assert result["bytes"] == copy.stat().st_size
    prefix = one_object(cli("info", world.path("p.safetensors"), "--json").out)
    assert prefix["virtual tokens"] == next(iter(prefix["tensors"].values()))[1]


def test_info_shows_brackets_of_a_template(world: Any, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "p.safetensors"
    template = "[soft:2]{text} [[b]] :"
    cli(*world.train(out, "--method", "soft", "--template", template))
    assert template in cli("info", out).out.replace("\n", "").replace(" " * 10, "")
    assert one_object(cli("info", out, "--json").out)["virtual tokens"] == 2


@pytest.mark.parametrize("kind", [None, "PREFIX_TUNING", "CARTRIDGE"])
def test_export_and_import_give_the_prompt_back(
    kind: str | None, world: Any, cli: Cli, tmp_path: Path
) -> None:
    flags = [] if kind is None else ["--kind", kind]
    answer = cli("export", world.path("p.safetensors"), tmp_path / "peft", *flags, "--json")
    folder = tmp_path / "peft"
    assert one_object(answer.out) == {
        "out": str(folder),
        "format": "peft",
        "opened": f"model = peft.AutoPeftModelForCausalLM.from_pretrained('{folder}')",
        "template": "{text} :",
        "add_special_tokens": True,
        "notes": [],
    }
    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["peft_type"] == (kind or "PREFIX_TUNING")
    out = tmp_path / "back.safetensors"
    answer = cli(
        *("import", tmp_path / "peft", "--model", world.path("model"), "--out", out, "--json"),
        *("--template", "{text} :", "--labels", "good", "bad"),
    )
    assert one_object(answer.out) == {"out": str(out)}
    before, after = Prompt.load(world.path("p.safetensors")), Prompt.load(out)
    for (name, one), (other, two) in zip(
        before.injection.tensors(), after.injection.tensors(), strict=True
    ):
        assert name == other
        assert torch.equal(one, two)
    assert {**after.task.labels} == {"good": (" good",), "bad": (" bad",)}  # type: ignore[attr-defined]
    assert answer.err == ""
    named = config | {"base_model_name_or_path": "hub/other-model"}
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps(named))
    asked = ("import", tmp_path / "peft", "--model", world.path("model"), "--template", "{text} :")
    answer = cli(*asked, "--out", out, "--labels", "good", "bad")
    assert answer.status == 0, answer.err
    assert answer.err.count("\n") == 1
    assert "is of the model hub/other-model, and was read for " in answer.err


def test_an_import_leaves_the_folder_that_it_reads(world: Any, cli: Cli, tmp_path: Path) -> None:
    assert cli("export", world.path("p.safetensors"), tmp_path / "peft").status == 0
    weights = tmp_path / "peft" / "adapter_model.safetensors"
    before = weights.read_bytes()
    asked = ("import", tmp_path / "peft", "--model", world.path("model"), "--template", "{text} :")
    answer = cli(*asked, "--out", weights, "--labels", "good", "bad")
    assert answer.status == 2
    assert answer.err == (
        f"foreword: {weights}: is part of what is read, which stays; name another file\n"
    )
    assert weights.read_bytes() == before


def test_export_says_that_rows_have_no_bos(world: Any, cli: Cli, tmp_path: Path) -> None:
    prompt, path = Prompt.load(world.path("p.safetensors")), tmp_path / "begins.safetensors"
    plain = cli("export", world.path("p.safetensors"), tmp_path / "plain")
    assert "add_special_tokens" not in plain.out
    replace(prompt, injection=replace(prompt.injection, bos=1)).save(path)
    assert "add_special_tokens=False" in cli("export", path, tmp_path / "one").out
    answer = cli("export", path, tmp_path / "two", "--json")
    assert one_object(answer.out)["add_special_tokens"] is False


def test_export_compares_with_a_model_where_one_is_given(
    world: Any, cli: Cli, tmp_path: Path
) -> None:
    prompt = world.path("p.safetensors")
    answer = cli("export", prompt, tmp_path / "peft", "--model", world.path("model"))
    assert answer.status == 0
    assert "written for peft" in answer.out
    for to in ("peft", "vllm", "mlx", "onnx"):
        answer = cli("export", prompt, tmp_path / "two", "--to", to, "--model", world.path("other"))
        assert answer.status == 2
        assert answer.err.count("\n") == 1
        assert not (tmp_path / "two").exists()
    upper = tmp_path / "upper.safetensors"
    assert cli(*world.train(upper, "--first-layer", "1")).status == 0
    for more in ([], ["--model", world.path("model")]):
        answer = cli("export", upper, tmp_path / "two", *more)
        assert answer.status == 2
        assert "cannot become a PEFT adapter" in answer.err


@dataclass(frozen=True)
class Tried:
    """A format of a program that agrees with Foreword in half of all answers."""

    suffix: ClassVar[str] = ".tried"

    def write(self, prompt: Prompt, path: Path) -> Path:
        return prompt.save(path)

    def verify(self, prompt: Prompt, path: Path, rows: list[Row]) -> Verified | NotVerified:
        if prompt.injection.kv:
            return Verified("tried 1.2", len(rows), 0.5, 0.001234)
        return NotVerified("tried is not installed")

    def notes(self, prompt: Prompt, rows: list[Row]) -> list[str]:
        return [f"noted on {len(rows)} rows"]


def test_export_writes_several_prompts_and_says_how_each_was_tried(
    world: Any, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPORTS.entries, "without-texts", Tried)  # a name that flags know
    both = [world.path("p.safetensors"), world.path("soft.safetensors")]
    shared = ["--to", "without-texts", "--data", world.path("dev.jsonl"), "--rows", "3"]
    shown = cli("export", *both, tmp_path / "all", *shared)
    assert shown.status == 0, shown.err
    assert "tried 1.2: 50% of 3 answers are the same, largest difference 1.2e-03" in shown.out
    assert "not tried: tried is not installed" in shown.out
    assert shown.out.count("noted on 3 rows") == 2
    assert sorted(each.name for each in (tmp_path / "all").iterdir()) == ["p.tried", "soft.tried"]
    told = cli("export", *both, tmp_path / "more", *shared, "--json").json
    assert [Path(each["out"]).name for each in told["prompts"]] == ["p.tried", "soft.tried"]
    found = cli("export", both[0], "--out", tmp_path / "one", *shared, "--json").json["verified"]
    assert found == {"runtime": "tried 1.2", "rows": 3, "equal": 0.5, "difference": 0.001234}
    few = write(tmp_path / "few.jsonl", rows(2))
    shared[3] = few
    found = cli("export", both[0], "--out", tmp_path / "two", *shared, "--json").json["verified"]
    assert found["rows"] == 2


def test_prompts_of_one_name_are_exported_under_numbers(
    world: Any, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXPORTS.entries, "without-texts", Tried)
    paths = [tmp_path / name / "p.safetensors" for name in ("one", "two")]
    for path in paths:
        path.parent.mkdir()
        shutil.copy(world.path("p.safetensors"), path)
    assert cli("export", *paths, tmp_path / "all", "--to", "without-texts").status == 0
    assert {each.name for each in (tmp_path / "all").iterdir()} == {"p.tried", "p-2.tried"}
    assert [[*path.parent.iterdir()] for path in paths] == [[path] for path in paths]


def test_export_tries_only_what_it_can(world: Any, cli: Cli, tmp_path: Path) -> None:
    prompt, data = world.path("p.safetensors"), world.path("dev.jsonl")
    answer = cli("export", prompt, tmp_path / "x", "--to", "text", "--data", data)
    assert answer.status == 2
    assert "what is written for text is not tried here" in answer.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("given", [[], ["p"], ["--out", "p"]])
def test_export_asks_for_what_is_missing(given: list[str], cli: Cli) -> None:
    answer = cli("export", *given)
    assert answer.status == 2
    assert "name the prompt, and then the folder or file to write" in answer.err


# demo ---------------------------------------------------------------------------------------------


def test_the_demo_tunes_scores_and_answers(
    world: Any, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its own rows, but fewer, and a tiny model."""
    whole = demo.folder()
    data = tmp_path / "support"
    data.mkdir()
    for name, each in (("train", 2), ("dev", 1), ("test", 1)):
        chosen = per_class(read_rows(whole / f"{name}.jsonl"), each, 0, "label")
        write(data / f"{name}.jsonl", chosen)
    monkeypatch.setattr(demo, "folder", lambda: data)
    monkeypatch.setattr(demo, "Training", lambda **_: Training(epochs=1))
    monkeypatch.setattr(Backbone, "load", lambda name, **_: get())
    out = tmp_path / "out" / "support.safetensors"
    answer = cli("demo", "--out", out)
    assert answer.status == 0, answer.err
    for part in (
        "prompt",
        "zero-shot",
        "10 demonstrations in context",
        "regression on states",
        *demo.LINES,
        str(out),
    ):
        assert part in answer.out
    result = one_object(cli("demo", "--out", out, "--json").out)
    assert {"accuracy", "baselines", "out", "seconds", "answers"} <= result.keys()
    assert list(result["answers"]) == list(demo.LINES)
