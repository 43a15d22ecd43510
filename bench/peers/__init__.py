"""Other ways to select drafts, each in a file of its own, written here from the published idea.

`catalogue.PEERS` lists them, `peer.Peer` says what each can do.
"""
