"""How ONNX Runtime computes: no more threads than there are free cores, and none that spins."""

from typing import Any

from facescale.machine.cores import free_cores


def session_options(threads: int) -> Any:
    """Options of a session on the CPU (needs ``onnxruntime``).

    Its own choice is a thread for every core of the machine, whatever a container grants, and threads that
    spin while they wait for work, which takes the cores from all else that runs there.

    Args:
        threads: that share one call; fewer where fewer cores are free.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(threads, free_cores()[0])
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options
