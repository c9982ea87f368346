//! A blocking client, for command lines and tests.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use thiserror::Error;

use crate::error::RpcError;

/// Why a call failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("cannot reach the node at {path}: {source}; is gemeld running?", path = path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the node closed the connection: {0}")]
    Io(#[from] std::io::Error),
    /// The answer is no JSON-RPC.
    #[error("the node's answer is not understood: {0}")]
    Answer(String),
    /// The node refused.
    #[error(transparent)]
    Refused(#[from] RpcError),
}

/// A connection to a node.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    next_id: u64,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let connect_error = |source| ClientError::Connect { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(connect_error)?;
        Ok(Self { stream, next_id: 0, buffer: Vec::new() })
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn call(&mut self, method: &str, params: Option<Value>) -> Result<Value, ClientError> {
        self.next_id += 1;
        let mut request = json!({"jsonrpc": "2.0", "method": method, "id": self.next_id});
        if let Some(params) = params {
            request["params"] = params;
        }
        self.stream.write_all(request.to_string().as_bytes())?;
        let mut answer = self.read_value()?;
        if let Some(error) = answer.get("error") {
            let error = serde_json::from_value(error.clone())
                .map_err(|error| ClientError::Answer(error.to_string()))?;
            return Err(ClientError::Refused(error));
        }
        match answer.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(ClientError::Answer(answer.to_string())),
        }
    }

    fn read_value(&mut self) -> Result<Value, ClientError> {
        loop {
            let mut stream = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
            match stream.next() {
                Some(Ok(value)) => {
                    let used = stream.byte_offset();
                    self.buffer.drain(..used);
                    return Ok(value);
                }
                Some(Err(error)) if !error.is_eof() => return Err(ClientError::Answer(error.to_string())),
                _ => {}
            }
            let mut chunk = [0; 65536];
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                return Err(ClientError::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }
}
