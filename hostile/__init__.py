"""What is done to wszoo to see what holds: damaged files and killed processes, by the thousand.

    make fuzz     # damaged zoos, imports, runs and half-made zoos; see fuzz.py
    make kills    # kill -9 and SIGTERM at any moment of seven commands; see kills.py

Not a part of the package that is installed: it uses wszoo as a user does, plus the fixtures
and the local Hub of tests/. docs/trust.md has the counts of whole runs.
"""
