//! Requests, and how they are found in a stream of bytes.

use serde_json::{Value, json};

use crate::error::RpcError;

/// Longest request that is kept, in bytes.
pub const REQUEST_MAX: usize = 256 << 10;

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// `None` for a notification, which gets no answer.
    pub id: Option<Value>,
    /// The method.
    pub method: String,
    /// Parameters; `None` when absent or null.
    pub params: Option<Value>,
}

/// What one JSON text holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// One call, or why it is none, with the id to answer to.
    Single(Result<Request, (Value, RpcError)>),
    /// A batch: one array of answers.
    Batch(Vec<Result<Request, (Value, RpcError)>>),
}

/// Splits bytes into JSON texts.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    /// How far the text at hand has been looked at, and what it is in the middle of.
    scan: Scan,
    /// Bytes of it that were no whole text.
    tried: usize,
}

/// Where the text at hand ends: so much is seen of it, and it is parsed once, however many pieces it comes in.
#[derive(Debug, Default)]
struct Scan {
    seen: usize,
    depth: usize,
    inside: Inside,
    is_whole: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Structure,
    Text,
    /// Behind a backslash.
    Escape,
}

impl Scan {
    fn look(&mut self, buffer: &[u8]) {
        for byte in &buffer[self.seen..] {
            self.inside = match (self.inside, byte) {
                (Inside::Text, b'\\') => Inside::Escape,
                (Inside::Text, b'"') => Inside::Structure,
                (Inside::Text | Inside::Escape, _) => Inside::Text,
                (Inside::Structure, b'"') => Inside::Text,
                (Inside::Structure, _) => Inside::Structure,
            };
            match (self.inside, byte) {
                (Inside::Structure, b'{' | b'[') => self.depth += 1,
                (Inside::Structure, b'}' | b']') => {
                    self.depth = self.depth.saturating_sub(1);
                    self.is_whole |= self.depth == 0;
                }
                _ => {}
            }
        }
        self.seen = buffer.len();
    }
}

/// A text of so few bytes is always tried: it may be a number, which has no end of its own.
const SHORT: usize = 64;

/// The stream cannot be understood any more: close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage;

impl Frames {
    /// Takes received bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole text; `Ok(None)` when more bytes are needed.
    ///
    /// # Errors
    /// No JSON, or a text that is too long.
    pub fn next_text(&mut self) -> Result<Option<Incoming>, Garbage> {
        self.scan.look(&self.buffer);
        // Garbage is found when there is twice as much of it, and a request when it is whole.
        let is_due = self.buffer.len() <= SHORT || self.buffer.len() >= 2 * self.tried;
        if !self.scan.is_whole && !is_due && self.buffer.len() <= REQUEST_MAX {
            return Ok(None);
        }
        let mut stream = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
        let value = match stream.next() {
            None => {
                *self = Self::default();
                return Ok(None);
            }
            Some(Ok(value)) => value,
            Some(Err(error)) if error.is_eof() && self.buffer.len() <= REQUEST_MAX => {
                self.tried = self.buffer.len();
                // What looked whole, and is not, is not believed again.
                self.scan.is_whole = false;
                return Ok(None);
            }
            Some(Err(_)) => return Err(Garbage),
        };
        let used = stream.byte_offset();
        self.buffer.drain(..used);
        (self.scan, self.tried) = (Scan::default(), 0);
        Ok(Some(match value {
            Value::Array(list) => Incoming::Batch(list.into_iter().map(request).collect()),
            value => Incoming::Single(request(value)),
        }))
    }
}

fn request(value: Value) -> Result<Request, (Value, RpcError)> {
    let Value::Object(mut object) = value else {
        return Err((Value::Null, RpcError::invalid_request("Invalid request: not an object")));
    };
    let id = object.remove("id");
    let answer_to = id.clone().unwrap_or(Value::Null);
    let invalid =
        |what: &str| (answer_to.clone(), RpcError::invalid_request(format!("Invalid request: {what}")));
    if !matches!(id, None | Some(Value::String(_) | Value::Number(_) | Value::Null)) {
        return Err((Value::Null, RpcError::invalid_request("Invalid request: id is no string or number")));
    }
    if object.get("jsonrpc").is_some_and(|version| version != "2.0") {
        return Err((Value::Null, RpcError::invalid_request("Invalid request: jsonrpc must be \"2.0\"")));
    }
    let method = match object.remove("method") {
        Some(Value::String(method)) => method,
        _ => return Err(invalid("method is missing or no string")),
    };
    let params = object.remove("params").filter(|params| !params.is_null());
    Ok(Request { id, method, params })
}

/// An answer as JSON; `None` for a notification.
pub fn response(id: Option<Value>, result: Result<Value, RpcError>) -> Option<Value> {
    let id = id?;
    Some(match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_to_back_in_pieces() {
        let mut frames = Frames::default();
        frames.extend(br#"{"method":"a","id":1}{"jsonrpc":"2.0","#);
        let Ok(Some(Incoming::Single(Ok(first)))) = frames.next_text() else { panic!("a request") };
        assert_eq!((first.method.as_str(), first.id), ("a", Some(json!(1))));
        assert_eq!(frames.next_text(), Ok(None));
        frames.extend(br#""method":"b","params":null}"#);
        let Ok(Some(Incoming::Single(Ok(second)))) = frames.next_text() else { panic!("a request") };
        assert_eq!((second.method.as_str(), second.id, second.params), ("b", None, None));
        assert_eq!(frames.next_text(), Ok(None));
    }

    #[test]
    fn a_long_text_in_pieces_is_looked_at_once() {
        let filler = r#"\"}]{[ "#.repeat(20_000);
        let text = format!(r#"{{"method":"a","id":7,"params":{{"x":"{filler}"}}}}"#);
        let mut frames = Frames::default();
        let (mut got, mut tries) = (Vec::new(), std::collections::BTreeSet::new());
        for byte in text.bytes() {
            frames.extend(&[byte]);
            got.extend(frames.next_text().expect("JSON"));
            tries.insert(frames.tried);
        }
        assert_eq!(got.len(), 1);
        assert!(tries.len() < SHORT + 20, "{} times from its beginning", tries.len());
    }

    #[test]
    fn garbage_closes_and_bad_requests_are_answered() {
        let mut frames = Frames::default();
        frames.extend(b"GET / HTTP/1.1\r\n");
        assert_eq!(frames.next_text(), Err(Garbage));
        for (text, code) in
            [(r#"{"id":4}"#, -32600), (r#"{"jsonrpc":"1.0","method":"x","id":4}"#, -32600), ("7", -32600)]
        {
            let mut frames = Frames::default();
            frames.extend(text.as_bytes());
            frames.extend(b"\n");
            let Ok(Some(Incoming::Single(Err((_, error))))) = frames.next_text() else { panic!("{text}") };
            assert_eq!(error.code, code);
        }
        let mut frames = Frames::default();
        frames.extend(br#"[{"method":"a","id":1},{"method":"b"}]"#);
        assert!(matches!(frames.next_text(), Ok(Some(Incoming::Batch(list))) if list.len() == 2));
        let mut frames = Frames::default();
        frames.extend(b"[");
        frames.extend(&vec![b' '; REQUEST_MAX + 1]);
        assert_eq!(frames.next_text(), Err(Garbage));
    }
}
