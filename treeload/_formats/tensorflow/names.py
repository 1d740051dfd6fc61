"""What a tensor's key is called here: cut at ``/``, and without what marks a variable as one.

``tf.compat.v1.train.Saver`` writes the names of variables (``dense/kernel``). ``tf.train.Checkpoint`` and
Keras write the way to an object and one of its attributes, nearly always ``.ATTRIBUTES/VARIABLE_VALUE``
(``model/dense/kernel/.ATTRIBUTES/VARIABLE_VALUE``), with ``.`` and ``/`` inside of a name as ``..`` and
``.S`` (TensorFlow's ``python/checkpoint/trackable``). That ending says nothing and is dropped; what is no
variable's value keeps its own.
"""

from __future__ import annotations

import re

from treeload._naming.bounds import name_from_file
from treeload._naming.name import Name

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
"""What the key of a variable ends in, where objects were saved."""


_ESCAPED = re.compile(r"\.([.S])")


def name_of(key: str, separator: str | None) -> Name:
    r"""The name of a tensor.

    Examples:
        >>> str(name_of("model/dense/kernel/.ATTRIBUTES/VARIABLE_VALUE", "/"))
        'model/dense/kernel'
        >>> str(name_of("v/.OPTIMIZER_SLOT/opt/m/.ATTRIBUTES/VARIABLE_VALUE", "/"))
        'v/.OPTIMIZER_SLOT/opt/m'
        >>> str(name_of("lstm0_fw/rec/W", "/")), str(name_of("a.b/c", None))
        ('lstm0_fw/rec/W', 'a.b\\/c')

    Raises:
        ValueError: it is longer than any name may be.
    """
    own = key.removesuffix(VALUE)
    keys = (own,) if separator is None else tuple(own.split(separator))
    if own != key:
        keys = tuple(_ESCAPED.sub(lambda found: "." if found[1] == "." else "/", each) for each in keys)
    return name_from_file(keys)
