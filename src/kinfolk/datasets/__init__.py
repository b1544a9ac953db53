"""Named public data sets."""

from kinfolk.datasets.awa2 import awa2 as awa2
from kinfolk.datasets.cub import cub as cub
from kinfolk.datasets.digits import digits as digits
from kinfolk.datasets.digits_kang import digits_kang as digits_kang
from kinfolk.datasets.fashion_mnist import fashion_mnist as fashion_mnist
from kinfolk.datasets.image_folder import image_folder as image_folder
from kinfolk.datasets.mnist import mnist as mnist
from kinfolk.datasets.mtfl import mtfl as mtfl
from kinfolk.datasets.school import school as school
from kinfolk.datasets.school import school_split as school_split
