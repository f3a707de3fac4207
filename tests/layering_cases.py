"""The rooms of the application, for the tests of its layout."""

# The rooms of distill/, from the top down: each imports only those that stand below it.
FLOORS = (
    "commands",
    "plan",
    "stages",
    "evaluation",
    "teachers",
    "report",
    "sets",
    "run",
    "recipes",
    "data",
    "store",
    "names",
    "machine",
    "terminal",
    "errors",
)
# What opens the house from outside: the package itself and the process of the command.
DOORS = {"__init__", "__main__"}
