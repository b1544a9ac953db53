"""Named public data sets."""

from kinfolk.datasets.digits import digits as digits
from kinfolk.datasets.fashion_mnist import fashion_mnist as fashion_mnist
from kinfolk.datasets.mnist import mnist as mnist
