SELECT pg_notify(dispatch_channel(), $1::text)
