"""Moves finished zoos to the Hugging Face Hub and back, and opens those that lie there.

A push shows the old zoo or the new one, never something between; what comes from a
repository is held against its index before anything reads it. No token is printed or
stored; it lives where `hf auth login` put it.
"""

from zoo.hub.arrival import download, open_zoo, remote_index
from zoo.hub.pulling import pull
from zoo.hub.pushing import Pushed, push
from zoo.hub.trust import is_repo_id

__all__ = ["Pushed", "download", "is_repo_id", "open_zoo", "pull", "push", "remote_index"]
