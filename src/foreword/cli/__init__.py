"""The command line: one subcommand a function, flags from the fields of the configurations."""
