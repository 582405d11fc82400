"""The coordinator as a Flower ``ServerApp``: the same object runs on the mailbox, in process and on Ray."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from mammofed_server.control import Control
from mammofed_server.disk import when_there_is_room
from mammofed_server.grid import FileGrid
from mammofed_server.ledger import RunLedger
from mammofed_server.quality import ask_once
from mammofed_server.run_state import RunState
from mammofed_server.strategies import make_strategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what is left of the run in the folder that the context names.

    Whatever could not be written for lack of room, all goes on from the files as after a kill.
    """
    assert isinstance(grid, FileGrid), "every grid of mammofed carries files"
    folder = Path(str(context.run_config["folder"]))
    control = Control(folder)

    def run_what_is_left() -> None:
        run = RunState.open(folder)
        run.ledger = grid.ledger or RunLedger(run)
        ask_once(run, grid, control)
        make_strategy(run, control).run_turns(grid)
        run.end("finished")

    when_there_is_room(run_what_is_left, "a record of the run", 2**20, folder, control)
