"""People whose taste drifts: an endless stream of what they write, and what they take.

python examples/recommend/drift.py recommend 2000 > rows.jsonl   (or support)

Each row is of one of sixty users, of a kind (a nurse, a parcel that is late) in a situation (a book
for the train, no hurry). In three of four rows the user takes what that kind takes in that
situation, else what was taken last, or anything. Of three in five of these habits something else
takes the place as the stream goes on, each at a time of its own, by one user sooner and by another
later. So who learns nothing is right less and less often. Rows follow from the seed alone; nobody
wrote them, and no corpus was copied.
"""

from __future__ import annotations

import json
import random
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USERS = 60
HABIT, AGAIN = 0.75, 0.15
"""How often a user takes what the habit is, and what was taken last; else it is anything."""

DRIFTING = 0.6
"""The share of habits that change."""


@dataclass
class User:
    """Someone of a kind, with what was taken last, who takes up new habits so much later."""

    name: str
    kind: str
    late: float
    seen: deque[str] = field(default_factory=lambda: deque(maxlen=2))


@dataclass(frozen=True)
class Habit:
    """What a kind takes in a situation before a time, and after it."""

    before: str
    after: str
    time: float

    def at(self, time: float) -> str:
        """Return what is taken at a time."""
        return self.before if time < self.time else self.after


def scene_of(name: str) -> dict[str, Any]:
    """Return the words of a scene, ``recommend`` or ``support``."""
    found: dict[str, Any] = json.loads(
        Path(__file__).parents[1].joinpath(name, "scene.json").read_text("utf-8")
    )
    return found


def stream(scene: dict[str, Any], length: int, seed: int, *, start: int = 0) -> Iterator[Any]:
    """Yield ``start`` rows of the time before all drift, then ``length`` rows while it goes on.

    A row has a ``text``, its ``label`` and the ``user``.
    """
    chance = random.Random(seed)
    habits = _habits(scene, chance)
    kinds = sorted(scene["who"])
    users = [
        User(f"user-{number}", kinds[number % len(kinds)], chance.gauss(0, 0.05))
        for number in range(USERS)
    ]
    for step in range(-start, length):
        user = chance.choice(users)
        situation = chance.choice(sorted(scene["when"]))
        habit = habits[user.kind, situation].at(step / length - user.late if step >= 0 else -1)
        while len(user.seen) < 2:
            user.seen.append(habits[user.kind, chance.choice(sorted(scene["when"]))].before)
        label = _taken(scene, user, habit, chance)
        yield {"text": _text(scene, user, situation, chance), "label": label, "user": user.name}
        user.seen.append(label)


def _habits(scene: dict[str, Any], chance: random.Random) -> dict[tuple[str, str], Habit]:
    cells = [(kind, when) for kind in sorted(scene["who"]) for when in sorted(scene["when"])]
    drifting = set(chance.sample(cells, round(DRIFTING * len(cells))))
    made = {}
    for cell in cells:
        before, after = chance.sample(scene["labels"], 2)
        time = chance.uniform(0.2, 0.8) if cell in drifting else 2.0
        made[cell] = Habit(before, after, time)
    return made


def _taken(scene: dict[str, Any], user: User, habit: str, chance: random.Random) -> str:
    drawn = chance.random()
    if drawn < HABIT:
        return habit
    return user.seen[-1] if drawn < HABIT + AGAIN else str(chance.choice(scene["labels"]))


def _text(scene: dict[str, Any], user: User, situation: str, chance: random.Random) -> str:
    words = {
        "who": chance.choice(scene["who"][user.kind]).replace(
            "{thing}", chance.choice(scene.get("things", [""]))
        ),
        "when": chance.choice(scene["when"][situation]),
        "seen1": chance.choice(scene["seen"][user.seen[-1]]),
        "seen2": chance.choice(scene["seen"][user.seen[-2]]),
    }
    made = chance.choice(scene["layouts"]).format(**words)
    return str(made[0].upper() + made[1:])


if __name__ == "__main__":
    name, length, *more = sys.argv[1:]
    for row in stream(scene_of(name), int(length), int(more[0]) if more else 0):
        print(json.dumps(row, ensure_ascii=False))
