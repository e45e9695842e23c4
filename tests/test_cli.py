"""The command `lampion run`: programs behave as under `python`, with `import torch` as lampion."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "lampion", "run", *args]
    return subprocess.run(command, cwd=cwd, env={**os.environ, "PYTHONPATH": path},
                          capture_output=True, text=True, timeout=60)


def script(tmp_path: Path, text: str, name: str = "prog.py") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- ways to run -----------------------------------------------------------------------------


def test_script_arguments_name_and_path(tmp_path):
    script(tmp_path, "VALUE = 41", "helper.py")
    script(tmp_path, """
import sys, os, json, helper
import torch
print(json.dumps([__name__, os.path.basename(__file__), sys.argv, helper.VALUE,
                  torch.__name__, sys.modules["__main__"].__dict__ is globals(),
                  sys.path[0] == os.path.dirname(os.path.realpath(__file__))]))
""")
    done = run("prog.py", "--lr", "0.1", "-m", cwd=tmp_path)
    assert json.loads(done.stdout) == ["__main__", "prog.py", ["prog.py", "--lr", "0.1", "-m"], 41,
                                       "lampion", True, True]
    assert done.returncode == 0 and done.stderr == ""


def test_code(tmp_path):
    done = run("-c", "import sys, torch; print(sys.argv, torch.ones(2))", "a", "b", cwd=tmp_path)
    assert done.stdout == "['-c', 'a', 'b'] tensor([1., 1.])\n"


def test_module_with_relative_imports(tmp_path):
    script(tmp_path, "", "pkg/__init__.py")
    script(tmp_path, "import torch\ndef two(): return torch.full((1,), 2.)", "pkg/tools.py")
    script(tmp_path, "import sys\nfrom .tools import two\nprint(__name__, __package__, two(), "
                     "sys.argv[1:])", "pkg/main.py")
    done = run("-m", "pkg.main", "x", cwd=tmp_path)
    assert done.stdout == "__main__ pkg tensor([2.]) ['x']\n"


def test_package_and_directory_with_main(tmp_path):
    script(tmp_path, "", "pkg/__init__.py")
    script(tmp_path, "import torch, sys; print('main', torch.ones(1).item(), sys.argv[1:])",
           "pkg/__main__.py")
    assert run("-m", "pkg", "a", cwd=tmp_path).stdout == "main 1.0 ['a']\n"
    assert run("pkg", "b", cwd=tmp_path).stdout == "main 1.0 ['b']\n"


def test_objects_of_main_can_be_pickled(tmp_path):
    script(tmp_path, """
import pickle, copy, torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)
net = pickle.loads(pickle.dumps(Net()))
print(type(net) is Net, type(net).__module__)
torch.save(net, "net.pt")
print(type(torch.load("net.pt", weights_only=False)) is Net)
""")
    assert run("prog.py", cwd=tmp_path).stdout == "True __main__\nTrue\n"


def test_worker_processes_of_a_loader(tmp_path):
    script(tmp_path, """
import torch
from torch.utils.data import DataLoader, Dataset
class Squares(Dataset):
    def __len__(self): return 6
    def __getitem__(self, i): return torch.tensor(i * i)
if __name__ == "__main__":
    print(torch.cat(list(DataLoader(Squares(), batch_size=2, num_workers=2))).tolist())
""")
    done = run("prog.py", cwd=tmp_path)
    assert done.stdout == "[0, 1, 4, 9, 16, 25]\n", done.stderr


# --- endings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "status"), [
    ("pass", 0), ("import sys; sys.exit(3)", 3), ("import sys; sys.exit()", 0),
    ("raise SystemExit(7)", 7), ("import sys; sys.exit('bye')", 1), ("1 / 0", 1),
    ("raise KeyboardInterrupt", 130), ("import os; os._exit(5)", 5)])
def test_exit_status(code, status, tmp_path):
    assert run("-c", code).returncode == status
    script(tmp_path, code)
    assert run("prog.py", cwd=tmp_path).returncode == status


def test_exit_with_a_text_prints_it():
    assert run("-c", "import sys; sys.exit('bye')").stderr == "bye\n"


def test_traceback_starts_at_the_users_frame(tmp_path):
    path = script(tmp_path, "import torch\n\ndef f(x):\n    return x.view(7)\n\nf(torch.ones(2))\n")
    done = run("prog.py", cwd=tmp_path)
    lines = done.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1].strip() == 'File "prog.py", line 6, in <module>'
    assert "cli.py" not in done.stderr and "runpy" not in done.stderr
    assert "line 4, in f" in done.stderr
    assert lines[-1].startswith("RuntimeError: shape '[7]' is invalid for input of size 2")
    assert done.returncode == 1 and path.exists()


def test_traceback_of_a_module(tmp_path):
    script(tmp_path, "raise ValueError('mine')", "mod.py")
    done = run("-m", "mod", cwd=tmp_path)
    assert "runpy" not in done.stderr and done.stderr.endswith("ValueError: mine\n")


def test_syntax_error(tmp_path):
    script(tmp_path, "def f(:\n  pass\n")
    done = run("prog.py", cwd=tmp_path)
    assert done.returncode == 1
    assert "SyntaxError" in done.stderr and "cli.py" not in done.stderr


def test_atexit_runs_and_output_is_flushed():
    done = run("-c", "import atexit; atexit.register(print, 'end'); print('start', end='')")
    assert done.stdout == "startend\n"


@pytest.mark.parametrize("args", [(), ("-c",), ("-m",), ("no_such_file.py",),
                                  ("-m", "no_such_module_at_all")])
def test_wrong_use(args, tmp_path):
    done = run(*args, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stderr or done.stdout
    assert 'File "' not in done.stderr


def test_missing_file_is_named(tmp_path):
    done = run("gone.py", cwd=tmp_path)
    assert done.returncode == 2 and "can't open file" in done.stderr and "gone.py" in done.stderr


# --- names -----------------------------------------------------------------------------------


def in_program(code: str) -> str:
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_version_reads_as_pytorchs():
    major, minor, *_ = in_program("import torch; print(torch.__version__)").split(".")
    assert (int(major), int(minor)) >= (2, 0)
    assert in_program("import torch; print(torch.__version__ >= '2.0', "
                      "torch.version.__version__ == torch.__version__, torch.version.cuda)"
                      ) == "True True None"


MISSING = """
try:
    {code}
except {error} as e:
    print(e)
"""


@pytest.mark.parametrize(("code", "error", "name"), [
    ("import torch; torch.no_such_thing", "AttributeError", "torch.no_such_thing"),
    ("import torch; torch.nn.NoSuchLayer", "AttributeError", "NoSuchLayer"),
    ("import torch; torch.nn.functional.no_such", "AttributeError", "no_such"),
    ("from torch import no_such_thing", "ImportError", "no_such_thing"),
    ("from torch.nn import NoSuchLayer", "ImportError", "NoSuchLayer"),
    ("import torch.no_such_room", "ImportError", "torch.no_such_room"),
    ("import torch.nn.no_such_room", "ImportError", "torch.nn.no_such_room"),
    ("from torch.no_such_room import x", "ImportError", "torch.no_such_room")])
def test_missing_name_is_named(code, error, name):
    text = in_program(MISSING.format(code=code, error=error))
    assert name in text
    if name.startswith("torch."):
        assert f"lampion has no {name} yet" in text


def test_one_module_object_per_module():
    assert in_program("""
import torch, lampion, sys
import torch.nn.functional as F
from torch import nn
import torch.nn as nn2
import lampion.nn.functional as LF
print(torch is lampion, F is nn.functional, nn is nn2, F is LF, sys.modules["torch.nn"] is nn)
""") == "True True True True True"


def test_imports_keep_the_modules_identity():
    assert in_program("""
import torch.utils.data
from torch.utils.data import DataLoader
print(torch.utils.data.__name__, torch.utils.data.__spec__.name)
""") == "lampion.utils.data lampion.utils.data"


SPELLINGS = json.loads((Path(__file__).with_name("spellings.json")).read_text())


def test_every_spelling_of_a_name():
    """Names that programs import from PyTorch's inner modules."""
    text = in_program(f"""
import importlib
for place, names in {SPELLINGS!r}.items():
    try:
        module = importlib.import_module(place)
    except ImportError as error:
        print(place, error)
        continue
    for name in names:
        if not hasattr(module, name):
            print(place, name)
""")
    assert text == ""


def test_torch_in_place_of_an_imported_pytorch_is_refused():
    code = "import sys, types; sys.modules['torch'] = types.ModuleType('torch');" \
           "from lampion.torch_alias import install; install()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert "torch is imported already" in done.stderr


def test_other_commands():
    def lampion(*args: str):
        return subprocess.run([sys.executable, "-m", "lampion", *args], capture_output=True,
                              text=True, cwd=ROOT)
    assert "usage: lampion" in lampion("--help").stdout
    assert lampion("info").stdout.startswith("lampion ")
    assert lampion("--version").stdout.startswith("lampion ")
    assert lampion("dance").returncode == 2 and "dance" in lampion("dance").stderr


def test_pickle_of_a_tensor_crosses_the_alias(tmp_path):
    import lampion

    (tmp_path / "t.pkl").write_bytes(pickle.dumps(lampion.arange(3)))
    script(tmp_path, "import pickle, torch\nprint(pickle.load(open('t.pkl', 'rb')))")
    assert run("prog.py", cwd=tmp_path).stdout == "tensor([0, 1, 2])\n"
