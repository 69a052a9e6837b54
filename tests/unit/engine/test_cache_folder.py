from pathlib import Path

import pytest

from serving.engine.environment import with_writable_cache
from serving.errors import SettingsError
from serving.settings import load_settings


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A file, under which not even root can make a folder."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


def test_a_cache_folder_that_can_be_written_stays_and_is_made(tmp_path):
    settings = load_settings([], {"TOKENPORT_CACHE_DIR": str(tmp_path / "a" / "b")})
    assert with_writable_cache(settings, tmp_path) is settings
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_default_that_cannot_be_written_gives_way_to_one_among_the_temporary_files(tmp_path, unwritable, caplog):
    settings = with_writable_cache(load_settings([], {"HOME": str(unwritable)}), tmp_path)
    assert settings.cache_dir.parent == tmp_path
    assert settings.cache_dir.is_dir()
    assert str(settings.cache_dir) in caplog.text


def test_a_folder_that_was_chosen_is_never_exchanged(tmp_path, unwritable):
    with pytest.raises(SettingsError, match="set TOKENPORT_CACHE_DIR to a folder that is"):
        with_writable_cache(load_settings([], {"TOKENPORT_CACHE_DIR": str(unwritable / "cache")}), tmp_path)


def test_nothing_writable_at_all_is_told(unwritable):
    with pytest.raises(SettingsError, match="cannot write to the cache folder"):
        with_writable_cache(load_settings([], {"HOME": str(unwritable)}), unwritable)
