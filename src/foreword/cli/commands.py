"""The commands by name, in the groups in which ``foreword --help`` lists them.

A command is imported when it is called, or when its help is shown.
"""

from __future__ import annotations

from cyclopts import App, Group, Parameter

HELP = ("--help", "-h", "--help-all")
"""Flags of every command that show its help."""

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "To begin": {
        "demo": ("demo:demo", "Tune a customer-service classifier, score it, answer a few lines."),
        "train": ("train:train", "Tune a prompt on rows of data."),
        "eval": ("evaluate:evaluate", "Score a prompt on rows."),
        "predict": ("predict:predict", "Answer texts, or the rows of a file."),
    },
    "Rows": {
        "data check": (
            "check:check",
            "Say what files of rows hold and what is wrong with them.",
        ),
        "data clean": ("data:clean", "Write the rows of a file that are worth training on."),
        "data split": ("data:split", "Divide a file into train, dev and test."),
        "augment": ("augment:augment", "Write new rows of each label."),
    },
    "More training": {
        "search": ("search:search", "Find the best prompt that some minutes can find."),
        "retune": ("retune:retune", "Make a folder of prompts anew on another model."),
        "compare": ("compare:compare", "Tune and score several methods on the same rows."),
        "plot": ("plot:plot", "Draw the curves of a run."),
        "report": ("report:report", "Write a page on what prompts are worth, changed and cost."),
        "multitask": ("multitask:multitask", "Tune a prompt for each of several tasks in one run."),
        "compress": ("compress:compress", "Press a long text into a short prefix."),
        "pretrain": ("pretrain:pretrain", "Make an LSTM or GRU language model of a text file."),
    },
    "In use": {
        "chat": ("chat:chat", "Talk with a prompt, or with the model alone."),
        "serve": ("serve:serve", "Serve a folder of prompts over HTTP, as OpenAI's API."),
    },
    "Prompt files": {
        "info": ("info:info", "Show what a prompt file holds."),
        "explain": ("explain:explain", "Say what a prompt has learned, and why it answers so."),
        "prune": ("prune:prune", "Drop what a prompt can spare, and keep it in fewer bytes."),
        "labels": ("labels:labels", "Show a prompt's labels, add one, take one away."),
        "labels add": ("labels:add", "Add a label to a prompt without training."),
        "labels remove": ("labels:remove", "Take a label away from a prompt."),
        "library": ("library:library", "Show the prompts in a folder, and which are alike."),
        "compose": ("compose:compose", "Make one prompt of several."),
        "export": ("exchange:export", "Write a prompt for another program."),
        "import": ("exchange:import_", "Read a prompt of another program."),
    },
}
"""Each command's ``"module:function"`` below ``foreword.cli``, and a line about it."""

COMMANDS = {name: about for group in GROUPS.values() for name, about in group.items()}

app = App(
    name="foreword",
    help="Tunes a few words in front of a frozen language model.",
    version_flags=["--version"],
    help_format="plaintext",  # markdown takes a while to import
    default_parameter=Parameter(negative=""),  # no --no-x and no --empty-x
    suppress_keyboard_interrupt=False,  # Ctrl-C is answered in main.py
    group_commands=Group("More", sort_key=len(GROUPS)),
)

for _number, (_title, _commands) in enumerate(GROUPS.items()):
    _group = Group(_title, sort_key=_number)
    for _place, (_name, (_path, _help)) in enumerate(_commands.items()):
        _above, _, _below = _name.rpartition(" ")
        if _above in COMMANDS:  # an App of its own, which has them already
            continue
        if _above and _above not in app:
            app.command(
                App(name=_above, help="Check, clean and split files of rows.", group=_group)
            )
        _own = {} if f"{_name} add" in COMMANDS else {"help_flags": HELP}  # an App has its flags
        (app[_above] if _above else app).command(
            f"foreword.cli.{_path}",
            name=_below,
            help=_help,
            group=_group,
            sort_key=_place,
            **_own,
        )

app.command(
    "foreword.cli.completion:install",
    name="--install-completion",
    help="Complete commands, flags and values in this shell.",
    help_flags=HELP,
)
