//! Errors as answers carry them: JSON-RPC's codes, or a negative errno.

use serde::{Deserialize, Serialize};

/// An error of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcError {
    /// JSON-RPC's code or a negative errno.
    pub code: i64,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl RpcError {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// -32600: not a request.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(-32600, message)
    }

    /// -32601: there is no such method.
    pub fn method_not_found(method: &str) -> Self {
        Self::new(-32601, format!("Method not found: {method}"))
    }

    /// -32602: parameters of a wrong name, type or value.
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }

    /// -32603: a fault of the node.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(-32603, message)
    }

    /// -1: not in this state.
    pub fn wrong_state(message: impl Into<String>) -> Self {
        Self::new(-1, message)
    }

    /// -19: there is no such object.
    pub fn no_device(message: impl Into<String>) -> Self {
        Self::new(-19, message)
    }

    /// -17: the object exists already.
    pub fn exists(message: impl Into<String>) -> Self {
        Self::new(-17, message)
    }

    /// -16: the object is in use.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(-16, message)
    }

    /// -22: the request cannot be carried out as it is.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(-22, message)
    }
}
