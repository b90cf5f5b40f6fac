"""Opening a frozen model: where it comes from, its weights as they are kept, its name."""
