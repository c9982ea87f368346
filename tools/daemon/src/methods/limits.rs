//! Everything has a limit: which, and how much of it is used.

use gateway::export::{Crowd, Limits};
use rpc::RpcError;
use serde_json::{Value, json};

use super::Method;
use crate::node::Node;
use crate::params;
use crate::params::none;

pub(super) const METHODS: &[Method] = &[Method::always("node_get_limits", none, limits)];

/// What was asked of a node's first reactor.
struct Use {
    limits: Limits,
    crowd: Crowd,
    connections: usize,
    sessions: usize,
    logins: usize,
    arena: usize,
    /// Size, frames, free frames, and allocations that found none, of each class of frames.
    classes: Vec<[usize; 4]>,
}

fn limits(node: &mut Node, given: Option<&Value>) -> Result<Value, RpcError> {
    params::none(given)?;
    let used = node.on(0, |residents, _| {
        let pool = residents.core.pool();
        let classes = pool.stats().map(|class| [class.frame_size, class.frames, class.free, class.misses]);
        let (arena, classes) = (pool.bytes(), classes.to_vec());
        let target = residents.target();
        let connections = target.connections();
        let sessions = connections.iter().filter(|one| one.full_feature && !one.target.is_empty()).count();
        let logins = connections.iter().filter(|one| !one.full_feature).count();
        let limits = target.config().limits;
        Use {
            limits,
            crowd: target.crowd(),
            connections: connections.len(),
            sessions,
            logins,
            arena,
            classes,
        }
    })?;
    let of = |name: &str, used: usize, limit: usize| json!({"name": name, "used": used, "limit": limit});
    let frames = used.classes.iter().map(|[size, frames, free, misses]| {
        json!({"frame_size": size, "used": frames - free, "limit": frames, "misses": misses})
    });
    Ok(json!({
        "target": [
            of("connections", used.connections, used.limits.connections),
            of(
                "connections of one address",
                used.crowd.connections_per_address,
                used.limits.connections_per_address,
            ),
            of("sessions", used.sessions, used.limits.sessions),
            of(
                "sessions of one initiator",
                used.crowd.sessions_per_initiator,
                used.limits.sessions_per_initiator,
            ),
            of(
                "discovery sessions of one address",
                used.crowd.discovery_per_address,
                used.limits.discovery_per_address,
            ),
            of("logins", used.logins, used.limits.logins),
        ],
        "queue_depth": used.limits.queue_depth,
        "memory": {"bytes": used.arena, "frames": frames.collect::<Vec<_>>()},
    }))
}
