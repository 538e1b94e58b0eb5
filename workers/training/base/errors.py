"""Why a run ended early. Each error has a stable `code`, stored with a failed job."""

from __future__ import annotations


class EngineError(Exception):
    """Is everything the engine raises on purpose. `str(error)` is a sentence for the owner of the run."""

    code = "engine_error"


def is_panic(problem: BaseException) -> bool:
    """Tells whether a library in Rust gave up, as tokenizers does over some files.

    Such an error is no `Exception`, and its class can be imported from nowhere.
    """
    return type(problem).__name__ == "PanicException"


class RunCancelled(EngineError):
    """Ends a run because `should_stop` said so.

    Checkpoints and the last training state stay where they are.
    """

    code = "cancelled"

    def __init__(self, step: int) -> None:
        super().__init__(f"Cancelled after step {step}.")
        self.step = step


class RunPaused(EngineError):
    """Ends a run because `should_pause` said so. The state is saved, and there is a checkpoint of it."""

    code = "paused"

    def __init__(self, step: int) -> None:
        super().__init__(f"Paused after step {step}.")
        self.step = step


class JudgeLost(RunPaused):
    """Pauses a run that needs a server which was waited for in vain.

    Nothing of the step under way has been trained on or counted. `str(error)` names the server and its last
    error.
    """

    code = "judge_lost"

    def __init__(self, message: str) -> None:
        EngineError.__init__(self, message)


class RunFailed(EngineError):
    """Ends a run that cannot go on; the same run again would fail again."""

    code = "run_failed"


class NotDeterministic(RunFailed):
    """Ends a run that was to be deterministic and came to an operation that cannot be, which it names."""

    code = "not_deterministic"

    def __init__(self, operation: str) -> None:
        super().__init__(
            f"The run was to be deterministic, and the operation '{operation}' has no deterministic"
            " implementation on this device. Leave `deterministic` out, or train another model."
        )
        self.operation = operation


class GradingFailed(RunFailed):
    """Says that too many grades failed, step after step. `messages` are the first different ones."""

    code = "grader_error"

    def __init__(self, message: str, messages: tuple[str, ...]) -> None:
        super().__init__("\n".join([message, *messages]))
        self.messages = messages

    def __reduce__(self) -> tuple[type[GradingFailed], tuple[str, tuple[str, ...]]]:
        first_line, *_ = str(self).splitlines()
        return type(self), (first_line, self.messages)


class FlatReward(RunFailed):
    """Says that the grader gave all first completions of each prompt the same reward."""

    code = "flat_reward"


class NonFinite(RunFailed):
    """Says that loss or gradient was NaN or infinite several steps in a row."""

    code = "non_finite"


class ModelInvalid(RunFailed):
    """Says that the base model's folder cannot be used."""

    code = "model_invalid"


class PromptInvalid(RunFailed):
    """Says that the model's chat template refused a row."""

    code = "prompt_error"


class OutOfContext(PromptInvalid):
    """Says that a prompt leaves no room for a completion in the model's context."""

    code = "out_of_context"


class StateMismatch(RunFailed):
    """Says that the saved training state belongs to another config or other data."""

    code = "state_mismatch"


class DeviceMissing(RunFailed):
    """Says that the run asks for GPUs that are not here."""

    code = "gpu_missing"


class OutOfMemory(RunFailed):
    """Says that a pass of a single sequence does not fit the memory of the device."""

    code = "out_of_memory"


class PassTooLarge(EngineError):
    """Ends an attempt at a run: a pass that several processes make together ran out of memory in this one.

    The next attempt may go on from the last state with passes of at most `tokens`.
    """

    code = "pass_too_large"

    def __init__(self, message: str, tokens: int) -> None:
        super().__init__(message)
        self.tokens = tokens

    def __reduce__(self) -> tuple[type[PassTooLarge], tuple[str, int]]:
        return type(self), (str(self), self.tokens)


class GrammarFailed(RunFailed):
    """Says that the response format cannot be held.

    The grammar is too complex, or the tokenizer of another kind.
    """

    code = "response_format_error"


class ProcessesDiffer(RunFailed):
    """Says that the processes of one run hold different weights, which nothing in the engine can cause."""

    code = "processes_differ"
