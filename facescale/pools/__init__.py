"""Which identity is in which slot: a ring and a least-recently-used pool that take whole batches at once.

Only bookkeeping: the rows of a container or pool belong to the heads. Ids are int64 from 0 to 2^63 - 1, and
memory follows the number of slots, never the range of the ids. No torch here.
"""

from facescale.arrays import BoolArray, IntArray
from facescale.pools.base import Pool, State
from facescale.pools.lru import LruPool
from facescale.pools.ring import RingPool
from facescale.pools.slot_table import EMPTY, SlotTable

__all__ = ["EMPTY", "BoolArray", "IntArray", "LruPool", "Pool", "RingPool", "SlotTable", "State"]
