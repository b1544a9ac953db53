"""Estimators with scikit-learn's contract: one network arm, trained on arrays."""

from kinfolk.estimators.classifier import MultiTaskClassifier as MultiTaskClassifier
from kinfolk.estimators.folds import MultiTaskKFold as MultiTaskKFold
from kinfolk.estimators.mixed import MultiTaskEstimator as MultiTaskEstimator
from kinfolk.estimators.regressor import MultiTaskRegressor as MultiTaskRegressor
