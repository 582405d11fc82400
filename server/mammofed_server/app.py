"""The coordinator as a Flower ``ServerApp``: the same object runs on the mailbox, in process and on Ray."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from mammofed_server.control import Control
from mammofed_server.grid import FileGrid
from mammofed_server.ledger import RunLedger
from mammofed_server.quality import ask_once
from mammofed_server.run_state import RunState
from mammofed_server.strategies import make_strategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what is left of the run in the folder that the context names."""
    assert isinstance(grid, FileGrid), "every grid of mammofed carries files"
    folder = Path(str(context.run_config["folder"]))
    run = RunState.open(folder)
    run.ledger = grid.ledger or RunLedger(run)
    control = Control(folder)
    ask_once(run, grid, control)
    make_strategy(run, control).run_turns(grid)
    run.end("finished")
