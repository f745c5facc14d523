"""The ``.skeleton`` text files of NTU RGB+D: one file, many files at once, or bytes from memory.

The grammar, the same for the compiled reader (``csrc/skeleton_io``) and for the one in Python
(``plain.py``), which runs where the first is not built:

    file   = frames line, then each frame, then blank lines only
    frame  = bodies line, then each body
    body   = id line of 10 fields, joints line (25), then 25 lines of 12 fields

A UTF-8 byte-order mark before the file is skipped. A line ends with a line feed or with the file.
Fields are what ASCII white space separates, which may also lead and trail, a carriage return among
it. Whole numbers are digits only; numbers are

    [+-] ( digits [. [digits]] | . digits ) [ e [+-] digits ]   or   [+-] ( nan | inf | infinity )

in any case, read as Python's ``float`` does and rounded to float32. Of a body's line only the id
is read, of a joint's line x y z and the tracking state (and the pixels, where asked for); the other
fields must be there and may hold anything.
"""

from .clip import Skeleton
from .read import parse_skeleton, read_skeleton, read_skeletons

__all__ = ["Skeleton", "parse_skeleton", "read_skeleton", "read_skeletons"]
