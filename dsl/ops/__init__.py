"""Array operations, written in the language; importing this gives tensors their operators and methods.

- dispatch.py       how one function serves elements, tensors and the arrays of others
- pointwise.py      arithmetic, elementary functions, comparisons, bits; compound.py what is made of several
- activation.py     relu and its kin, gates
- reduction.py      over axes; cumulative.py prefixes along one
- matmul.py         products; einsum.py sums of products by letters
- conv.py           convolutions; pooling.py pools; windows.py and padding.py what they share
- norm.py           softmax and normalisations; loss.py losses; attention.py attention
- slicing.py        ``x[...]``; shape.py rearrangements; joining.py concat and split; indexing.py positions that are data
- creation.py       ranges and constants; random.py counter-based random numbers; resize.py interpolation
- methods.py        what ``x.`` offers; catalogue.py all of it by subject
"""

from __future__ import annotations

from dsl.ops.methods import install

install()
