"""How one shard runs its clients: lanes, their queue, and its reference, a padded vmap."""
