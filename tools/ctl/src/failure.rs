//! What may go wrong, for people and as JSON.

use std::path::PathBuf;

use rpc::ClientError;
use rpc::config::LoadError;
use serde_json::{Value, json};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The node cannot be asked, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A configuration was not loaded.
    #[error("{}: {}", .0.display(), .1)]
    Load(PathBuf, LoadError),
    /// An argument is no JSON.
    #[error("{0} is no JSON: {1}")]
    Json(String, serde_json::Error),
    /// A file cannot be read.
    #[error("cannot read {}: {}", .0.display(), .1)]
    Read(PathBuf, std::io::Error),
    /// A file cannot be written.
    #[error("cannot write {}: {}", .0.display(), .1)]
    Write(PathBuf, std::io::Error),
    /// An argument makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The answer to a question is no: in words, and as the node gave it.
    #[error("{0}")]
    No(String, Value),
}

impl Failure {
    fn client(&self) -> Option<&ClientError> {
        match self {
            Self::Client(error)
            | Self::Load(_, LoadError::Refused { error, .. } | LoadError::Client(error)) => Some(error),
            _ => None,
        }
    }

    /// As an object `error`: its kind for programs, the node's code where the node refused, and the reason for people.
    /// An answer that says no is shown as it is.
    pub(crate) fn json(&self) -> Value {
        if let Self::No(_, answer) = self {
            return answer.clone();
        }
        let (kind, code) = match (self.client(), self) {
            (Some(ClientError::Refused(error)), _) => ("refused", Some(error.code)),
            (Some(ClientError::Connect { .. } | ClientError::Io(_)), _) => ("unreachable", None),
            (Some(ClientError::Answer(_)), _) => ("bad-answer", None),
            (None, Self::Read(..) | Self::Write(..)) => ("file", None),
            (None, Self::Load(..)) => ("configuration", None),
            (None, _) => ("usage", None),
        };
        json!({"error": {"kind": kind, "code": code, "reason": self.to_string()}})
    }
}

#[cfg(test)]
mod tests {
    use rpc::RpcError;

    use super::*;

    #[test]
    fn a_refusal_keeps_the_nodes_code() {
        let refused = Failure::from(ClientError::from(RpcError::no_device("no bdev x")));
        let shown = refused.json()["error"].clone();
        assert_eq!((&shown["kind"], &shown["code"]), (&json!("refused"), &json!(-19)));
        assert!(shown["reason"].as_str().is_some_and(|reason| reason.contains("no bdev x")));
        let usage = Failure::Usage("what?".to_owned()).json();
        assert_eq!(usage["error"], json!({"kind": "usage", "code": null, "reason": "what?"}));
    }
}
