//! The control socket: requests in a stream, and the parameters of every method.

use daemon::methods;
use rpc::{Frames, Incoming, Request};
use serde_json::{Value, json};

/// What a stream of bytes holds.
#[derive(Debug, Default, PartialEq)]
struct Found {
    incoming: Vec<Incoming>,
    /// A text was there that is neither a request nor a list. A number has no end: cut in two it is two texts.
    other: bool,
}

fn find<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Found {
    let mut frames = Frames::default();
    let mut found = Found::default();
    for piece in pieces {
        frames.extend(piece);
        loop {
            match frames.next_text() {
                Ok(Some(Incoming::Single(Err(_)))) => found.other = true,
                Ok(Some(incoming)) => found.incoming.push(incoming),
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

/// Requests that come in pieces, the first byte of the input long, are found as in one piece; the parameters of each are those of its method,
/// or are refused with an error that shows no secret.
pub(super) fn json_rpc(data: &[u8]) {
    let Some((size, text)) = data.split_first() else { return };
    let whole = find(std::iter::once(text));
    let pieces = find(text.chunks(usize::from(*size).max(1)));
    assert!(whole == pieces || whole.other || pieces.other, "{whole:?} is not {pieces:?}");
    for incoming in whole.incoming {
        match incoming {
            Incoming::Single(request) => request.into_iter().for_each(|request| call(*size, request)),
            Incoming::Batch(list) => list.into_iter().flatten().for_each(|request| call(*size, request)),
        }
    }
}

/// Stands where a secret was.
const SECRET: &str = "hush-7f3a9c";

/// Reads a call's parameters as its method does, and as another one does, which the first byte of the input chooses.
fn call(other: u8, request: Request) {
    let Request { method, mut params, .. } = request;
    params.iter_mut().for_each(plant);
    let other = methods::names().nth(usize::from(other) % methods::names().count());
    for method in std::iter::once(method.as_str()).chain(other) {
        if let Err(error) = methods::check(method, params.as_ref()) {
            assert!(error.code < 0 && !error.message.is_empty(), "{method}: {error:?}");
            assert!(!error.message.contains(SECRET), "{method} {params:?}: {error:?}");
        }
    }
}

/// Puts [`SECRET`] wherever a secret is given.
fn plant(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match key.as_str() {
                    "secret" | "msecret" | "key" | "key2" if value.is_string() => *value = json!(SECRET),
                    "secret" | "msecret" | "key" | "key2" => *value = json!([SECRET]),
                    _ => plant(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(plant),
        _ => {}
    }
}
