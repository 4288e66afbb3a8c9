"""The `wszoo` command. Each command parses, calls one function of the library, prints."""
