"""Settings: a run file below, flags above, and every configuration's fields as flags."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from foreword.backbone.decode import Decoding
from foreword.cli.exchange import TaskFlags
from foreword.cli.flags import FLAGS, RUN, Flag, Flags
from foreword.cli.label_words import read_label_words
from foreword.cli.run_file import read_mapping
from foreword.cli.settings import compared, settings, settings_from, task_alone
from foreword.cli.words import columns, parse_labels
from foreword.errors import UserError
from foreword.methods.auto import Auto
from foreword.methods.head import Head
from foreword.methods.parts.several import Several
from foreword.methods.prefix import Prefix
from foreword.methods.registry import METHODS
from foreword.methods.soft import Soft
from foreword.tasks.classify import Classify
from foreword.tasks.generate import Generate
from foreword.tasks.registry import TASKS
from foreword.training.presets import PRESETS, preset
from foreword.training.settings import Training


def test_every_field_of_every_configuration_is_a_flag_with_help() -> None:
    fields = {
        each.name
        for config in (*TASKS.values(), *METHODS.values(), Training, Decoding)
        for each in dataclasses.fields(config)  # type: ignore[arg-type]
    } - {"decoding"}
    flags = {each.name for each in dataclasses.fields(Flags)}  # type: ignore[arg-type]
    assert flags == fields | set(RUN) == set(FLAGS)
    for name, each in FLAGS.items():
        assert all(own.help for own in each.owners.values()), name


def test_a_flag_says_whose_it_is() -> None:
    assert FLAGS["rank"].panel == "Method lora"
    assert FLAGS["bottleneck"].panel == "Method"
    assert FLAGS["bottleneck"].help == (
        "attempt: inner width of the attention over the sources; adapter: inner width of an adapter"
    )
    assert FLAGS["label_field"].panel == "Task"
    assert FLAGS["rate"].panel == "Training"
    assert FLAGS["rate"].help == "learning rate; else the method's own"
    assert FLAGS["method"].help.endswith(f": auto, {', '.join(METHODS)}")
    assert (FLAGS["rank"].default, FLAGS["bottleneck"].default) == ("8", "")


def test_a_flag_of_one_task_or_method_says_what_it_is_there() -> None:
    def of(name: str, **chosen: str) -> Flag:
        narrowed = FLAGS[name].of({kind: [each] for kind, each in chosen.items()})
        assert narrowed is not None
        return narrowed

    length, rate = of("length", method="soft"), of("rate", method="lora")
    assert (length.help, length.panel) == ("number of virtual tokens", "Method soft")
    assert (rate.help, rate.default, rate.panel) == (FLAGS["rate"].help, "0.001", "Training")
    assert FLAGS["rate"].default == ""
    assert of("max_new_tokens", task="answer").default == "32"
    assert of("stop", task="translate").default == r"\n"
    assert of("beams", task="chat").panel == "Decoding"
    assert of("epochs", task="chat", method="soft") == FLAGS["epochs"]
    assert FLAGS["length"].of({"method": ["lora"]}) is None
    assert FLAGS["labels"].of({"task": ["generate"]}) is None


def test_without_settings_everything_is_as_its_configuration_says() -> None:
    made = settings(Flags(), None)
    assert made.task == Classify()
    assert made.method == Auto()
    assert made.training == Training()
    assert made.plain == {name: each.default for name, each in RUN.items()}


def test_each_setting_goes_where_it_belongs() -> None:
    made = settings(
        Flags(
            task="generate", method="soft", length=3, rate=0.1, seed=7, beams=2, stop=["\n", "."]
        ),
        None,
    )
    assert made.method == Soft(length=3)
    assert made.training == Training(rate=0.1, seed=7)
    assert made.task == Generate(decoding=Decoding(beams=2, stop=("\n", "."), seed=7))


def test_a_json_schema_is_read_for_every_command(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('\ufeff{"type": "integer"}', "utf-8")  # as Windows writes it
    given = {"task": "generate", "json_schema": str(file)}
    for task in (
        compared(dict(given), ["soft"]).task,
        settings_from(dict(given), "run.yaml").task,
        settings(Flags(**given), None).task,
        task_alone(TaskFlags(**given))[1],
    ):
        assert task == Generate(decoding=Decoding(json_schema='{"type": "integer"}'))


@pytest.mark.parametrize("suffix", [".yaml", ".toml"])
def test_a_run_file_of_windows(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"run{suffix}"
    file.write_text(f"\ufeffepochs {'=' if suffix == '.toml' else ':'} 9\n", "utf-8")
    assert read_mapping(file) == {"epochs": 9}


@pytest.mark.parametrize("suffix", [".yaml", ".toml"])
def test_flags_win_over_the_run_file(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"run{suffix}"
    sign = " =" if suffix == ".toml" else ":"
    given = {"epochs": 9, "lr": 0.5, "first-layer": 2, "batch_size": 3, "checkpointing": "true"}
    file.write_text("".join(f"{name}{sign} {value}\n" for name, value in given.items()))
    made = settings(Flags(epochs=1, checkpointing=False), file)
    assert made.training == Training(epochs=1, rate=0.5, batch_size=3)
    assert made.method == Auto(Prefix(first_layer=2))


@pytest.mark.parametrize("number", ["1e-3", "0.001", "1.0e-3", "'1e-3'"])
def test_yaml_numbers_are_numbers_however_they_are_written(number: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"lr: {number}\n")
    assert settings(Flags(), file).training.rate == 1e-3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: '1e-3'", "'seed' is '1e-3', expected a whole number"),
        ("columns: {text: sentence}", "'columns' is .*, expected a list of texts"),
        ("columns: [1]", "expected a list of texts"),
        ("train: 3", "'train' is 3, expected text"),
        ("labels: {a: 1, b: 2}", "labels"),
        ("labels: [1, 2]", "labels hold 1, which is no text; put it in quotes"),
        ("decoding: {beams: 2}", "unknown setting 'decoding'"),
        ("truncate: middle", "'truncate' is 'middle'"),
    ],
)
def test_a_run_file_of_wrong_types_is_refused(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        settings(Flags(), file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lr: 1e-4,", "setting 'lr' is '1e-4,', expected a number"),
        ("batch-size: 1e3", "setting 'batch-size' is 1000.0, expected a whole number"),
        ("max-length: ten", "setting 'max-length' is 'ten', expected a whole number"),
        ("fit-thresholds: of", "setting 'fit-thresholds' is 'of'; did you mean 'off'?"),
        ("text-field: [text]", "setting 'text-field' is ['text'], expected text"),
        ("lr: 1\nepochs: 1\nlr: 2", ":3: cannot be read (key 'lr' is there twice; leave one out)"),
        ("labels: {a: x, a: y}", ":1: cannot be read (key 'a' is there twice; leave one out)"),
        ("lr: 1\nrate: 2", ": 'lr' and 'rate' are one setting; leave one out"),
        ("batch-size: 1\nbatch_size: 2", "'batch-size' and 'batch_size' are one setting"),
    ],
)
def test_a_mistake_in_a_run_file_is_named_as_it_is_written(
    content: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as caught:
        settings(Flags(), file)
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_file_holds_texts_as_they_are_written(tmp_path: Path) -> None:
    """By YAML 1.1 these were truth values, minutes, octal numbers, dates, floats and nothing."""
    file = tmp_path / "run.yaml"
    labels = {"yes": "yes", "no": "no", "12:30": "a", "01": "b", "1.0": "c", "2024-01-02": "d"}
    more = {"on": "off", "true": "e", "null": "f", "1e3": "g", "": "h"}
    for own in (labels, more):
        lines = "".join(f"  {name or chr(39) * 2}: {word}\n" for name, word in own.items())
        file.write_text(f"labels:\n{lines}")
        spaced = {name: f" {word}" for name, word in own.items()}  # as --labels has them
        assert settings(Flags(), file).task == Classify(labels=spaced)
    file.write_text("labels: [yes, no, 12:30, 2024-01-02]\ntask: classify\n")
    assert set(settings(Flags(), file).task.labels or ()) == {"yes", "no", "12:30", "2024-01-02"}  # type: ignore[attr-defined]
    file.write_text("seed: 010\nepochs: 1_000\nlr: 1e-4\ncheckpointing: yes\ncompile: off\n")
    made = settings(Flags(), file).training
    assert (made.seed, made.epochs, made.rate) == (10, 1000, 1e-4)
    assert (made.checkpointing, made.compile) == (True, "off")
    file.write_text("usual: &u {lr: 1}\n<<: *u\nlr: 2\n")
    assert read_mapping(file) == {"usual": {"lr": 1}, "lr": 2}


@pytest.mark.parametrize("quote", ["'", '"'])
@pytest.mark.parametrize("suffix", [".yaml", ".toml"])
def test_a_new_line_in_a_template_needs_no_certain_quotes(
    quote: str, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"run{suffix}"
    sign = " =" if suffix == ".toml" else ":"
    file.write_text(f"template{sign} {quote}{{text}}\\nLabel:{quote}\n")
    assert settings(Flags(), file).task.template == "{text}\nLabel:"
    file.write_text(f"task{sign} {quote}generate{quote}\nstop{sign} [{quote}\\n{quote}]\n")
    assert settings(Flags(), file).task == Generate(decoding=Decoding(stop=("\n",)))


def test_labels() -> None:
    kept = ["-1=-bad", "C=C++,c-lang,CamelCase , 1/2", "時=時間"]
    assert parse_labels(kept) == {
        "-1": [" -bad"],
        "C": [" C++", " c-lang", " CamelCase", " 1/2"],
        "時": ["時間"],
    }
    assert parse_labels(["good", "card_not-working=not working, broken", "x=a=b"]) == {
        "good": [],  # is read as its name
        "card_not-working": [" not working", " broken"],
        "x": [" a=b"],
    }
    assert parse_labels(["好=满意，很好", "差＝失望、糟糕", "a=＝"]) == {
        "好": ["满意", "很好"],
        "差": ["失望", "糟糕"],
        "a": ["＝"],
    }


def test_words_in_a_file_stand_as_they_are_given(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text("mail: e-mail, C++, Not/So\n-x: [-x, 時間]\n好: 满意，很好\n", "utf-8")
    assert read_label_words(path) == {
        "mail": [" e-mail", " C++", " Not/So"],
        "-x": [" -x", "時間"],
        "好": ["满意", "很好"],
    }


def test_columns() -> None:
    assert columns(["text=sentence", "label=a=b"]) == {"text": "sentence", "label": "a=b"}
    assert columns(None) == {}
    for wrong in ("text", "=x", "text="):
        with pytest.raises(UserError, match="write field=column"):
            columns([wrong])


def test_the_task_of_an_import_takes_its_own_settings_only() -> None:
    plain, task = task_alone(TaskFlags(task="generate", template="{x}", beams=3, seed=5))
    assert task == Generate(template="{x}", decoding=Decoding(beams=3, seed=5))
    assert plain["model"] == "smollm2"
    with pytest.raises(UserError, match="--labels is no setting of task generate"):
        task_alone(TaskFlags(task="generate", labels=["a", "b"]))
    names = {each.name for each in dataclasses.fields(TaskFlags)}  # type: ignore[arg-type]
    assert {"template", "beams", "model", "device"} < names
    assert not names & {"epochs", "length", "method", "train", "rows", "rank", "preset"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_stands_under_what_is_given(name: str, tmp_path: Path) -> None:
    under = PRESETS[name]
    made = settings(Flags(preset=name), None)
    assert (
        (made.method, made.training) == preset(name) == (Auto(rate_alone=1e-2), Training(**under))
    )
    alone = settings(Flags(preset=name, method="prefix"), None)
    assert (alone.method, alone.training) == (Prefix(rate=1e-2), made.training)
    both = settings(Flags(preset=name, method="prefix+head", shots=3), None)
    assert both.method == Several((Prefix(shots=3), Head(shots=3)))
    file = tmp_path / "run.yaml"
    file.write_text(f"preset: {name}\nbatch-size: 3\nfirst-layer: 2\n")
    changed = settings(Flags(epochs=7), file)
    assert (changed.training.epochs, changed.training.batch_size) == (7, 3)
    assert changed.method == Auto(Prefix(first_layer=2), rate_alone=1e-2)


def test_without_a_method_settings_go_to_what_is_chosen_of() -> None:
    given = Flags(shots=3, upper=0.5, head_start="ridge")
    made = settings(given, None).method
    assert made == Auto(Prefix(shots=3, upper=0.5), Head(shots=3, head_start="ridge"))
    assert settings(Flags(method="auto"), None).method == Auto()
    with pytest.raises(UserError, match="--rank is no setting of task classify with method auto"):
        settings(Flags(rank=3), None)
    with pytest.raises(UserError, match="unknown 'auto'"):
        settings(Flags(method="auto+lora"), None)


def test_a_preset_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="unknown preset 'balancd'; did you mean 'balanced'"):
        settings(Flags(preset="balancd"), None)
    with pytest.raises(UserError, match="`preset=best` is for method prefix or"):
        settings(Flags(preset="best", method="soft"), None)
