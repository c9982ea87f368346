//! JSON-RPC: schema, framing and client.
