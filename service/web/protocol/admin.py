"""The body of POST /admin/models."""

from typing import Annotated

from pydantic import Field

from service.web.fields import Body


class NewModel(Body):
    """POST /admin/models."""

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    """Directory of a checkpoint or an adapter, as the server sees it."""
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.:/@-]{0,126}[A-Za-z0-9_.:@-])?$")] | None = None
    """What clients call the model; absent: the directory's name. One that is served already is replaced. It cannot end
    with a slash, since paths may."""
