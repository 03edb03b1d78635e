"""At the close of a player's window, DDP averages that player's gradients over the ranks, and no others.

DDP has one set of buckets for all parameters of a module, and reduces all of them in the backward pass that closes a
window, whichever player it is of: the other player's are zeros by then and are thrown away. A communication hook is
asked for each bucket, so it can leave those out. ``GANModule`` registers one. All else stays DDP's, and exact:

- The bucket reduces while the backward pass goes on.
- What DDP does with parameters that got no gradient (``find_unused_parameters``) stays: it leaves their gradients, such
  as those of an open window, as they are, whatever is in the bucket.
- With ``gradient_as_bucket_view`` the other player's open gradients lie in a bucket; left out, they stay as they are.
- Accumulation blocks the reduction, and with it the hook, until a window closes.
- The means are taken before the guard, the scaler and clipping see them, so a NaN on one rank stops all, as before;
  a checkpoint within a window averages the gradients itself (``univnet.gan.resume``).

What it leaves: of a bucket with gradients of both networks, the piece from the player's first to its last is sent. A
hook of the user's own, given to the strategy or registered in ``on_train_start`` of a callback, is kept in its place.

It is proved on two gloo ranks, and not tried on GPUs.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed import GradBucket
from torch.futures import Future
from torch.nn import Parameter
from torch.nn.parallel import DistributedDataParallel


class OwnGradients:
    """A communication hook that reduces the gradients of the player whose turn it is.

    Attributes:
        bytes_sent: of the tensors that this rank has given to all-reduce.
    """

    def __init__(self) -> None:
        self.bytes_sent = 0
        self._own: set[int] | None = None

    def register(self, model: Any) -> None:
        """Serve ``model``, the strategy's, if that is DDP and has no hook yet."""
        if isinstance(model, DistributedDataParallel):
            try:
                model.register_comm_hook(self, _reduce)
            except RuntimeError as error:  # a second hook
                if "can only be called once" not in str(error):
                    raise

    @contextmanager
    def of(self, parameters: Iterable[Parameter]) -> Iterator[None]:
        """Reduce the gradients of these ``parameters`` alone in the backward passes of this context."""
        self._own = {id(parameter) for parameter in parameters}
        try:
            yield
        finally:
            self._own = None

    def reduced(self, bucket: GradBucket) -> Future[Tensor]:
        """Average over the ranks what ``bucket`` holds of the player's gradients; return all of its gradients."""
        buffer = bucket.buffer()
        begin, end = self._range(bucket)
        part = buffer[begin:end]
        future: Future[Any]
        if begin == end:
            future = Future()
            future.set_result(buffer)
            return future
        self.bytes_sent += part.nbytes
        part.div_(dist.get_world_size())  # first, as DDP does: sums of half precision overflow sooner
        work = dist.all_reduce(part, async_op=True)
        assert work is not None
        return work.get_future().then(lambda _: buffer)

    def _range(self, bucket: GradBucket) -> tuple[int, int]:
        """Return where in the bucket the player's gradients lie, from the first to the end of the last."""
        begin = end = position = 0
        for parameter in bucket.parameters():
            after = position + parameter.numel()
            if self._own is None or id(parameter) in self._own:
                begin, end = (position if end == 0 else begin), after
            position = after
        return begin, end


def _reduce(state: OwnGradients, bucket: GradBucket) -> Future[Tensor]:
    return state.reduced(bucket)
