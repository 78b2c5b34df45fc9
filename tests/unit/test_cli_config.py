"""`loadonce config`: what a person sees of the options."""

import json
from pathlib import Path

from tests.commands import loadonce


def test_show_masks_secrets_and_marks_what_differs(tmp_path: Path) -> None:
    done = loadonce("config", "show", cwd=tmp_path, options={"SASL_PASSWORD": "hunter2", "GROUP_ID": "mine"})

    assert done.returncode == 0
    assert "hunter2" not in done.stdout
    assert "********" in done.stdout
    changed = [line.split()[0] for line in done.stdout.splitlines() if " * " in line]
    assert changed == ["LOADONCE_GROUP_ID", "LOADONCE_DISK_CACHE", "LOADONCE_SASL_PASSWORD"]


def test_show_as_json_has_every_option_once(tmp_path: Path) -> None:
    options = json.loads(loadonce("config", "show", "--json", cwd=tmp_path, options={"HTTP_PORT": "0"}).stdout)

    by_name = {option["name"]: option for option in options}
    assert len(by_name) == len(options)
    assert by_name["LOADONCE_HTTP_PORT"]["value"] == "0"
    assert all(option["description"].endswith(".") for option in options)


def test_the_environment_is_stronger_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "loadonce.toml").write_text('group_id = "file"\nhttp_port = 1234\n')
    done = loadonce(
        "config", "show", "--json", "--config", "loadonce.toml", cwd=tmp_path, options={"GROUP_ID": "environment"}
    )

    values = {option["name"]: option["value"] for option in json.loads(done.stdout)}
    assert values["LOADONCE_GROUP_ID"] == "environment"
    assert values["LOADONCE_HTTP_PORT"] == "1234"


def test_check_names_the_option_and_its_value(tmp_path: Path) -> None:
    done = loadonce("config", "check", cwd=tmp_path, options={"HTTP_PORT": "eighty"})

    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert "LOADONCE_HTTP_PORT=eighty" in done.stderr


def test_neither_shows_the_credentials_in_a_url(tmp_path: Path) -> None:
    for command in ("show", "check"):
        done = loadonce("config", command, cwd=tmp_path, options={"MODEL_STORE": "s3://AKIA:hunter2@bucket/x"})

        assert done.returncode == 78
        assert "LOADONCE_MODEL_STORE=********" in done.stderr
        assert "hunter2" not in done.stdout + done.stderr


def test_check_says_so_where_all_is_well(tmp_path: Path) -> None:
    done = loadonce("config", "check", cwd=tmp_path)

    assert (done.returncode, done.stdout) == (0, "the options are good\n")


def test_a_missing_file_is_66(tmp_path: Path) -> None:
    done = loadonce("config", "check", "--config", "nowhere.toml", cwd=tmp_path)

    assert done.returncode == 66
    assert "--config nowhere.toml" in done.stderr
