"""The candidate's side: a process that imports torch once and forks a worker for each submission.

Started by candidate.py: forked from it, or as a script (`python -I worker.py`) with a socket as standard input. The
first process, the zygote, has imported torch and only forks; that costs milliseconds where an import costs seconds, so
a crashed worker is replaced at once. A worker runs one submission and answers calls until its socket closes.

The worker holds inputs, never expected answers. If a submission takes this whole process over, all it can do is answer
calls, and an answer counts only when it is right.
"""

import contextlib
import faulthandler
import gc
import linecache
import os
import random
import signal
import socket
import sys
import tempfile
import time
import traceback
import types

import torch

if __package__:
    from graders import limits, trial, wire
else:  # run as a script: the three files beside this one, and nothing else of the course, are on the way
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import limits
    import trial
    import wire

    sys.path.pop(0)

_clock = time.perf_counter  # before a submission can replace it


# --- the zygote -------------------------------------------------------------------------------------------------------


def main(control_fd: int) -> None:
    """Leave behind what was inherited, the terminal above all, and serve as zygote on this socket."""
    control_fd = os.dup2(control_fd, 3)
    os.closerange(4, 1024)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.environ.clear()
    os.chdir("/")
    faulthandler.disable()  # pytest's would write to the terminal when a submission crashes
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the grader's; it closes the socket
    with no_dynamo():
        zygote(socket.socket(fileno=control_fd))


def zygote(control: socket.socket) -> None:
    """Fork a worker for every message that brings a socket; report how a worker ended when asked to reap it."""
    torch.set_num_threads(1)
    gc.freeze()
    children: set[int] = set()
    control.sendall(b"ready\n")
    while True:
        message, fds, _, _ = socket.recv_fds(control, 64, 1)
        if not message:
            break  # the grader is gone
        if fds:
            pid = os.fork()
            if pid == 0:
                try:
                    control.close()
                    serve(socket.socket(fileno=fds[0]))
                    os._exit(0)
                finally:
                    os._exit(70)  # whatever happened, this copy must not go on as a zygote
            os.close(fds[0])
            children.add(pid)
            control.sendall(b"%d\n" % pid)
        else:
            pid, patience = message.split()
            control.sendall(b"%d\n" % _reap(int(pid), float(patience), children))
    for pid in list(children):
        _reap(pid, 0.0, children)


def _reap(pid: int, patience: float, children: set[int]) -> int:
    """End a worker and whatever it started; its exit code, or minus the signal that ended it. A worker that is dying by
    itself gets `patience` seconds to do so, so that it tells why."""
    if pid not in children:
        return 0
    children.discard(pid)
    deadline = time.monotonic() + patience
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done or time.monotonic() > deadline:
            break
        time.sleep(0.002)
    if not done:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass
    return os.waitstatus_to_exitcode(status)


# --- a worker ---------------------------------------------------------------------------------------------------------


def serve(channel: socket.socket) -> None:
    """Load the submission that the first frame brings, then answer calls until the socket closes. With a zoo in that
    frame, the submission is a student's own property, and a call runs it on one version of the week's functions."""
    os.setsid()
    printed = tempfile.TemporaryFile()
    os.dup2(printed.fileno(), 1)
    os.dup2(printed.fileno(), 2)
    sys.stdout, sys.stderr = (open(fd, "w", encoding="utf-8", errors="replace", closefd=False) for fd in (1, 2))
    start = wire.receive(channel)
    limits.set_limits()
    zoo = trial.Zoo(**start["zoo"]) if start["zoo"] else None
    if start["hidden"] is not None:
        limits.install_audit_hook(start["hidden"])
    limits.limit_cpu(start["timeout"])
    module, error = load(start["source"], start["path"])
    scenarios, _ = load(start["scenarios"], start["scenarios_path"])
    names = [name for name, value in vars(module).items() if callable(value)]
    wire.send(channel, {"error": error, "names": names, "printed": _last_lines(printed)})
    while True:
        try:
            request = wire.receive(channel)
        except EOFError:
            return
        limits.limit_cpu(request["timeout"])
        reply = try_property(zoo, module, request) if zoo else perform(module, scenarios, request)
        reply["printed"] = _last_lines(printed)
        try:
            frame = wire.pack(reply)
        except wire.Garbled as problem:
            frame = wire.pack({"error": {"type": "ValueError", "message": str(problem), "line": None, "source": ""}})
        channel.sendall(frame)


def load(source: str, path: str) -> tuple[types.ModuleType, dict | None]:
    """Run a file's text as a module; the error that stopped it, if any."""
    name = os.path.splitext(os.path.basename(path))[0]
    module = types.ModuleType(name if name.isidentifier() else "submission")
    module.__file__ = path
    sys.modules[module.__name__] = module
    if source:  # a function that stands in no file must not hide the text of the one it stands in for
        linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    try:
        exec(compile(source, path, "exec"), vars(module))
    except BaseException as error:  # sys.exit() and pytest.skip() are no Exceptions
        return module, describe(error, path)
    return module, None


def perform(module: types.ModuleType, scenarios: types.ModuleType, request: dict) -> dict:
    """Call one function and report everything that the grader compares: the value, the gradients of the tensors named
    in `leaves`, the tensors as they are after the call, the global state that moved, the seconds."""
    path = module.__file__
    function = getattr(module, request["function"], None)
    if request["scenario"]:
        scene = getattr(scenarios, request["scenario"])
        arguments = [["", function], *request["arguments"]]
        positional = len(arguments)
    else:
        scene, arguments, positional = function, request["arguments"], request["positional"]
    tensors = {name: value for name, value in arguments if type(value) is torch.Tensor}
    leaves = {name: tensors[name].requires_grad_() for name in request["leaves"]}
    before = global_state()
    start = _clock()
    try:
        args = [value for _, value in arguments[:positional]]
        kwargs = {name: value for name, value in arguments[positional:]}
        value = scene(*args, **kwargs)
    except BaseException as error:
        return {"error": describe(error, path)}
    finally:
        seconds = _clock() - start
        moved = restore_global_state(before)
    reply = {"value": value, "seconds": seconds, "moved": moved}
    reply["after"] = {name: tensor.detach() for name, tensor in tensors.items()}
    if leaves:
        try:
            reply.update(gradients(value, leaves, request["cotangents"]))
        except BaseException as error:
            return {"error": describe(error, path) | {"backward": True}}
    return reply


def try_property(zoo: "trial.Zoo", module: types.ModuleType, request: dict) -> dict:
    """Run the student's own property on one version; what it moved of the global state is put back."""
    test = getattr(module, "test_mine", None)
    if not hasattr(test, "hypothesis"):
        return {"error": {"words": "it draws no inputs: put @given(...) above test_mine"}}
    before = global_state()
    reply = zoo.run(test, request["version"], request["seed"])
    restore_global_state(before)
    error = reply.pop("error")
    return reply | {"fails": describe(error, module.__file__) if error else None}


def gradients(value, leaves: dict, cotangents: list) -> dict:
    """Gradients of sum(value * cotangent) with respect to the leaves; a scalar's cotangent is 1."""
    outputs = [item for item in (value if type(value) in (tuple, list) else [value]) if type(item) is torch.Tensor]
    outputs = [item for item in outputs if item.is_floating_point()]
    if [tuple(item.shape) for item in outputs] != [tuple(c.shape) for c in cotangents]:
        return {"gradients": None}  # the grader will complain about the shapes
    live = [(item * c.to(item.dtype)).sum() for item, c in zip(outputs, cotangents, strict=True) if item.requires_grad]
    if not live:
        return {"gradients": {name: None for name in leaves}}
    # a sum of our own: with grad_outputs, torch.autograd imports sympy, which takes longer than all the checks
    found = torch.autograd.grad(sum(live), list(leaves.values()), allow_unused=True)
    return {"gradients": dict(zip(leaves, found, strict=True))}


@contextlib.contextmanager
def no_dynamo():
    """torch.optim imports torch's compiler, two seconds of sympy and others, to mark places where nothing is compiled
    here. A stand-in spares that; not for programs that do compile."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    stand_in = types.ModuleType("torch._dynamo")
    stand_in.graph_break = lambda *args, **kwargs: None
    stand_in.disable = lambda function, *args, **kwargs: function
    sys.modules["torch._dynamo"] = torch._dynamo = stand_in
    try:
        yield
    finally:
        del sys.modules["torch._dynamo"], torch._dynamo


def global_state() -> dict:
    """What a pure function leaves alone, by the name that the student is told."""
    return {
        "torch's random state (draw from a torch.Generator of your own)": torch.get_rng_state(),
        "random's state": random.getstate(),
        "the default dtype (torch.set_default_dtype)": torch.get_default_dtype(),
        "the gradient mode (torch.set_grad_enabled)": torch.is_grad_enabled(),
        "the number of threads (torch.set_num_threads)": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
    }


def restore_global_state(before: dict) -> list[str]:
    """The names of what moved; everything is put back."""
    after = global_state()
    moved = [name for name in before if not _same(before[name], after[name])]
    setters = [
        torch.set_rng_state,
        random.setstate,
        torch.set_default_dtype,
        torch.set_grad_enabled,
        torch.set_num_threads,
        torch._C._set_deterministic_algorithms,  # the public one imports torch's compiler
        torch.autograd.set_detect_anomaly,
    ]
    for (name, value), restore in zip(before.items(), setters, strict=True):
        if name in moved:
            restore(value)
    return moved


def _same(a, b) -> bool:
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


def describe(error: BaseException, path: str) -> dict:
    """Type, message, and the last line of the student's own file that the error passed through."""
    line, source = None, ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == path:
            line, source = number, linecache.getline(path, number).strip()
    if isinstance(error, SyntaxError) and error.filename == path:
        line, source = error.lineno, (error.text or "").strip()
    try:
        message = str(error)
    except Exception:
        message = ""
    bases = [kind.__name__ for kind in type(error).__mro__]
    return {"type": bases[0], "bases": bases, "message": message[:2000], "line": line, "source": source}


def _last_lines(printed, count: int = 5) -> str:
    """What the submission printed since the last call, the last lines of it; the file starts empty again."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # the file is full: the flood is cut off here
    size = os.lseek(printed.fileno(), 0, os.SEEK_END)
    if not size:
        return ""
    text = os.pread(printed.fileno(), 2000, max(0, size - 2000)).decode(errors="replace")
    os.ftruncate(printed.fileno(), 0)
    os.lseek(printed.fileno(), 0, os.SEEK_SET)
    return "\n".join(text.splitlines()[-count:])


if __name__ == "__main__":
    main(os.dup(0))
