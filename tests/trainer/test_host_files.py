"""Hosts with other files are named, with the processes' values as `gather` would give them."""

import json

import pytest

from switch_jax.data.data_files import DataFile, summary
from switch_jax.errors import UserError
from switch_jax.trainer import host_files

FILES = {"a": [DataFile("a0", 0, -1, 5)], "b": [DataFile(f"b{i}", 0, -1, 5) for i in range(3)]}


def check(monkeypatch, index, *others):
    """What process `index` finds where the others have these files of b; None: they lack b."""
    hosts = [FILES, *({**FILES, "b": files} for files in others)]
    hosts = [{task: files for task, files in host.items() if files is not None} for host in hosts]
    own = hosts[index]

    def gather(value):
        """Of all processes: what each has in place of `value`."""
        if isinstance(value, dict):
            values = [{task: summary(files) for task, files in host.items()} for host in hosts]
        else:
            values = [[(file.name, file.size) for file in host["b"]] for host in hosts]
        assert json.dumps(value) == json.dumps(values[index])
        return json.loads(json.dumps(values))

    monkeypatch.setattr(host_files, "gather", gather)
    monkeypatch.setattr(host_files, "data_files", lambda opened: own)
    return host_files.files_of_all_hosts(None)


def test_hosts_with_the_same_files_go_on(monkeypatch):
    assert check(monkeypatch, 1, FILES["b"]) == {t: summary(files) for t, files in FILES.items()}


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize(
    ("files", "difference"),
    [
        (FILES["b"][:1] + FILES["b"][2:], "it lacks b1, and has 2 files in place of 3"),
        ([*FILES["b"], DataFile("c", 0, -1, 5)], "it has c, too, and 4 files in place of 3"),
        ([*FILES["b"][:2], DataFile("b2", 0, -1, 4)], "b2 has 4 bytes in place of 5"),
        (FILES["b"][::-1], "3 in place of 3, or in another order"),
    ],
)
def test_every_process_names_the_one_that_differs(monkeypatch, index, files, difference):
    message = f"^process 2 has other files of b than process 0: {difference}; give all hosts the s"
    with pytest.raises(UserError, match=message):
        check(monkeypatch, index, FILES["b"], files)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_host_without_data_of_a_task_is_named(monkeypatch, index):
    message = "^process 0 finds data of b, and process 2 finds none; give all hosts the same files$"
    with pytest.raises(UserError, match=message):
        check(monkeypatch, index, FILES["b"], None)
