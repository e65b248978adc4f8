"""Annotations that state facts about the settings of factories."""

from __future__ import annotations

from typing import Annotated


class MayChangeOnResume:
    """Marks a setting that may have another value when a run is resumed.

    Write it in the annotation of a factory's parameter. All other settings must keep the values
    that the run began with.

    Example:
      >>> import typing
      >>> from typing import Annotated
      >>> from fedjax_sim.core.annotations import MAY_CHANGE_ON_RESUME, MayChangeOnResume
      >>> def factory(lr: Annotated[float, MAY_CHANGE_ON_RESUME] = 0.1, steps: int = 1): ...
      >>> hints = typing.get_type_hints(factory, include_extras=True)
      >>> [name for name, hint in hints.items() if MAY_CHANGE_ON_RESUME in typing.get_args(hint)]
      ['lr']
    """

    def __repr__(self) -> str:
        return "MAY_CHANGE_ON_RESUME"


MAY_CHANGE_ON_RESUME = MayChangeOnResume()
"""The marker to write in ``Annotated[float, MAY_CHANGE_ON_RESUME]``."""


class AnySize:
    """Marks a whole number that may exceed the 32 bits of a device, such as a seed or bytes.

    Other whole numbers of a configuration file count things on a device and are checked.
    """

    def __repr__(self) -> str:
        return "ANY_SIZE"


ANY_SIZE = AnySize()
"""The marker to write in ``Annotated[int, ANY_SIZE]``."""

Seed = Annotated[int, ANY_SIZE]
"""A seed, as a factory's parameter."""
