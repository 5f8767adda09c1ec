"""This process among its peers: the group, the device, the launch."""

from facescale.distributed.agreement import compare_ranks
from facescale.distributed.device import pick_device
from facescale.distributed.dist import Dist
from facescale.distributed.launch import start
from facescale.distributed.peers import PeerError

__all__ = ["Dist", "PeerError", "compare_ranks", "pick_device", "start"]
