import hashlib
import hmac
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from medseg.core.errors import ConfigError
from medseg.privacy import keyed_id, project_key, recall_originals, remember_originals


def test_the_key_is_made_once_and_only_its_owner_may_read_it(tmp_path):
    key = project_key(tmp_path / "home")
    assert project_key(tmp_path / "home") == key
    assert len(key) == 32
    assert stat.S_IMODE((tmp_path / "home" / "project.key").stat().st_mode) == 0o600


def test_many_callers_at_once_get_the_same_key(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: project_key(tmp_path), range(64)))
    assert len(keys) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["project.key"]


def test_an_id_is_the_hmac_of_its_parts():
    key = bytes(range(32))
    message = b'["patient", "Doe^Jane"]'
    expected = hmac.new(key, message, hashlib.sha256).hexdigest()[:16]
    assert keyed_id("patient", "Doe^Jane", key=key) == expected


def test_ids_differ_by_text_by_key_and_by_where_the_parts_meet():
    key, other = bytes(32), bytes([1] * 32)
    ids = {
        keyed_id("ab", "c", key=key),
        keyed_id("a", "bc", key=key),
        keyed_id("abc", key=key),
        keyed_id("ab", "c", key=other),
    }
    assert len(ids) == 4


@pytest.mark.skipif(os.name != "posix", reason="file modes are a matter of POSIX systems")
def test_a_key_or_map_that_others_may_read_is_refused(tmp_path):
    project_key(tmp_path)
    remember_originals({"a": "Doe"}, tmp_path / "ids.csv")
    for name in ("project.key", "ids.csv"):
        (tmp_path / name).chmod(0o640)
    with pytest.raises(ConfigError, match=r"PRV-001 .*mode 0640.*chmod 600"):
        project_key(tmp_path)
    with pytest.raises(ConfigError, match="PRV-001"):
        recall_originals(tmp_path / "ids.csv")


def test_a_damaged_key_is_refused(tmp_path):
    project_key(tmp_path)
    (tmp_path / "project.key").write_text("not hex")
    with pytest.raises(ConfigError, match="PRV-002"):
        project_key(tmp_path)


def test_the_map_grows_and_stays_private(tmp_path):
    path = tmp_path / "ids" / "set.csv"
    remember_originals({"a1": "Doe, Jane; 1970"}, path)
    remember_originals({"b2": 'Müller "Jo"'}, path)
    assert recall_originals(path) == {"a1": "Doe, Jane; 1970", "b2": 'Müller "Jo"'}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["set.csv"]
