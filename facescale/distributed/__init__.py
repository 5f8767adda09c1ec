"""This process among its peers: the group, the device, the launch."""

from facescale.distributed.dist import Dist, pick_device, start

__all__ = ["Dist", "pick_device", "start"]
