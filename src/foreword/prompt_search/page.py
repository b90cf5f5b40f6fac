"""A search as one page of HTML, which opens without a network."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from foreword.display.trials import cells
from foreword.prompt_search import charts
from foreword.report.page.figures import check_matplotlib
from foreword.report.page.html import templates


def page(searched: Any, title: str) -> str:
    """Return a search (:class:`Searched`) as a page; raises UserError without matplotlib."""
    check_matplotlib()
    trials, metric = searched.trials, searched.metric
    style = (files("foreword.report.page") / "templates" / "style.css").read_text("utf-8")
    ended = charts.complete(trials)
    costs = [c for c in ("kilobytes", "milliseconds") if any(getattr(t, c) for t in ended)]
    plain = searched.to_dict()
    return str(
        templates()
        .get_template("search.html")
        .render(
            title=title,
            searched=searched,
            table=cells(plain["trials"], metric),
            models=plain.get("models") or (),
            templates=plain.get("templates") or (),
            curve=charts.over_time(trials, metric),
            importances=charts.importances(searched.importances) if searched.importances else None,
            fronts=[charts.front(trials, metric, cost) for cost in costs],
            states={s: sum(t.state == s for t in trials) for s in ("complete", "pruned", "failed")},
            style=Markup(style),
            version=version("foreword"),
        )
    )
