//! etcd as the arbiter: one key for each array, replaced by transactions that name the revision that they replace.
//!
//! Owner: a thread for each array ([`Courier`]), off every reactor: it carries the mirror's questions to etcd and the
//! answers back. It speaks to etcd's JSON gateway (`/v3/kv`, etcd 3.4 and later), so that no async runtime is needed.

mod client;
mod courier;
mod record;
mod tls;

use std::path::PathBuf;

use serde::Deserialize;
use thiserror::Error;

pub use courier::Courier;

/// Where etcd is, and who we are to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdConfig {
    /// Its members' client URLs, tried in turn.
    pub endpoints: Vec<String>,
    /// A user, if etcd wants one.
    pub user: Option<String>,
    /// A file that holds the user's password: it is never in a configuration, a log or a list of processes.
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) that etcd's own must be signed by; the public ones when absent.
    pub ca_file: Option<PathBuf>,
    /// A certificate (PEM) for etcd to know us by,
    pub cert_file: Option<PathBuf>,
    /// and its key.
    pub key_file: Option<PathBuf>,
    /// What the keys begin with.
    #[serde(default = "prefix")]
    pub prefix: String,
}

fn prefix() -> String {
    "/gemel/arrays/".to_owned()
}

/// What is wrong with the configuration.
#[derive(Debug, Error)]
pub enum EtcdError {
    /// No endpoint, or none that is an URL.
    #[error("etcd endpoint {0:?} is no http:// or https:// URL")]
    Endpoint(String),
    /// There has to be one.
    #[error("etcd has no endpoint: name at least one client URL")]
    NoEndpoint,
    /// Half of a pair.
    #[error("{0} and {1} go together: name both or none")]
    Half(&'static str, &'static str),
    /// A file that cannot be read, or holds something else.
    #[error("cannot use {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: String,
    },
}
