"""Make the virtual environment that every make target uses, or say in one message why that cannot be done.

Run by the Makefile with the user's Python, before anything else exists. It therefore uses the standard
library only and syntax that Python 2.7 and 3.6 can parse: an old interpreter gets a message, no SyntaxError.

The finished environment carries a stamp: a hash of this checkout's place, pyproject.toml and constraints.txt.
While the stamp is valid a call costs a fraction of a second and installs nothing.
"""

from __future__ import print_function

import argparse
import hashlib
import os
import subprocess
import sys

OLDEST_PYTHON = (3, 11)
INSTALL_GIB = 9.0  # 6.4 installed (torch with its CUDA libraries), 2.6 of downloads while installing
UPDATE_GIB = 0.5  # torch is there already, only small packages may change
STAMP = "pplkit-stamp"
LOG = "pplkit-install.log"
BUILD_TOOL = "setuptools"  # builds the project; small, so it also tells whether pip can reach its index
NETWORK_SIGNS = (
    "connection broken by",
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ProxyError",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "Max retries exceeded",
    "Could not fetch URL",
    "Connection refused",
    "nodename nor servname provided",
)


class SetupProblem(Exception):
    """Something the user has to change first; the text is the whole message."""


def check_python(version, executable, found):
    """Raise if `version` (a tuple) is older than OLDEST_PYTHON; `found` lists newer interpreters."""
    if tuple(version[:2]) >= OLDEST_PYTHON:
        return
    hint = "Install Python %d.%d or newer, then name it: make run PYTHON=python3.12" % OLDEST_PYTHON
    if found:
        hint = "This machine also has %s. Choose it: make run PYTHON=%s" % (", ".join(found), found[0])
    raise SetupProblem(
        "Python %s (%s) is too old: pplkit needs %d.%d or newer.\n%s"
        % (".".join(str(part) for part in version[:3]), executable, OLDEST_PYTHON[0], OLDEST_PYTHON[1], hint)
    )


def newer_pythons(path, minors=range(20, 10, -1)):
    """Names python3.MINOR of new enough, working interpreters in the folders of `path`, newest first."""
    names = ["python3.%d" % minor for minor in minors if (3, minor) >= OLDEST_PYTHON]
    working = []
    for name in names:
        places = [os.path.join(folder, name) for folder in path.split(os.pathsep) if folder]
        first = [place for place in places if os.access(place, os.X_OK)][:1]
        # A version manager's stand-in exists for versions that are not active, and then fails.
        if first and starts(first[0]):
            working.append(name)
    return working


def starts(interpreter):
    """Whether the interpreter runs at all."""
    with open(os.devnull, "wb") as nowhere:
        try:
            return subprocess.call([interpreter, "-c", ""], stdout=nowhere, stderr=nowhere) == 0
        except OSError:
            return False


def check_venv_module(missing, version):
    """Raise if the standard library's `venv` or `ensurepip` is in `missing` (Debian packages them apart)."""
    if missing:
        raise SetupProblem(
            "This Python has no module %s, so it cannot make a virtual environment.\n"
            "Debian, Ubuntu: sudo apt install python%d.%d-venv\n"
            "Elsewhere: install a complete Python and name it: make run PYTHON=/path/to/python3"
            % (" and no module ".join(missing), version[0], version[1])
        )


def missing_modules(names=("venv", "ensurepip")):
    """Those of `names` that cannot be imported."""
    missing = []
    for name in names:
        try:
            __import__(name)
        except ImportError:
            missing.append(name)
    return missing


def check_disk(free_gib, needed_gib, folder):
    """Raise if `folder`'s disk has less than `needed_gib` free."""
    if free_gib < needed_gib:
        raise SetupProblem(
            "Too little disk space: %.1f GiB free for %s, about %.1f GiB needed "
            "(torch takes 6 GiB, its download nearly 3 more while it is installed).\n"
            "Free some space, put the environment on another disk (make run VENV=/path/on/it/venv), or, if "
            "your package index has a smaller CPU-only torch, lower the limit: make run MIN_DISK_GIB=2"
            % (free_gib, folder, needed_gib)
        )


def is_network_failure(output):
    """Whether pip's `output` says that it could not reach its index (pip knows proxies and mirrors)."""
    # Without retries pip is silent about connections; but every index that answers has BUILD_TOOL.
    no_versions = "the requirement %s==" % BUILD_TOOL in output and "(from versions: none)" in output
    return no_versions or any(sign in output for sign in NETWORK_SIGNS)


def network_message(lines, log):
    """What to tell the user when pip could not reach its index; `lines` is pip's output, `log` its file."""
    return (
        "pip could not reach its package index: no network, or a proxy or mirror unknown to pip.\n"
        "Behind a proxy: export HTTPS_PROXY=http://host:port\n"
        "With a mirror: pip config set global.index-url https://mirror/simple\n"
        "Then repeat the command; what is installed already is kept. pip said (all of it: %s):\n  %s"
        % (log, "\n  ".join([line for line in lines if line.startswith("ERROR")][-3:] or lines[-3:]))
    )


def stamp_text(root):
    """Hash of what decides the environment: the checkout's place, pyproject.toml and constraints.txt."""
    digest = hashlib.sha256(root.encode("utf-8"))
    for name in ("pyproject.toml", "constraints.txt"):
        with open(os.path.join(root, name), "rb") as handle:
            digest.update(b"\0" + handle.read())
    return digest.hexdigest()


def read_text(path):
    """The text of a file, or '' where it does not exist."""
    if not os.path.isfile(path):
        return ""
    with open(path) as handle:
        return handle.read().strip()


def pinned(constraints, name):
    """The line `name==version` of the constraints file."""
    for line in read_text(constraints).splitlines():
        if line.startswith(name + "=="):
            return line
    raise SetupProblem("%s holds no line %s==version: restore the file" % (constraints, name))


def venv_python(venv):
    """Path of the environment's interpreter."""
    return os.path.join(venv, "bin", "python")


def installed_version(venv):
    """(major, minor) of the environment's interpreter, None if it is absent, broken or has no pip."""
    command = [venv_python(venv), "-c", "import pip, sys; print('%d.%d' % sys.version_info[:2])"]
    try:
        text = subprocess.check_output(command, stderr=subprocess.STDOUT).decode()
    except (OSError, subprocess.CalledProcessError):
        return None
    major, minor = text.split()[-1].split(".")
    return int(major), int(minor)


def has_torch(venv, version):
    """Whether torch has been installed into the environment."""
    packages = os.path.join(venv, "lib", "python%d.%d" % version, "site-packages")
    return os.path.isdir(packages) and any(
        name.startswith("torch-") and name.endswith(".dist-info") for name in os.listdir(packages)
    )


def check_replaceable(venv):
    """Raise if `venv` holds files but is no virtual environment: it would be emptied."""
    if os.path.isdir(venv) and os.listdir(venv) and not os.path.isfile(os.path.join(venv, "pyvenv.cfg")):
        raise SetupProblem(
            "%s is not empty and not a virtual environment; choose another place: make run VENV=.venv" % venv
        )


def run_pip(python, arguments, root, venv):
    """Run pip, showing its main lines; its full output goes to the log. Raises SetupProblem if it fails."""
    log = os.path.join(venv, LOG)
    scratch = os.path.join(venv, "tmp")
    if not os.path.isdir(scratch):
        os.makedirs(scratch)
    # Downloads are unpacked beside the environment: /tmp is often a small memory disk.
    environment = dict(
        os.environ, TMPDIR=scratch, PIP_USER="0", PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONUNBUFFERED="1"
    )
    command = [python, "-m", "pip"] + arguments
    lines = []
    with open(log, "ab") as handle:
        process = subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        for raw in iter(process.stdout.readline, b""):
            handle.write(raw)
            handle.flush()
            line = raw.decode("utf-8", "replace").rstrip()
            lines.append(line)
            words = line.split()
            if words and (words[0] in ("Downloading", "Installing", "WARNING:", "ERROR:")):
                print("  " + (line.strip() if len(line) < 200 else line.strip()[:200] + " ..."))
                sys.stdout.flush()
        status = process.wait()
    if status == 0:
        return
    output = "\n".join(lines)
    if is_network_failure(output):
        raise SetupProblem(network_message(lines, log))
    if "No space left on device" in output:
        raise SetupProblem(
            "The disk filled up while packages were installed into %s; free some space "
            "(about %.0f GiB in all) and repeat the command." % (venv, INSTALL_GIB)
        )
    raise SetupProblem(
        "pip failed (status %d):\n%s\nThe full output is in %s" % (status, "\n".join(lines[-12:]), log)
    )


def set_up(root, venv, chosen, minimum_gib):
    """Bring the environment `venv` in line with the checkout `root`; True if anything had to be done.

    chosen: the user named the interpreter (PYTHON=...), so an environment of another version is a mistake.
    minimum_gib: free disk space demanded, None for what an installation is known to need.
    """
    wanted = stamp_text(root)
    current = installed_version(venv)
    if current and current < OLDEST_PYTHON:
        current = None
    if current and chosen and current != tuple(sys.version_info[:2]):
        raise SetupProblem(
            "%s was made with Python %d.%d, you asked for %d.%d. Remove it (make distclean) or keep "
            "both: make run PYTHON=%s VENV=.venv-%d.%d"
            % (
                (venv,)
                + current
                + tuple(sys.version_info[:2])
                + (sys.executable,)
                + tuple(sys.version_info[:2])
            )
        )
    stamp = os.path.join(venv, STAMP)
    if current and read_text(stamp) == wanted:
        return False

    import shutil  # disk_usage does not exist in the old Pythons turned away above

    if not current:
        check_venv_module(missing_modules(), sys.version_info)
        check_replaceable(venv)
    needed = UPDATE_GIB if current and has_torch(venv, current) else INSTALL_GIB
    folder = venv
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    check_disk(
        shutil.disk_usage(folder).free / 2.0**30, needed if minimum_gib is None else minimum_gib, folder
    )

    if not current:
        print("Making the virtual environment %s with Python %s" % (venv, sys.version.split()[0]))
        sys.stdout.flush()
        status = subprocess.call([sys.executable, "-m", "venv", "--clear", venv])
        if status or not installed_version(venv):
            raise SetupProblem(
                "`%s -m venv %s` failed, see its message above. On Debian and Ubuntu the usual cause "
                "is a missing package: sudo apt install python%d.%d-venv"
                % ((sys.executable, venv) + tuple(sys.version_info[:2]))
            )
    python = venv_python(venv)
    constraints = os.path.join(root, "constraints.txt")
    print(
        "Installing the pinned packages: about 3 GB to download, several minutes. Only this once."
        if needed == INSTALL_GIB
        else "Bringing the installed packages in line with constraints.txt"
    )
    sys.stdout.flush()
    if os.path.exists(stamp):
        os.remove(stamp)
    run_pip(python, ["install", pinned(constraints, BUILD_TOOL)], root, venv)
    run_pip(
        python,
        ["install", "--constraint", constraints, "--no-build-isolation", "--editable", ".[course,dev]"],
        root,
        venv,
    )
    shutil.rmtree(os.path.join(venv, "tmp"), ignore_errors=True)
    with open(stamp, "w") as handle:
        handle.write(wanted + "\n")
    return True


def main(arguments=None):
    """Command line; exit status 0 when the environment is ready, 2 with a message when it cannot be made."""
    parser = argparse.ArgumentParser(description="Make or update the virtual environment of this checkout.")
    parser.add_argument("--venv", default=".venv", help="where the environment lives")
    parser.add_argument("--chosen", action="store_true", help="the user named this interpreter (PYTHON=...)")
    parser.add_argument(
        "--min-disk-gib", type=float, default=None, help="free space to demand instead of the default"
    )
    options = parser.parse_args(arguments)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        old = sys.version_info[:2] < OLDEST_PYTHON
        found = newer_pythons(os.environ.get("PATH", "")) if old else []
        check_python(sys.version_info, sys.executable, found)
        venv = os.path.join(root, os.path.expanduser(options.venv))
        if set_up(root, venv, options.chosen, options.min_disk_gib):
            print("Environment ready: %s" % venv)
    except SetupProblem as problem:
        print("\nCannot set up: %s" % problem, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
