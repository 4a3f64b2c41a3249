"""What a user gets from the wheel: everything that the package needs, and nothing of the checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(source: Path, folder: Path) -> Path:
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source),
        cwd=folder,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and our dependencies from this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # A folder named in a .pth file is searched, but its own .pth files are not read: an editable
    # install in this environment does not lead back to the checkout.
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "dependencies.pth").write_text("\n".join(sorted(ours)))
    return python


def test_wheel_holds_the_package_and_the_shipped_files(wheel: Path) -> None:
    found = contents(wheel)
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "nas").rglob("*.py")}
    expected |= {"nas/py.typed", "nas/store/migrations/env.py"}
    for kind in ("search_spaces", "studies"):
        shipped = {f"nas/shipped/{path.relative_to(ROOT)}" for path in (ROOT / kind).glob("*.yaml")}
        assert shipped, f"{kind}/ is empty"
        expected |= shipped
    assert expected - found.keys() == set()
    assert any(name.startswith("nas/store/migrations/versions/0001") for name in found)


def test_wheel_brings_its_license_and_nothing_beside_the_package(wheel: Path) -> None:
    found = contents(wheel)
    tops = {name.split("/")[0] for name in found}
    (metadata,) = tops - {"nas"}
    assert metadata.endswith(".dist-info")
    assert found[f"{metadata}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b"nas = nas.cli:main" in found[f"{metadata}/entry_points.txt"]


def test_sdist_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=ROOT)
    (sdist,) = tmp_path.glob("*.tar.gz")
    assert contents(build_wheel(sdist, tmp_path)) == contents(wheel)


def test_installed_wheel_finds_its_shipped_files_without_the_checkout(installed_python: Path, tmp_path: Path) -> None:
    script = "import nas; from nas.space import Space; print(nas.__file__); print(Space.load('hybrid_decoder').name)"
    origin, name = run(installed_python, "-I", "-c", script, cwd=tmp_path).splitlines()
    assert Path(origin).is_relative_to(installed_python.parents[1])
    assert name == "hybrid_decoder"


def test_installed_command_checks_a_shipped_study_by_name(installed_python: Path, tmp_path: Path) -> None:
    assert "quickstart" in run(installed_python.with_name("nas"), "check", "quickstart", cwd=tmp_path)
