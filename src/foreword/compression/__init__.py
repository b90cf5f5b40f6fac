"""A long text in a short prefix."""
