"""`tunesmith sweep` as people use it: a grid over one training, a page, and the same command again."""

from __future__ import annotations

from pathlib import Path

import pytest

from e2e.conftest import CommandLine
from e2e.test_command_line import server_of


@pytest.mark.heavy
def test_a_grid_becomes_a_table_and_a_page_once(command_line: CommandLine, names_file: Path, micro_base: Path) -> None:
    command_line.start("up", "--listen", "127.0.0.1:0")
    server_of(command_line.data)
    command_line.json("collect", "micro_genre", "--source", str(names_file))
    made = command_line.json("curate", "micro_genre")
    arguments = ["--axis", "temperature=0.7,0.9", "--axis", "top_p=0.9,off", "--samples", "40"]
    settings = ["--base-model", str(micro_base), "--set", "epochs=0.2", "--set", "batch_size=2"]

    swept = command_line.json("sweep", "micro_genre", *arguments, *settings)
    shown = command_line.run("sweep", "micro_genre", *arguments, *settings)
    refused = command_line.run("--json", "sweep", "micro_genre", "--axis", "epoch=1", *settings)

    assert swept["dataset_id"] == made["dataset"]["id"]
    assert [cell["values"] for cell in swept["cells"]] == [
        {"temperature": t, "top_p": p} for t in (0.7, 0.9) for p in (0.9, "off")
    ]
    assert len({cell["run_id"] for cell in swept["cells"]}) == 1, "one training answers for all"
    assert swept["default_cell"] == 3
    assert (swept["objective"], swept["num_samples"]) == ("useful_share", 40)
    assert not swept["clear"], "a model of random weights has no better cell"
    assert Path(swept["page"]).read_bytes().startswith(b"<!doctype html>")
    assert shown.returncode == 0, shown.stderr
    assert "reused: sweep" in shown.stderr
    assert swept["verdict"] in shown.stdout.replace("\n", " ").replace("  ", " ")
    assert swept["commands"][0] in shown.stdout
    assert refused.returncode == 1
    assert "'epoch' is neither a training setting" in refused.stderr
