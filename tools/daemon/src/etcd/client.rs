//! etcd's JSON gateway: read a key, replace it if its revision is still the same.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use core::time::Duration;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::{EtcdConfig, EtcdError};

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
}

fn read(path: &Path) -> Result<Vec<u8>, EtcdError> {
    std::fs::read(path).map_err(|error| EtcdError::File { path: path.to_owned(), cause: error.to_string() })
}

fn unusable(path: &Path, error: &ureq::Error) -> EtcdError {
    EtcdError::File { path: path.to_owned(), cause: error.to_string() }
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
                let password = String::from_utf8_lossy(&read(file)?).trim_end().to_owned();
                Some((user.clone(), password))
            }
            (None, None) => None,
            _ => return Err(EtcdError::Half("user", "password_file")),
        };
        let agent = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .tls_config(tls(config)?)
            .build()
            .new_agent();
        let endpoints = config.endpoints.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self { agent, endpoints, preferred: 0, credentials, token: None })
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
        let mut trouble = Vec::new();
        for turn in 0..self.endpoints.len() {
            let at = (self.preferred + turn) % self.endpoints.len();
            match self.call_at(at, path, body) {
                Ok(answer) => {
                    self.preferred = at;
                    return Ok(answer);
                }
                Err(error) => trouble.push(format!("{}: {error}", self.endpoints[at])),
            }
        }
        Err(trouble.join("; "))
    }

    fn call_at(&mut self, at: usize, path: &str, body: &Value) -> Result<Value, String> {
        if self.credentials.is_some() && self.token.is_none() {
            self.authenticate(at)?;
        }
        match self.post(at, path, body) {
            // A token ends some time, or etcd forgot it when it started again.
            Err(_) if self.token.take().is_some() => {
                self.authenticate(at)?;
                self.post(at, path, body)
            }
            answer => answer,
        }
    }

    fn authenticate(&mut self, at: usize) -> Result<(), String> {
        let Some((user, password)) = self.credentials.clone() else { return Ok(()) };
        let answer = self.post(at, "/v3/auth/authenticate", &json!({"name": user, "password": password}))?;
        let token = answer["token"].as_str().ok_or("etcd gave no token")?;
        self.token = Some(token.to_owned());
        Ok(())
    }

    fn post(&self, at: usize, path: &str, body: &Value) -> Result<Value, String> {
        let mut request = self.agent.post(format!("{}{path}", self.endpoints[at]));
        if let Some(token) = &self.token {
            request = request.header("Authorization", token);
        }
        let mut response = request.send_json(body).map_err(|error| error.to_string())?;
        let answer: Value = response.body_mut().read_json().map_err(|error| error.to_string())?;
        match (response.status().is_success(), answer["error"].as_str().or(answer["message"].as_str())) {
            (true, None) => Ok(answer),
            (_, Some(error)) => Err(error.to_owned()),
            (false, None) => Err(format!("HTTP status {}", response.status())),
        }
    }
}

fn tls(config: &EtcdConfig) -> Result<TlsConfig, EtcdError> {
    let mut builder = TlsConfig::builder();
    if let Some(file) = &config.ca_file {
        let certificate = Certificate::from_pem(&read(file)?).map_err(|error| unusable(file, &error))?;
        builder = builder.root_certs(RootCerts::new_with_certs(&[certificate]));
    }
    let pair = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(EtcdError::Half("cert_file", "key_file")),
    };
    if let Some((cert, key)) = pair {
        let chain = Certificate::from_pem(&read(cert)?).map_err(|error| unusable(cert, &error))?;
        let key = PrivateKey::from_pem(&read(key)?).map_err(|error| unusable(key, &error))?;
        builder = builder.client_cert(Some(ClientCert::new_with_certs(&[chain], key)));
    }
    Ok(builder.build())
}
