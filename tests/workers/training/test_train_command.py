"""`python -m workers.train`: the engine from a TOML file."""

import json

import pytest

from workers import train

GRADER = {
    "type": "string_check",
    "name": "letter",
    "input": "{{sample.output_text}}",
    "reference": "{{item.letter}}",
    "operation": "ilike",
}


@pytest.fixture
def run_file(tiny, tmp_path):
    rows = [{"messages": [{"role": "user", "content": f"Say {c}"}], "letter": c} for c in "abc"]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "grader.json").write_text(json.dumps(GRADER))
    (tmp_path / "model").symlink_to(tiny)
    text = """
        train = "train.jsonl"
        valid = "train.jsonl"
        grader = "grader.json"
        output = "out"
        [config]
        model = "tiny"
        model_path = "model"
        seed = 1
        n_epochs = 1
        prompts_per_step = 2
        group_size = 2
        max_completion_tokens = 4
        learning_rate = 1e-3
        eval_interval = 1
    """
    (tmp_path / "run.toml").write_text(text)
    return tmp_path / "run.toml"


def test_it_trains_writes_json_lines_and_names_the_best(run_file, capsys):
    assert train.main([str(run_file)]) == 0
    out = run_file.parent / "out"
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2]
    assert (out / "rollouts.jsonl").exists()
    printed = capsys.readouterr().out
    assert "step 2/2 epoch 1" in printed
    assert "Best: " in printed
    assert train.main([str(run_file)]) == 0
    assert (out / "metrics.jsonl").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("seed = 1", "", "seed", id="missing-field"),
        pytest.param("seed = 1", "sead = 1", "sead", id="unknown-field"),
        pytest.param('output = "out"', "", "'output' is missing", id="missing-key"),
        pytest.param('output = "out"', 'outputs = "out"', "unknown keys: outputs", id="unknown-key"),
        pytest.param('"train.jsonl"', '"none.jsonl"', "none.jsonl", id="no-such-file"),
        pytest.param('"grader.json"', "{ type = 'none' }", "none", id="bad-grader"),
        pytest.param("[config]", "[config", "run.toml", id="not-toml"),
        pytest.param("seed = 1", "seed = 1\nprocesses = 2", "docs/scaling.md", id="alone-of-two"),
    ],
)
def test_a_bad_file_is_explained(run_file, capsys, old, new, message):
    run_file.write_text(run_file.read_text().replace(old, new))
    assert train.main([str(run_file)]) == 1
    assert message in capsys.readouterr().err


def test_without_a_file_it_says_how_to_use_it(capsys):
    assert train.main([]) == 2
    assert "CONFIG.toml" in capsys.readouterr().err
