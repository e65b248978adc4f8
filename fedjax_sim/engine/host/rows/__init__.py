"""Client memory on the host: one file of rows, for populations whose memory table does not fit on
the devices.

A client that never took part costs no disk space. Rows that a snapshot refers to are never
overwritten, so a snapshot costs what changed since the last one, and a process that is killed
leaves every snapshot intact.
"""

from fedjax_sim.engine.host.rows.prefetch import RowPrefetcher, open_pipeline
from fedjax_sim.engine.host.rows.store import Description, RowStore, open_row_store

__all__ = ["Description", "RowPrefetcher", "RowStore", "open_pipeline", "open_row_store"]
