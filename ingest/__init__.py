"""Turning files, chats and text into records: readers, chunkers, embedders. It never writes."""
