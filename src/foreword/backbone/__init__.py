"""Frozen models: sources, the attention function, and what runs them."""

from foreword.backbone.load.quiet import without_remarks
from foreword.garbage import without_collection

with without_collection(), without_remarks():  # of torchao, where it is installed
    import transformers.modeling_utils  # noqa: F401
