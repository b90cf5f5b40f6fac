"""The study: where trials are kept, and what they are of."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.errors import UserError
from foreword.files import check_place
from foreword.prompt_search.space import EPOCHS

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

HEARTBEAT = 10
"""Seconds between the signs of life of a running trial, where a database keeps them."""

NAME = "search"
"""The name of a study that is given none."""

ABOUT = "foreword"
"""The attribute of a study that says what it is of."""

PASSWORD = re.compile(r"://(?!/)[^?\s]*@")
"""The name and the password in a database's URL, which no message repeats."""

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
    told = PASSWORD.sub("://", name)
    try:
        if "://" in name:
            if join and (file := _sqlite_file(name)) is not None and not file.exists():
                raise _nothing_to_join(told)
            options = {"connect_args": {"timeout": 60}} if name.startswith("sqlite") else None
            return RDBStorage(
                name, options, heartbeat_interval=HEARTBEAT, grace_period=6 * HEARTBEAT
            )
        path = check_place(Path(name))
        if join and not path.exists():
            raise _nothing_to_join(told)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_bytes()[:1] not in (b"", b"{"):
            raise UserError(f"`storage={told}`: is another file than the journal of a study")
        return JournalStorage(JournalFileBackend(str(path)))
    except UserError:
        raise
    except ImportError:
        raise UserError(
            f"`storage={told}`: Python's driver of that database is missing; install it (such as "
            "psycopg2 or PyMySQL), or give a file"
        ) from None
    except Exception as error:  # of SQLAlchemy and its drivers, or of a file that is no journal
        raise UserError(f"`storage={told}`: cannot be used ({_first_line(error)})") from None


def kept_about(storage: BaseStorage, name: str | None) -> Mapping[str, Any]:
    """Return what a study that is there is of; nothing of one that is not."""
    import optuna

    there = optuna.get_all_study_names(storage)
    name = there[0] if name is None and len(there) == 1 else name
    if name not in there:
        return {}
    return dict(optuna.load_study(study_name=name, storage=storage).user_attrs.get(ABOUT, {}))


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
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    there = optuna.get_all_study_names(storage)
    if join and name is None and len(there) == 1:
        name = there[0]
    name = name or NAME
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
        pruner=halving(),
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
        seed=None if join else (seed + known_trials) % 2**32,
        n_startup_trials=STARTUP,
        multivariate=True,
        group=True,
        constant_liar=True,
    )
    return study


def halving() -> BasePruner:
    """Return a pruner: successive halving by the scores so far, among runs of as many epochs."""
    from optuna.pruners import BasePruner, SuccessiveHalvingPruner

    class Halving(BasePruner):
        def __init__(self) -> None:
            self.inner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)

        def prune(self, study: Any, trial: Any) -> bool:
            alike: Any = _Alike(study, trial)
            return self.inner.prune(alike, trial)

    return Halving()


class _Alike:
    """A study of which only those trials are seen that run for as many epochs as one."""

    def __init__(self, study: Study, like: FrozenTrial) -> None:
        self._whole, self._epochs = study, like.params.get(EPOCHS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def get_trials(self, *arguments: Any, **more: Any) -> list[FrozenTrial]:
        every = self._whole.get_trials(*arguments, **more)
        return [each for each in every if each.params.get(EPOCHS) == self._epochs]


def _check_same(name: str, kept: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Raise UserError where a study is of something else."""
    for key, value in about.items():
        if kept.get(key) != value:
            raise UserError(
                f"study '{name}' is of another {key} than is given now; give what it was begun "
                "with, or begin another one with `study`"
            )


def _sqlite_file(url: str) -> Path | None:
    """Return the file of an SQLite URL, None for another database and one in memory."""
    from sqlalchemy.engine import make_url

    made = make_url(url)
    if made.get_backend_name() != "sqlite" or made.database in (None, "", ":memory:"):
        return None
    return Path(str(made.database))


def _nothing_to_join(name: str) -> UserError:
    return UserError(f"`storage={name}`: there is no such file, and so no study to join")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
