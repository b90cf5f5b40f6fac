"""Frozen models: sources, the attention function, and what runs them."""

from foreword.backbone.load.quiet import without_remarks

with without_remarks():  # of torchao, which this imports where it is installed
    import transformers.modeling_utils  # noqa: F401
