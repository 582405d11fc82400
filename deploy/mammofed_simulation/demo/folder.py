"""Where a demo keeps what: everything of one demo lies below one folder, which is made anew each time."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from mammofed_shared.errors import ConfigurationError

_MARKER = ".mammofed-demo"


@dataclass(frozen=True, slots=True)
class DemoFolder:
    """The paths of one demo.

    Their names are those of ``configs/``, whose ``demo-output/seed-1`` stands for ``root`` here.
    """

    root: Path

    @property
    def hospitals(self) -> Path:
        """One folder a hospital: its PACS export."""
        return self.root / "hospitals"

    @property
    def sites(self) -> Path:
        """One folder a site: all that `site-client` keeps there."""
        return self.root / "sites"

    @property
    def server(self) -> Path:
        """All that `fl-server` keeps."""
        return self.root / "server"

    @property
    def authority(self) -> Path:
        """The consortium's certificate authority."""
        return self.root / "authority"

    @property
    def configs(self) -> Path:
        """The YAML files with which the commands are run."""
        return self.root / "configs"

    @property
    def comparisons(self) -> Path:
        """One folder a comparison."""
        return self.root / "comparisons"

    @property
    def logs(self) -> Path:
        """What each command wrote to its terminal."""
        return self.root / "logs"

    @property
    def model(self) -> Path:
        """The last checkpoint."""
        return self.root / "model"


def claim(root: Path) -> DemoFolder:
    """Make the folder, or empty it if an earlier demo made it.

    Raises:
        ConfigurationError: it holds something that no demo wrote; nothing is removed then.
    """
    if root.exists() and any(root.iterdir()):
        if not (root / _MARKER).is_file():
            raise ConfigurationError(
                f"--output {root}: expected a folder that does not exist, is empty, or is of an earlier demo. "
                "Nothing in it was touched; name another one."
            )
        for path in root.iterdir():
            if path.name != _MARKER:  # it stays, so that a demo that is killed here can be started again
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    root.mkdir(parents=True, exist_ok=True)
    (root / _MARKER).write_text("A demo of mammofed wrote this folder; the next demo with this --output empties it.\n")
    return DemoFolder(root)
