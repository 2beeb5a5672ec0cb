"""Verbs and exit codes. A user's mistake never prints a traceback; a bug always does."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass

from aitrain.errors import AitrainError, ConfigError, Problem, Refused, Stopped, did_you_mean


@dataclass(frozen=True)
class Verb:
    """A verb of the command line. Its module is imported when it is used, so that help stays quick."""

    summary: str
    run: Callable[[list[str]], int]


def _train(words: list[str]) -> int:
    from aitrain.commands.train import train

    return train(words)


def _check(words: list[str]) -> int:
    from aitrain.commands.check import check

    return check(words)


def _show(words: list[str]) -> int:
    from aitrain.commands.show import show

    return show(words)


def _preview(words: list[str]) -> int:
    from aitrain.commands.preview import preview

    return preview(words)


def _report(words: list[str]) -> int:
    from aitrain.commands.report import report

    return report(words)


def _predict(words: list[str]) -> int:
    from aitrain.commands.predict import predict_file

    return predict_file(words)


def _evaluate(words: list[str]) -> int:
    from aitrain.commands.predict import evaluate_file

    return evaluate_file(words)


def _doctor(words: list[str]) -> int:
    from aitrain.commands.doctor import doctor

    return doctor(words)


VERBS = {
    "train": Verb("run it; also what happens without a verb", _train),
    "check": Verb("find every problem and print the plan; starts nothing", _check),
    "show": Verb("the resolved config with origins; show params, show options, show schema", _show),
    "preview": Verb("the first rows as the trainer sees them, trained tokens marked", _preview),
    "predict": Verb("a trained run on a file of rows, each written with its prediction", _predict),
    "evaluate": Verb("what a trained run's predictions of a file are worth", _evaluate),
    "report": Verb("tables and curves of runs; report diff A B", _report),
    "doctor": Verb("versions, accelerators, extras, and the command for what is missing", _doctor),
}


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, 1, 2 or 128 + signal."""
    words = list(sys.argv[1:] if argv is None else argv)
    return run_safely(lambda: _run(words), words)


def run_safely(run: Callable[[], int], words: list[str]) -> int:
    """The exit code of a function that may refuse, stop or fail, with what it has to say on standard error."""
    try:
        return run()
    except Refused as error:
        print(refusal(error, words), file=sys.stderr)
        return error.exit_code
    except Stopped as error:
        where = f"; state saved in {error.checkpoint}" if error.checkpoint else "; nothing was saved"
        print(f"stopped by signal {error.signum}{where}", file=sys.stderr)
        return error.exit_code
    except AitrainError as error:
        print(f"failed: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `aitrain show | head`: what is left unwritten must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: list[str]) -> int:
    if any(word in ("-h", "--help") for word in words):
        from aitrain.commands.help import help_text

        print(help_text({name: verb.summary for name, verb in VERBS.items()}))
        return 0
    if words[:1] == ["--version"]:
        from aitrain import __version__

        print(__version__)
        return 0
    verb, rest = ("train", words) if not words or words[0] not in VERBS else (words[0], words[1:])
    for word in rest[:1]:
        if (
            verb == "train"
            and "=" not in word
            and not word.startswith(("-", "~"))
            and not word.endswith((".yaml", ".yml"))
        ):
            raise ConfigError(Problem(word, "no such verb", did_you_mean(word, VERBS)))
    return VERBS[verb].run(rest)


def refusal(error: Refused, words: list[str]) -> str:
    """All problems, a line each, and the corrected command where every one has a correction."""
    count = len(error.problems)
    nothing = "nothing was trained" if error.begun else "nothing was started"
    lines = [f"refused, {nothing} ({count} problem{'s' if count > 1 else ''}):"]
    lines += [f"  {problem}" for problem in error.problems]
    corrected = _corrected(error, words)
    if corrected:
        lines.append(f"try: python -m aitrain {corrected}")
    return "\n".join(lines)


def _corrected(error: Refused, words: list[str]) -> str | None:
    """The command with every problem's correction in place; None when one of them has none."""
    result = list(words)
    for problem in error.problems:
        if not problem.fix:
            return None
        key, is_whole, _ = problem.fix.partition("=")
        index, meant = _place_of(problem.key, result), _place_of(key, result)
        if problem.fix.startswith("~") and index is not None:
            del result[index]
        elif is_whole:
            # Another option takes the place of a key that the one before it does not have.
            is_own = key == problem.key or problem.key.startswith(f"{key}.")
            places = sorted({place for place in (index if is_own else None, meant) if place is not None})
            for place in reversed(places):
                del result[place]
            result.insert(places[0] if places else len(result), problem.fix)
        elif index is not None:
            result[index] = f"{problem.fix}={result[index].partition('=')[2]}"
        else:
            return None
    return shlex.join(result)


def _place_of(key: str, words: list[str]) -> int | None:
    """Where a key's override stands."""
    return next((i for i, word in enumerate(words) if word.lstrip("+").split("=")[0] == key), None)
