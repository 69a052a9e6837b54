"""What the help says."""

from serving.engine_arguments import engine_arguments, flag_of
from serving.settings_help import help_text
from serving.settings_names import OWN, REFUSED


def test_help_names_every_setting_that_can_be_set() -> None:
    own, everything = help_text(engine=False), help_text(engine=True)
    assert [line.split()[0] for line in own.splitlines() if line.startswith("  ")] == [flag_of(name) for name in OWN]
    for name in engine_arguments():
        assert (f"  {flag_of(name)} " in everything) == (name not in REFUSED or name in OWN)
    assert "(default: 8080)" in own
