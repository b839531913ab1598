"""pynetdicom's reactor thread takes messages off the queue unless it is paused, and each send_c_*() pauses it. But it says
that it is paused a moment before it is: it may then take, and drop, the first answer of a fast peer (3.0.4,
Association._run_reactor). So it is paused for certain before each operation."""

import time


def at_rest(association):
    """The association, once its reactor waits. The operation that follows lets it go on."""
    checkpoint = association._reactor_checkpoint
    checkpoint.clear()
    while association.is_alive() and not checkpoint._cond._waiters:
        time.sleep(0.001)
    return association
