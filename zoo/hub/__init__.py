"""Moves finished zoos to the Hugging Face Hub and back, and opens those that lie there.

A push shows the old zoo or the new one, never something between; what comes from a
repository is held against its index before anything reads it. No token is printed or
stored; it lives where `hf auth login` put it.
"""

from zoo.hub.arrival import Found, fetch_model, files_of, find, locate, open_zoo
from zoo.hub.pulling import pull
from zoo.hub.pushing import Pushed, push
from zoo.hub.trust import is_repo_id

__all__ = ["Found", "Pushed", "fetch_model", "files_of", "find", "is_repo_id"]
__all__ += ["locate", "open_zoo", "pull", "push"]
