"""What the `graft` command can do, by subject: one function per command, and no work of its own."""
