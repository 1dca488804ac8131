"""The page to explore model neurons with: served on this machine, or written as plain files."""

from pocketcortex.explorer.app import make_app
from pocketcortex.explorer.explorer import Explorer
from pocketcortex.explorer.export import export_site
from pocketcortex.explorer.guard import Guard
from pocketcortex.explorer.natural import NaturalImages
from pocketcortex.explorer.serving import serve

__all__ = ["Explorer", "Guard", "NaturalImages", "export_site", "make_app", "serve"]
