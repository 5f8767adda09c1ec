"""This process among its peers: the group, the device, the launch."""

from facescale.distributed.device import pick_device
from facescale.distributed.dist import Dist
from facescale.distributed.launch import start

__all__ = ["Dist", "pick_device", "start"]
