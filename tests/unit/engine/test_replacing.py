"""Functions in the place of others."""

from serving.engine.replacing import replace


def test_several_changes_of_one_function_are_stacked_and_each_is_made_once():
    class Owner:
        def word(self) -> str:
            return "word"

    def quoting(original):
        return lambda self: f"'{original(self)}'"

    def dotting(original):
        return lambda self: f"{original(self)}."

    for _ in range(2):
        replace(Owner, "word", quoting)
        replace(Owner, "word", dotting)
    assert Owner().word() == "'word'."
