"""The report: a page on what a prompt is worth, what it changed, what it costs and breaks."""
