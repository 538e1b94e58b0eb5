"""The wheel holds everything: built, and installed into a fresh environment, it imports whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "graders", "methods", "migrations", "workers")
SHIPPED = (
    "app/dashboard/static/style.css",
    "app/dashboard/static/vendor/htmx.min.js",
    "app/dashboard/templates/page.html",
    "app/dashboard/templates/home/home.html",
    "migrations/script.py.mako",
    "workers/models/cherry_nano/model.safetensors",
    "workers/models/cherry_nano_think/model.safetensors",
    "workers/models/cherry_nano_think/chat_template.jinja",
    "workers/training/measures/canary.jsonl",
)
IMPORT_ALL = """
import importlib, pkgutil, sys
elsewhere = {"migrations.env", "workers.environments.named.verifiers_host"}
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    assert "site-packages" in (package.__file__ or package.__path__[0]), package
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__") and module.name not in elsewhere:
            importlib.import_module(module.name)
"""
"""Alembic alone can import its env.py; verifiers_host.py runs beside a package in another Python."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    out = source / "wheel"
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([sys.executable, *build, "--wheel-dir", str(out), str(source)], check=True)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_what_they_read(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert modules | set(SHIPPED) <= held


def test_every_module_imports_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """The libraries are those of the tests' own environment; the editable install in it is not seen."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "fresh")], check=True)
    python = tmp_path / "fresh" / "bin" / "python"
    target = next((tmp_path / "fresh").glob("lib/python*/site-packages"))
    install = [
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        str(wheel),
    ]
    subprocess.run([sys.executable, *install], check=True)
    libraries = os.pathsep.join([str(target), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": libraries, "CHERRY_BROKER_URL": f"filesystem://{tmp_path}"}
    environment["DATABASE_URL"] = "postgresql://nobody@nowhere/nothing"
    command = [str(python), "-c", IMPORT_ALL, *PACKAGES]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
