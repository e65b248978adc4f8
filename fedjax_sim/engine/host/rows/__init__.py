"""Client memory on the host: one file of rows for populations whose table does not fit on the devices.

A client that never took part costs nothing. Rows that a snapshot refers to are never overwritten, so a snapshot costs what changed
since the last one, and any process that is killed leaves every snapshot as it was.
"""

from fedjax_sim.engine.host.rows.prefetch import Pipeline, open_pipeline
from fedjax_sim.engine.host.rows.store import Description, Vault, open_vault

__all__ = ["Description", "Pipeline", "Vault", "open_pipeline", "open_vault"]
