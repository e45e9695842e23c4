"""The `lampion` command: run, explain, demo, info."""

from __future__ import annotations

import os
import sys
from typing import Any

USAGE = """\
usage: lampion run [-m MODULE | -c CODE | SCRIPT] [ARGS ...]   run a PyTorch program on lampion
       lampion explain [-m MODULE | -c CODE | SCRIPT] [ARGS]   run it and show where its time goes
       lampion demo [--folder DIR]                             train a digit classifier
       lampion info                                            versions and what is available
"""


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; returns the exit status."""
    args = sys.argv[1:] if argv is None else argv
    command = args[0] if args else "--help"
    if command in ("run", "explain"):
        return _run(args[1:], command)
    if command == "demo":
        from .demo import main as demo

        return demo(args[1:])
    if command == "info":
        return _info()
    if command == "--version":
        from .version import lampion_version

        print(f"lampion {lampion_version}")
        return 0
    sys.stdout.write(USAGE)
    if command in ("-h", "--help"):
        return 0
    print(f"lampion: unknown command {command!r}", file=sys.stderr)
    return 2


def _info() -> int:
    import platform

    import numpy

    from .version import __version__, lampion_version

    print(f"lampion {lampion_version}, follows PyTorch {__version__.partition('+')[0]}")
    print(f"Python {platform.python_version()} on {platform.platform()}, "
          f"{os.cpu_count()} processors")
    print(f"NumPy {numpy.__version__}")
    return 0


def _run(args: list[str], command: str) -> int:
    """Runs a program with `import torch` meaning lampion."""
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(USAGE)
        return 0 if args else 2
    from .torch_alias import install

    install()
    if command == "explain":
        from .explain import explained

        return explained(lambda: _run_program(args), " ".join(args)[:60])
    return _run_program(args)


def _run_program(args: list[str]) -> int:
    if args[0] == "-m":
        return _guarded(_run_module, args[1:], "-m needs a module name")
    if args[0] == "-c":
        return _guarded(_run_code, args[1:], "-c needs code")
    return _guarded(_run_script, args, "")


def _guarded(run: Any, args: list[str], missing: str) -> int:
    """Runs the user's program; an exception is shown without lampion's own frames."""
    if not args:
        print(f"lampion run: {missing}", file=sys.stderr)
        return 2
    try:
        run(args)
    except SystemExit:
        raise
    except BaseException as error:
        trace = _user_part(error.__traceback__)
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _user_part(trace: Any) -> Any:
    """The traceback from the first frame of the program; None if it never ran."""
    ours = (__file__, "<frozen runpy>")
    while trace is not None and trace.tb_frame.f_code.co_filename in ours:
        trace = trace.tb_next
    return trace


def _new_main(**attributes: Any) -> dict[str, Any]:
    """A fresh `__main__` module, as the interpreter makes for a script."""
    import builtins
    import types

    module = types.ModuleType("__main__")
    module.__dict__.update(__builtins__=builtins, __spec__=None, **attributes)
    sys.modules["__main__"] = module
    return module.__dict__


def _run_script(args: list[str]) -> None:
    import io

    path = args[0]
    if os.path.isdir(path) or path.endswith((".zip", ".pyz")):
        import runpy

        sys.argv = args
        runpy.run_path(path, run_name="__main__")
        return
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        print(f"lampion run: can't open file {os.path.abspath(path)!r}: [Errno {error.errno}] "
              f"{error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    sys.argv = args
    sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    exec(compile(source, path, "exec"), _new_main(__file__=path, __cached__=None))


def _run_module(args: list[str]) -> None:
    import runpy

    sys.argv = args
    sys.path.insert(0, os.getcwd())
    runpy.run_module(args[0], run_name="__main__", alter_sys=True)


def _run_code(args: list[str]) -> None:
    sys.argv = ["-c", *args[1:]]
    sys.path.insert(0, "")
    exec(compile(args[0], "<string>", "exec"), _new_main())
