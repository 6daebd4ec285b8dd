"""The arrays that hold token ids and document ends, on disk and in memory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.unsignedinteger[Any]]
"""Token ids, as they lie in a shard."""

Ends = NDArray[np.unsignedinteger[Any]]
"""Where the documents of a shard end: the place after the last token of each, in ascending order."""

IdType = np.dtype[np.unsignedinteger[Any]]
"""The type of one id or of one end."""
