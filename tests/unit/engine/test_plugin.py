"""How the plugin puts functions in the place of others."""

from serving.engine.plugin import _replace


def test_several_changes_of_one_function_are_stacked_and_each_is_made_once():
    class Owner:
        def word(self) -> str:
            return "word"

    def quoting(original):
        return lambda self: f"'{original(self)}'"

    def dotting(original):
        return lambda self: f"{original(self)}."

    for _ in range(2):
        _replace(Owner, "word", quoting)
        _replace(Owner, "word", dotting)
    assert Owner().word() == "'word'."
