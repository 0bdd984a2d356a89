"""A plugin of pytest: kafka-python asks again for topics that it was told of while a metadata request was under way.

kafka-python 3.0.12 forgets them, with any broker (the two TODOs about requests in flight in its kafka/cluster.py): who
subscribes just as the first answer arrives waits for the next refresh, five minutes later. On busy cores one test in a
hundred failed so.
"""

from kafka.cluster import ClusterMetadata

metadata_request = ClusterMetadata.metadata_request
update_metadata = ClusterMetadata.update_metadata


def request_and_remember(self):
    self.asked_for_all, self.asked_for = self.need_all_topic_metadata, set(self._topics)
    return metadata_request(self)


def update_and_ask_again(self, metadata):
    update_metadata(self, metadata)
    if self.asked_for_all:
        return
    if self.need_all_topic_metadata or self._topics - self.asked_for:
        self.request_update()


ClusterMetadata.metadata_request = request_and_remember
ClusterMetadata.update_metadata = update_and_ask_again
