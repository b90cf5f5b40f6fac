"""The study: where trials are kept, and what they are of."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.errors import UserError
from foreword.files import check_place

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import BaseStorage

HEARTBEAT = 10
"""Seconds between the signs of life of a running trial, where a database keeps them."""

ABOUT = "foreword"
"""The attribute of a study that says what it is of."""

STARTUP = 8
"""Trials at random before the sampler goes by those that have ended."""


def need_optuna() -> None:
    """Raise UserError where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("a search needs Optuna; pip install 'foreword[search]'") from None


@contextmanager
def optuna_quiet() -> Iterator[None]:
    """Keep Optuna from printing what the search says itself.

    Not all of what is used here is settled in Optuna, which it would warn of.
    """
    need_optuna()
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def open_storage(where: str | Path | None, *, join: bool = False) -> BaseStorage:
    """Open a storage: a database by its URL, a journal file by its path, or one in memory (None).

    Raises UserError for what cannot be reached or is something else.
    """
    from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if where is None:
        return InMemoryStorage()
    name = str(where)
    try:
        if "://" in name:
            options = {"connect_args": {"timeout": 60}} if name.startswith("sqlite") else None
            return RDBStorage(
                name, options, heartbeat_interval=HEARTBEAT, grace_period=6 * HEARTBEAT
            )
        path = check_place(Path(name))
        if join and not path.exists():
            raise UserError(f"`storage={name}`: there is no such file, and so no study to join")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_bytes()[:1] not in (b"", b"{"):
            raise UserError(f"`storage={name}`: is another file than the journal of a study")
        return JournalStorage(JournalFileBackend(str(path)))
    except UserError:
        raise
    except ImportError:
        raise UserError(
            f"`storage={name}`: Python's driver of that database is missing; install it (such as "
            "psycopg2 or PyMySQL), or give a file"
        ) from None
    except Exception as error:  # of SQLAlchemy and its drivers, or of a file that is no journal
        raise UserError(f"`storage={name}`: cannot be used ({_first_line(error)})") from None


def open_study(
    storage: BaseStorage,
    name: str | None,
    about: Mapping[str, Any],
    *,
    seed: int,
    resume: bool = False,
    join: bool = False,
) -> Study:
    """Begin a study, go on with it (``resume``), or take part in it (``join``).

    ``about`` are plain values that say what it is of.

    Raises UserError for one that is there already, or is not, and for one of something else.
    """
    import optuna
    from optuna.pruners import SuccessiveHalvingPruner
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    there = optuna.get_all_study_names(storage)
    if join and name is None and len(there) == 1:
        name = there[0]
    name = name or "search"
    if name in there and not (resume or join):
        raise UserError(
            f"a study '{name}' is there already; `resume` goes on with it, and another `study` or "
            "`storage` begins one"
        )
    if join and name not in there:
        known = f"it has {', '.join(there)}" if there else "it has none"
        raise UserError(f"`study={name}`: there is no such study to join; {known}")
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        direction="maximize",
        load_if_exists=True,
    )
    kept = study.user_attrs.get(ABOUT)
    if kept is None:
        study.set_user_attr(ABOUT, json.loads(json.dumps(about)))
    else:
        _check_same(name, kept, json.loads(json.dumps(about)))
    if resume:
        for trial in study.get_trials(states=[TrialState.RUNNING]):
            if not getattr(storage, "heartbeat_interval", None):  # it would not be known as dead
                study.tell(trial.number, state=TrialState.FAIL)
    known_trials = len(study.trials)
    study.sampler = TPESampler(
        seed=None if join else seed + known_trials,
        n_startup_trials=STARTUP,
        multivariate=True,
        group=True,
        constant_liar=True,
    )
    return study


def _check_same(name: str, kept: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Raise UserError where a study is of something else."""
    for key, value in about.items():
        if kept.get(key) != value:
            raise UserError(
                f"study '{name}' is of another {key} than is given now; give what it was begun "
                "with, or begin another one with `study`"
            )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
