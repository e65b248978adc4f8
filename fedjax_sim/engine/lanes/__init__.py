"""How one shard runs its clients: lanes with a queue, and the reference, a padded vmap."""
