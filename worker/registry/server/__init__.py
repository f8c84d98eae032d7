"""A registry of our own: the distribution API (OCI distribution-spec 1.1) on the content store.

    routes        a path and a query -> what is asked for: frozen values
    answers       what is said: status, headers, body; errors in the spec's form
    ranges        which bytes of a blob or an upload a header means
    manifests     whether a manifest may come in, and what it needs
    referrers     the list of those that name a manifest as their subject
    wire          HTTP/1.1 on a stream: one request, its body, one answer
    transfer      bytes between a connection and a file, by the megabyte
    uploads       sessions: bytes that are no blob yet
    endpoints     what is done: each route and method on the store
    passwords     an htpasswd file
    server        listener, connections, limits, the access log

The first five are pure. Names of repositories and tags are only ever rows in the database, never paths.
"""
