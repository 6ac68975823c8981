"""The DIMSE edge: an upper layer of our own, its listeners and requestors, and one verb a module.

From the wire up: `wire` and `items` (bytes), `associate` and `negotiation` (values), `connection`,
`fragments`, `messages` and `outgoing` (streams), `association`; `listener` and `incoming` accept,
`requestor` calls. The verbs and the access rules stand on these and know nothing of sockets.
"""
