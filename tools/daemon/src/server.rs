//! The control socket: a UNIX stream socket, one thread for each connection.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rpc::{Frames, Incoming, Request, RpcError, response};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use crate::methods::{self, Begun};
use crate::node::SharedNode;

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;

/// Why the control socket cannot be opened.
#[derive(Debug, Error)]
pub enum ServerError {
    /// Another node has it.
    #[error("control socket {path} is in use by another process: stop it or choose another --socket", path = .0.display())]
    InUse(PathBuf),
    /// The system's error.
    #[error("cannot open control socket {path}: {source}", path = path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Connections that wait to be taken.
const BACKLOG: i32 = 128;

/// Who may use the control socket: everything about the node can be read and changed there.
#[derive(Clone, Copy, Debug)]
pub struct SocketAccess {
    /// The file's mode.
    pub mode: u32,
    /// The file's group; the process's when absent.
    pub group: Option<u32>,
}

/// The open socket; dropping it removes the file.
pub struct Server {
    path: PathBuf,
    listener: UnixListener,
    _lock: File,
}

impl Server {
    /// Takes the socket's lock and listens. The file has its mode and group before anybody can connect.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn bind(path: &Path, access: SocketAccess) -> Result<Self, ServerError> {
        let io_error = |source| ServerError::Io { path: path.to_owned(), source };
        let lock_path = PathBuf::from(format!("{}.lock", path.display()));
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(lock_path)
            .map_err(io_error)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => ServerError::InUse(path.to_owned()),
            TryLockError::Error(source) => io_error(source),
        })?;
        // With the lock held, a socket file is a dead process's.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(error)),
            _ => {}
        }
        let listener = listen(path, access).map_err(io_error)?;
        Ok(Self { path: path.to_owned(), listener, _lock: lock })
    }

    /// Serves connections on a thread of its own until the process ends.
    ///
    /// # Errors
    /// The system's, when there is no thread.
    pub fn serve(&self, node: SharedNode) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        let open = Arc::new(AtomicUsize::new(0));
        std::thread::Builder::new().name("control".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(place) = Place::take(&open) else { continue };
                let node = node.clone();
                let serve = move || {
                    // A broken connection is the client's affair.
                    let _ = serve_connection(stream, &node);
                    drop(place);
                };
                let _ = std::thread::Builder::new().name("control_peer".to_owned()).spawn(serve);
            }
        })?;
        Ok(())
    }
}

fn listen(path: &Path, access: SocketAccess) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Whoever connects to a socket that does not listen yet is refused.
    std::os::unix::fs::chown(path, None, access.group)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(access.mode))?;
    socket.listen(BACKLOG)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// A connection's place among [`CONNECTIONS_MAX`]; it is given back however the connection ends.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(open.clone());
        (open.fetch_add(1, Ordering::Relaxed) < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A file that is gone already is what is wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve_connection(mut stream: UnixStream, node: &SharedNode) -> io::Result<()> {
    let mut frames = Frames::default();
    let mut chunk = [0; 65536];
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        frames.extend(&chunk[..count]);
        // Bytes that are no JSON close the connection without an answer, as SPDK does.
        while let Some(incoming) = frames.next_text().map_err(|_| io::ErrorKind::InvalidData)? {
            if let Some(answer) = answer(incoming, node) {
                let mut line = answer.to_string();
                line.push('\n');
                stream.write_all(line.as_bytes())?;
            }
        }
    }
}

fn answer(incoming: Incoming, node: &SharedNode) -> Option<Value> {
    match incoming {
        Incoming::Single(request) => answer_one(request, node),
        Incoming::Batch(list) => {
            let answers: Vec<Value> =
                list.into_iter().filter_map(|request| answer_one(request, node)).collect();
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
    }
}

fn answer_one(request: Result<Request, (Value, RpcError)>, node: &SharedNode) -> Option<Value> {
    match request {
        Ok(request) => response(request.id, call(node, &request.method, request.params.as_ref())),
        Err((id, error)) => response(Some(id), Err(error)),
    }
}

/// A line of the flag "control": no parameters, which may hold secrets, but the object's name.
fn note(method: &str, params: Option<&Value>, answer: &Result<Value, RpcError>) {
    let object = params.and_then(|params| params["name"].as_str()).unwrap_or_default();
    match answer {
        Ok(_) => tracing::debug!(target: "control", "{method} {object}: done"),
        Err(error) => tracing::debug!(target: "control", "{method} {object}: {error}"),
    }
}

/// Between looks whether somebody outside has answered.
const LOOK: Duration = Duration::from_millis(2);

/// Calls a method; calls take turns, but for the time that one waits for somebody outside this node.
///
/// # Errors
/// The method's.
pub fn call(node: &SharedNode, method: &str, params: Option<&Value>) -> Result<Value, RpcError> {
    let hold = || node.lock().unwrap_or_else(PoisonError::into_inner);
    let mut held = hold();
    let answer = match methods::begin(&mut held, method, params) {
        Begun::Done(answer) => answer,
        Begun::Awaits(awaited) => loop {
            drop(held);
            std::thread::park_timeout(LOOK);
            held = hold();
            if let Some(answer) = awaited.look(&held) {
                break answer;
            }
        },
    };
    note(method, params, &answer);
    methods::keep(&mut held);
    answer
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_socket_is_the_owners_alone_unless_somebody_says_otherwise() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.sock");
        let own = std::fs::metadata(folder.path()).expect("a folder").gid();
        for (mode, group) in [(0o600, None), (0o660, Some(own)), (0o666, None)] {
            let server = Server::bind(&path, SocketAccess { mode, group }).expect("bound");
            let file = std::fs::metadata(&path).expect("a socket");
            assert_eq!((file.mode() & 0o777, file.gid()), (mode, own));
            UnixStream::connect(&path).expect("it listens");
            let lock = std::fs::metadata(folder.path().join("node.sock.lock")).expect("a lock");
            assert_eq!(lock.mode() & 0o777, 0o600);
            drop(server);
            assert!(!path.exists());
        }
    }
}
