"""The worker's side of a student's own property: run the test on one version of the week's functions after another.

A version is the reference, or the reference with one function replaced by a known wrong one. All of them arrive as
text (mine.py sends it) and are loaded before the fences of limits.py go up; the student's file is loaded after that.
"""

import functools
import sys
import types

import torch

EXAMPLES, EXAMPLES_OF_A_WRONG_ONE = 100, 20


def load_profile(name: str, examples: int) -> None:
    """hypothesis without deadlines, files and advice, which are for developers: for graders and properties alike."""
    import hypothesis  # a quarter of a second: only who has written a property waits for it

    hypothesis.settings.register_profile(
        name,
        max_examples=examples,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate, hypothesis.Phase.shrink],
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile(name)


class Zoo:
    """The versions of a week's functions."""

    def __init__(self, reference: list[tuple[str, str, str]], misconceptions: tuple[str, str], functions: list[str]):
        """reference: (module, path, text), each after those that it imports, the week's own last."""
        load_profile("own property", EXAMPLES)
        before = dict(sys.modules)
        module = _load_reference(reference)
        self.right = {name: getattr(module, name) for name in functions}
        self.wrong = _load_wrong(*misconceptions)
        for name in [name for name in sys.modules if name.startswith(("reference_impl", "graders"))]:
            del sys.modules[name]  # nothing of it is left for the student's file to import
        sys.modules.update(before)

    def run(self, test, version: int, seed: int) -> dict:
        """One version: the error that the test ended with, or None; the input it ended on; the functions it called."""
        import hypothesis

        wrong = dict(self.wrong[version : version + 1]) if version >= 0 else {}  # -1 is the reference
        trial = Trial(test.hypothesis.inner_test, self.right | wrong, shrink=not wrong)
        test.hypothesis.inner_test = trial.in_its_place()
        try:
            hypothesis.seed(seed)(test)(trial.week)
        except Enough:
            pass
        except BaseException as error:  # sys.exit() and pytest.skip() are no Exceptions
            trial.error = error
        finally:
            test.hypothesis.inner_test = trial.test
        return {"error": trial.error, "input": trial.input, "called": sorted(trial.called)}


class Enough(BaseException):
    """Ends the run of a version. Not an Exception, so that hypothesis does not look for a smaller input."""


class Trial:
    """One version under test. With `shrink` hypothesis looks for the smallest failing input, and ends with it."""

    def __init__(self, test, functions: dict, shrink: bool):
        self.test, self.shrink = test, shrink
        self.week = types.SimpleNamespace(**{name: self.counted(name, f) for name, f in functions.items()})
        self.called: set[str] = set()
        self.examples, self.input, self.error = 0, "", None

    def counted(self, name: str, function):
        def call(*args, **kwargs):
            self.called.add(name)
            return function(*args, **kwargs)

        call.__name__ = call.__qualname__ = name
        return call

    def in_its_place(self):
        @functools.wraps(self.test)  # hypothesis asks for the name and the source of what it runs
        def example(*args, **drawn):
            self.example(*args, **drawn)

        return example

    def example(self, *args, **drawn) -> None:
        """In the place of the student's test: one call of it. torch's random numbers are those of a fresh start."""
        from hypothesis.errors import HypothesisException

        if self.examples == EXAMPLES_OF_A_WRONG_ONE and not self.shrink:
            raise Enough
        values = {name: value for name, value in drawn.items() if value is not self.week}
        self.input = ", ".join(f"{name}={value!r}" for name, value in values.items())[:400]
        torch.default_generator.manual_seed(0)
        try:
            self.test(*args, **drawn)
        except HypothesisException:  # assume() and its like: not the test's verdict
            raise
        except Exception as error:
            if self.shrink:
                raise
            self.error = error
            raise Enough from None
        self.examples += 1


def _load_reference(sources: list[tuple[str, str, str]]) -> types.ModuleType:
    for name in [name for name in sys.modules if name.startswith("reference_impl")]:
        del sys.modules[name]
    sys.modules["reference_impl"] = types.ModuleType("reference_impl")
    for name, path, text in sources:
        module = sys.modules[name] = types.ModuleType(name)
        exec(compile(text, path, "exec"), vars(module))
    return module


def _load_wrong(path: str, text: str) -> list[tuple[str, object]]:
    """The misconceptions in the order of their file: (function, implementation)."""
    found = []

    def wrong(function: str, *_, **__):
        return lambda implementation: found.append((function, implementation)) or implementation

    sys.modules["graders"] = types.ModuleType("graders")
    stand_in = sys.modules["graders.misconceptions"] = types.ModuleType("graders.misconceptions")
    stand_in.wrong = wrong
    exec(compile(text, path, "exec"), {"__name__": "misconceptions"})
    return found
