"""What all tasks bound to a backbone have by their template."""

from __future__ import annotations

from foreword.backbone.backbone import Backbone
from foreword.tasks.templates.chat_roles import as_turns
from foreword.tasks.templates.layout import soft_size, spaced
from foreword.tasks.templates.template import Template


class Templated:
    """A task's template on a backbone; what is made of rows is for those who derive from it."""

    def __init__(self, backbone: Backbone, template: str) -> None:
        self.backbone = backbone
        self.template = as_turns(Template.parse(template), backbone.text)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a row that the template asks for."""
        return self.template.fields

    @property
    def virtual(self) -> int:
        """The number of virtual tokens that the template itself places."""
        return sum(size for size, _ in self.starts())

    def starts(self) -> list[tuple[int, str | None]]:
        """The template's runs of virtual tokens: size and starting text of each."""
        return [(soft_size(self.backbone, soft), soft.text) for soft in self.template.soft]

    def following(self, left: str, answer: str) -> str:
        """Return an answer as it is written after ``left``."""
        return answer if self.template.close else spaced(left, answer)
