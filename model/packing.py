"""Attention over rows that hold several documents: each token sees its own document up to itself, nothing else.

It knows neither where documents come from nor the model around it; `GPT.forward` calls it as it calls a cache's plan.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


class DocumentMask:
    """Which tokens of a batch may see which; built once, used by every layer."""

    def __init__(self, documents: Tensor) -> None:
        """Compare the documents of all tokens.

        Args:
            documents: id of each token's document (B, T), int64; a row's tokens of one document stand side by side.
        """
        self.shape = documents.shape
        self.ends = document_ends(documents) if documents.is_cuda else None
        is_compared = documents.device.type == "cpu" and not torch.compiler.is_compiling()  # elsewhere it would wait
        self.is_causal = is_compared and bool((documents == documents[:, :1]).all())
        self.mask = None if self.is_causal else (documents[:, None, :, None] == documents[:, None, None]).tril()

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
        """Attend each token to its document up to itself.

        Args:
            layer: ignored, nothing is kept.
            q: queries (B, H, T, D).
            k: keys (B, H_kv, T, D).
            v: values (B, H_kv, T, D).
            dropout: share of the attention weights to zero.

        Returns:
            (B, H, T, D).
        """
        grouped = k.shape[1] != q.shape[1]
        fits = q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] % 8 == 0  # what the kernel computes
        if self.ends is not None and fits and not dropout:
            return self._attend_apart(q, k, v, self.ends, grouped)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=self.mask, is_causal=self.is_causal, dropout_p=dropout, enable_gqa=grouped
        )

    def _attend_apart(self, q: Tensor, k: Tensor, v: Tensor, ends: Tensor, grouped: bool) -> Tensor:
        """Attend document by document in one kernel of CUDA, which skips what the mask would throw away."""
        from torch.nn.attention.varlen import varlen_attn  # takes a second to import, and a CPU needs none of it

        length = self.shape[1]
        q, k, v = (part.transpose(1, 2).flatten(0, 1) for part in (q, k, v))  # (B * T, H, D)
        y = varlen_attn(q, k, v, ends, ends, length, length, window_size=(-1, 0), enable_gqa=grouped)
        assert isinstance(y, Tensor)
        return y.view(*self.shape, *y.shape[1:]).transpose(1, 2)


def document_ends(documents: Tensor) -> Tensor:
    """Where documents (B, T) end when all rows are joined, int32, with a leading 0; no document spans two rows."""
    starts = torch.ones_like(documents, dtype=torch.bool)
    starts[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return F.pad(starts.flatten().nonzero().flatten(), (0, 1), value=documents.numel()).int()
