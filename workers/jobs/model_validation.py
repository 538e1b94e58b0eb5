"""Checks the model that a job starts from, and what its tokenizer and chat template make of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.files.integrity import StoredFileDamaged
from app.models.models import Model
from app.tools.simulator import ENVIRONMENT
from methods.faults import told
from methods.model_files.folder import ModelFolderInvalid, check_folder
from methods.model_files.precision import NOT_INSTALLED, QUANTISED, is_installed
from methods.response_format import grammar_of
from methods.rows import Row
from methods.tools import tool_faults, tool_names
from methods.train_config import NAMED
from workers.base_models import local_folder
from workers.jobs.job_data import DataFile, JobInvalid, ModelShape

if TYPE_CHECKING:
    from workers.training.prompts import RenderedPrompts
    from workers.training.rendering.thinking import Thinking

TOOLS = "method.reinforcement.tools"
TRIED_TALK: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
"""What a template is tried with: a user's message, which may begin a conversation and go on with it."""
TRIED_ROW = {
    "messages": [{"role": "user", "content": "x"}],
    "tools": [{"type": "function", "function": {"name": "look", "description": "x", "parameters": {}}}],
}
TRIED_RESULTS = [{"role": "tool", "name": "look", "content": "x"}]
"""What a template is tried with: a call, and its result."""


def model_folder(name: str, model: Model | None, scratch: Path) -> Path:
    """Returns where the model that the job starts from lies on this machine, perhaps without its weights.

    Raises `JobInvalid` if it is gone, or if its files are none that may be read.
    """
    if model is None:
        raise JobInvalid("model_error", f"The model {name} was deleted.", "model")
    copy = scratch / "model"
    try:
        folder = local_folder(model, copy, weights=False)
        check_folder(folder, with_weights=folder != copy)
    except FileNotFoundError as problem:
        raise JobInvalid("model_error", str(problem), "model") from None
    except StoredFileDamaged as problem:
        raise JobInvalid("model_invalid", str(problem), "model") from None
    except ModelFolderInvalid as problem:
        raise JobInvalid("model_invalid", f"The model {name} cannot be used: {problem}.", "model") from None
    return folder


def model_shape(name: str, folder: Path) -> ModelShape:
    """Returns what a model's config says of its size; multimodal models say it of their text part.

    Raises `JobInvalid`.
    """
    from workers.training.model.shape import read_shape

    try:
        return ModelShape(*read_shape(folder))
    except MemoryError:
        raise
    except Exception as problem:  # its values are whatever somebody has written
        said = f"{type(problem).__name__}: {str(problem)[:500]}"
        message = f"The config.json of the model {name} cannot be used: {said}."
        raise JobInvalid("model_invalid", message, "model") from None


def load_tokenizer(folder: Path) -> Any:
    """Returns the tokenizer of a model folder. Raises `JobInvalid`."""
    from transformers import AutoTokenizer

    from workers.training.base.errors import is_panic

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except MemoryError:
        raise
    except BaseException as problem:  # its files hold whatever somebody has written
        if not (isinstance(problem, Exception) or is_panic(problem)):
            raise
        message = (
            f"The tokenizer of the model cannot be loaded: {type(problem).__name__}: {str(problem)[:500]}"
        )
        raise JobInvalid("model_invalid", message, "model") from None


def check_response_format(response_format: dict[str, Any] | None, folder: Path) -> None:
    """Raises `JobInvalid` unless the grammar can be held with this model's tokenizer."""
    grammar = grammar_of(response_format)
    if grammar is None:
        return
    tokenizer = load_tokenizer(folder)
    from workers.training.base.errors import GrammarFailed
    from workers.training.model.grammar import Grammar

    try:
        Grammar(grammar, tokenizer, len(tokenizer), [tokenizer.eos_token_id])
    except GrammarFailed as problem:
        param = "method.reinforcement.response_format"
        raise JobInvalid(problem.code, str(problem), param) from None


def thinking_of_job(folder: Path, hyperparameters: Mapping[str, Any]) -> Thinking:
    """Returns what a job's wish for more or less thinking means to its model. Raises `JobInvalid`."""
    from workers.training.rendering.thinking import DEFAULT, VariableUnknown, thinking_of

    effort = hyperparameters.get("reasoning_effort") or DEFAULT
    budget, given = hyperparameters.get("max_thinking_tokens"), hyperparameters.get("template_kwargs")
    tokenizer = load_tokenizer(folder)
    try:
        return thinking_of(tokenizer, effort, budget, given)
    except VariableUnknown as problem:
        param = "method.reinforcement.hyperparameters.template_kwargs"
        raise JobInvalid("invalid_value", str(problem), param) from None


def embedding_rows(folder: Path) -> int | None:
    """Returns how many tokens the model has embedding rows for; None where its config does not say."""
    from transformers import AutoConfig

    from workers.training.rendering.vocabulary import vocabulary_of

    try:
        return vocabulary_of(
            AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )
    except Exception:  # `model_shape` and the trial of the model tell what is wrong with a config
        return None


def check_precision(folder: Path, precision: str, method: str) -> None:
    """Raises `JobInvalid` for a base that cannot be quantised: by its layers, or for want of the library."""
    if precision not in QUANTISED:
        return
    param = f"method.{method}.hyperparameters.base_precision"
    if not is_installed():
        raise JobInvalid("unsupported_parameter", NOT_INSTALLED.format(precision=precision), param)
    from workers.training.base.errors import ModelInvalid
    from workers.training.model.base_model import check_can_quantise

    try:
        check_can_quantise(folder, precision)
    except ModelInvalid as problem:
        raise JobInvalid("unsupported_parameter", str(problem), param) from None


def check_canary(folder: Path, context: int, data_file: DataFile, rows: Sequence[Row]) -> None:
    """Raises `JobInvalid` for texts of a canary file that the model cannot read."""
    tokenizer = load_tokenizer(folder)
    from workers.training.base.errors import PromptInvalid
    from workers.training.measures.canary import cut_texts

    try:
        cut_texts(rows, tokenizer, context, embedding_rows(folder))
    except PromptInvalid as problem:
        raise data_file.invalid(f"does not fit the model. {problem}") from None


def render_prompts(
    folder: Path,
    context: int,
    data_file: DataFile,
    rows: Sequence[Row],
    variables: Mapping[str, Any] | None = None,
) -> RenderedPrompts:
    """Returns each row's prompt, as the training will see them, and what is doubtful. Raises `JobInvalid`.

    `variables` are what the chat template is rendered with.
    """
    from workers.training import prompts
    from workers.training.base.errors import PromptInvalid
    from workers.training.rendering.template import with_variables

    tokenizer = with_variables(load_tokenizer(folder), variables or {})

    name = data_file.param.removesuffix("_file")
    try:
        return prompts.render_prompts(rows, tokenizer, context, name, embedding_rows(folder))
    except PromptInvalid as problem:
        raise data_file.invalid(f"does not fit the model. {problem}") from None


def check_tools(tools: Sequence[object], folder: Path) -> None:
    """Raises `JobInvalid` for a model whose calls of tools could not be read, or not be answered."""
    if not tools:
        return
    from workers.training.rendering.between import TurnsUnsupported, tokens_between
    from workers.training.rendering.parts import reader_of

    tokenizer = load_tokenizer(folder)
    reader = reader_of(tokenizer)
    fault = "does not tell how it calls tools, so that its calls could not be read"
    try:
        if reader is not None and reader.calls_tools:
            tokens_between(tokenizer, TRIED_ROW, ["look"], TRIED_RESULTS, None)
            return
    except TurnsUnsupported as problem:
        fault = f"cannot be used with tools: {problem}"
    message = f"The model's chat template {fault}. Use a model whose template calls tools, or leave them out."
    raise JobInvalid("invalid_value", message, TOOLS)


def check_environment(environment: Mapping[str, Any] | None, folder: Path) -> None:
    """Raises `JobInvalid` for a model whose chat template cannot go on after a user has replied."""
    if environment is None:
        return
    from workers.training.rendering.between import TurnsUnsupported, tokens_between

    try:
        tokens_between(load_tokenizer(folder), TRIED_TALK, [], TRIED_TALK["messages"], None)
    except TurnsUnsupported as problem:
        message = f"The environment cannot talk to this model: {problem}"
        raise JobInvalid("invalid_value", message, ENVIRONMENT) from None


def functions_of(block: Mapping[str, Any], rows: Sequence[Row]) -> Sequence[object]:
    """Returns what the policy may call: a job's tools, or what rows list for an environment it names."""
    if block.get("environment", {}).get("type") == NAMED:
        return [name for row in rows for name in tool_names(row.item)]
    tools: Sequence[object] = block.get("tools") or ()
    return tools


def check_tools_of_rows(names: Sequence[str], data_file: DataFile, rows: Sequence[Row]) -> None:
    """Raises `JobInvalid` for rows that list a function which the job does not have, or if none lists any."""
    if faults := tool_faults(rows, names):
        lines = [fault.line for fault in faults]
        raise data_file.invalid("does not fit the job's tools.\n" + "\n".join(told(faults, len(rows))), lines)
    if not any(tool_names(row.item) for row in rows):
        raise data_file.invalid(
            f"lists no tool in any row, and the job has {', '.join(names)}: a row names under 'tools' the"
            " functions that may be called for it."
        )
