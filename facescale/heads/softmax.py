"""Parts of a softmax that several heads share."""

NOTHING = -1e30  # stands for log 0 where minus infinity would make NaN
