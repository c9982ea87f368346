//! etcd's JSON gateway: read a key, replace it if its revision is still the same.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use core::time::Duration;
use serde_json::{Value, json};
use std::io::ErrorKind;
use thiserror::Error;
use ureq::Agent;

use super::{EtcdConfig, EtcdError, tls};

/// One request, from the connection to the last byte.
const TIMEOUT: Duration = Duration::from_millis(600);

/// A key's value and the revision that it was written in.
pub(super) struct Found {
    pub(super) value: Vec<u8>,
    revision: String,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Swapped {
    /// It happened.
    Yes,
    /// Somebody was faster.
    No,
}

/// A client of all endpoints.
pub(super) struct Client {
    agent: Agent,
    endpoints: Vec<String>,
    /// The endpoint that answered last.
    preferred: usize,
    credentials: Option<(String, String)>,
    token: Option<String>,
    identity: Identity,
}

/// What this client shows of itself during the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    /// A certificate of its own.
    Certificate,
    /// Nothing: an etcd with `--client-cert-auth` hangs up on it.
    Anonymous,
}

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
enum Trouble {
    /// No answer of etcd: another endpoint may have one.
    #[error("{0}")]
    Silent(String),
    /// etcd said no, with the gRPC status code that its gateway passes on.
    #[error("{words} (gRPC status {code})")]
    Refused { code: u64, words: String },
}

/// gRPC's UNAUTHENTICATED: the token has run out, or etcd forgot it when it started again.
const UNAUTHENTICATED: u64 = 16;
/// gRPC's UNAVAILABLE: the member has no leader, or lost it.
const UNAVAILABLE: u64 = 14;

/// How a connection ends that the other side closed.
const HUNG_UP: [ErrorKind; 4] = [
    ErrorKind::BrokenPipe,
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionAborted,
    ErrorKind::UnexpectedEof,
];

impl Trouble {
    /// Another member may do better.
    fn is_members(&self) -> bool {
        matches!(self, Self::Silent(_) | Self::Refused { code: UNAVAILABLE, .. })
    }

    fn is_about_the_token(&self) -> bool {
        match self {
            Self::Silent(_) => false,
            Self::Refused { code, words } => *code == UNAUTHENTICATED || words.contains("auth token"),
        }
    }
}

impl Client {
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, EtcdError> {
        if config.endpoints.is_empty() {
            return Err(EtcdError::NoEndpoint);
        }
        let is_url = |url: &&String| !(url.starts_with("http://") || url.starts_with("https://"));
        if let Some(bad) = config.endpoints.iter().find(is_url) {
            return Err(EtcdError::Endpoint(bad.clone()));
        }
        let credentials = match (&config.user, &config.password_file) {
            (Some(user), Some(file)) => {
                let password = String::from_utf8_lossy(&tls::read(file)?).trim_end().to_owned();
                Some((user.clone(), password))
            }
            (None, None) => None,
            _ => return Err(EtcdError::Half("user", "password_file")),
        };
        let agent = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .tls_config(tls::config(config)?)
            .build()
            .new_agent();
        let endpoints = config.endpoints.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        let identity = if config.cert_file.is_some() { Identity::Certificate } else { Identity::Anonymous };
        Ok(Self { agent, endpoints, preferred: 0, credentials, token: None, identity })
    }

    /// The key as the cluster's majority has it.
    pub(super) fn get(&mut self, key: &str) -> Result<Option<Found>, String> {
        let answer = self.call("/v3/kv/range", &json!({"key": BASE64_STANDARD.encode(key)}))?;
        let Some(found) = answer["kvs"].get(0) else { return Ok(None) };
        let value = found["value"].as_str().and_then(|value| BASE64_STANDARD.decode(value).ok());
        let revision = found["mod_revision"].as_str().or_else(|| found["modRevision"].as_str());
        match (value, revision) {
            (Some(value), Some(revision)) => Ok(Some(Found { value, revision: revision.to_owned() })),
            _ => Err(format!("etcd gave an answer without a value: {answer}")),
        }
    }

    /// Writes the key if it is still what was found, or still absent.
    pub(super) fn swap(&mut self, key: &str, from: Option<&Found>, value: &[u8]) -> Result<Swapped, String> {
        let key = BASE64_STANDARD.encode(key);
        let same = match from {
            Some(found) => {
                json!({"target": "MOD", "key": key, "result": "EQUAL", "mod_revision": found.revision})
            }
            None => json!({"target": "CREATE", "key": key, "result": "EQUAL", "create_revision": "0"}),
        };
        let put = json!({"request_put": {"key": key, "value": BASE64_STANDARD.encode(value)}});
        let answer = self.call("/v3/kv/txn", &json!({"compare": [same], "success": [put]}))?;
        Ok(if answer["succeeded"] == true { Swapped::Yes } else { Swapped::No })
    }

    fn call(&mut self, path: &str, body: &Value) -> Result<Value, String> {
        let mut troubles = Vec::new();
        for turn in 0..self.endpoints.len() {
            let at = (self.preferred + turn) % self.endpoints.len();
            match self.call_at(at, path, body) {
                Ok(answer) => {
                    self.preferred = at;
                    return Ok(answer);
                }
                Err(trouble) => {
                    troubles.push(format!("{}: {trouble}", self.endpoints[at]));
                    if !trouble.is_members() {
                        break;
                    }
                }
            }
        }
        Err(troubles.join("; "))
    }

    fn call_at(&mut self, at: usize, path: &str, body: &Value) -> Result<Value, Trouble> {
        if self.token.is_none() {
            self.authenticate(at)?;
        }
        match self.post(at, path, body) {
            Err(trouble) if trouble.is_about_the_token() && self.credentials.is_some() => {
                self.token = None;
                self.authenticate(at)?;
                self.post(at, path, body)
            }
            answer => answer,
        }
    }

    /// Gets a token, where there is a user. An etcd that has authentication switched off needs none.
    fn authenticate(&mut self, at: usize) -> Result<(), Trouble> {
        let Some((user, password)) = self.credentials.clone() else { return Ok(()) };
        let body = json!({"name": user, "password": password});
        let answer = match self.post(at, "/v3/auth/authenticate", &body) {
            Err(Trouble::Refused { words, .. }) if words.contains("authentication is not enabled") => {
                return Ok(());
            }
            answer => answer?,
        };
        let token = answer["token"].as_str().map(str::to_owned);
        self.token = Some(token.ok_or_else(|| Trouble::Silent("etcd gave no token".to_owned()))?);
        Ok(())
    }

    /// What is wrong, in words. A server that wants a certificate and gets none hangs up as soon as the handshake is over (RFC 8446,
    /// 4.4.2.4): whether its alert is read before the connection breaks is a matter of luck, so a broken connection says so as well.
    fn words(&self, at: usize, error: &ureq::Error) -> String {
        let is_hung_up = matches!(error, ureq::Error::Io(cause) if HUNG_UP.contains(&cause.kind()));
        if is_hung_up && self.identity == Identity::Anonymous && self.endpoints[at].starts_with("https://") {
            return format!(
                "{error}: etcd hung up; it may ask for a client certificate, and none is configured"
            );
        }
        error.to_string()
    }

    fn post(&self, at: usize, path: &str, body: &Value) -> Result<Value, Trouble> {
        let silent = |error: ureq::Error| Trouble::Silent(self.words(at, &error));
        let mut request = self.agent.post(format!("{}{path}", self.endpoints[at]));
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        let mut response = request.send_json(body).map_err(silent)?;
        let is_success = response.status().is_success();
        let status = response.status();
        let answer: Result<Value, ureq::Error> = response.body_mut().read_json();
        match answer {
            Ok(answer) if is_success => Ok(answer),
            Ok(answer) => {
                let words =
                    answer["message"].as_str().or(answer["error"].as_str()).unwrap_or("no reason given");
                Err(Trouble::Refused { code: answer["code"].as_u64().unwrap_or(0), words: words.to_owned() })
            }
            Err(_) if status == 404 => Err(Trouble::Silent(
                "HTTP status 404: this etcd has no JSON gateway (--enable-grpc-gateway)".to_owned(),
            )),
            Err(_) if !is_success => Err(Trouble::Silent(format!("HTTP status {status}"))),
            Err(error) => Err(silent(error)),
        }
    }
}
