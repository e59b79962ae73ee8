"""What the votes about a face tell of its label: how often faces with such votes bear each label.

FER+ voters and the annotators of FER-2013 read the same faces, but not alike: what most voters call neutral is often
labelled sad. Their shares of the emotions are therefore biased targets for a net that is judged on labels. The
probability of each label under the votes is not, and has less noise than one annotator's label. It is an answer from
what training alone knows, the "privileged information" of Lopez-Paz et al. (ICLR 2016).
"""

import numpy as np
import torch
from torch import Tensor

from mien.lab.data import FaceSet, usable_votes


def label_probabilities(faces: FaceSet) -> Tensor:
    """float32 ``[N, C]``: the probability of each label under a face's votes; rows without usable votes are zero.

    Fitted on the labels and votes of ``faces`` themselves: multinomial logistic regression on the square roots of all
    ten shares (unknown and not-a-face included) and their products in pairs, 66 numbers a class. Raises ``DataError``
    for a set without votes.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures

    votes = usable_votes(faces).cpu().numpy().astype(np.float64)
    told = votes.sum(axis=1) > 0
    labels = faces.labels.cpu().numpy()[told]
    given = np.zeros((len(faces), len(faces.emotions)), np.float32)
    present = np.unique(labels)
    if len(present) == 1:
        given[np.ix_(told, present)] = 1
    elif len(present) > 1:
        shares = np.sqrt(votes[told] / votes[told].sum(axis=1, keepdims=True))
        model = make_pipeline(PolynomialFeatures(2), LogisticRegression(max_iter=1000)).fit(shares, labels)
        given[np.ix_(told, present)] = model.predict_proba(shares)
    return torch.from_numpy(given)
