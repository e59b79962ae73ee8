"""Cross-modal supervision: faces are drawn to their emotion's description in words."""

from torch import Tensor, nn
from torch.nn import functional as F


class Alignment(nn.Module):
    """A linear projection of pooled features into the space of the words, and a softmax over cosines there.

    The class vectors are fixed, as the texts of Radford et al. (CLIP, ICML 2021) are in zero-shot use: the net learns
    where each emotion lies among the others, not where they lie.
    """

    def __init__(self, inputs: int, words: Tensor, temperature: float) -> None:
        """``words`` float32 ``[C, D]``: a vector for each class, of any length."""
        super().__init__()
        self.temperature = temperature
        self.project = nn.Linear(inputs, words.shape[1])
        self.register_buffer("words", F.normalize(words, dim=1), persistent=False)

    def forward(self, pooled: Tensor, target: Tensor) -> Tensor:
        """Batch mean of the cross-entropy of cosine over temperature against ``target`` ``[N, C]``, hard or soft."""
        unit = F.normalize(self.project(pooled).float(), dim=1)
        cosines = unit @ self.get_buffer("words").float().T
        return F.cross_entropy(cosines / self.temperature, target.float())
