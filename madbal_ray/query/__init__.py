"""Which pixels to ask for (paper section 3.2, image level)."""

from madbal_ray.query.image_query import Queries, query_image
from madbal_ray.query.initial import draw_initial_pixels

__all__ = ["Queries", "draw_initial_pixels", "query_image"]
