//! Carries the questions of one array to etcd.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};

use mirror::arbiter::{Answer, Ask, Ticket};
use mirror::format::History;
use uuid::Uuid;

use super::client::{Client, Found, Swapped};
use super::record::{decode, encode};
use super::{EtcdConfig, EtcdError};

/// The reactor's end: dropping it ends the thread.
#[derive(Debug)]
pub struct Courier {
    questions: Sender<(Ticket, Ask)>,
}

impl Courier {
    /// Starts the thread; `deliver` is called on it for each answer.
    ///
    /// # Errors
    /// The configuration is no good, or there is no thread.
    pub fn start(
        config: &EtcdConfig,
        array: Uuid,
        deliver: impl Fn(Ticket, Answer) + Send + 'static,
    ) -> Result<Self, EtcdError> {
        let client = Client::new(config)?;
        let key = format!("{}{array}", config.prefix);
        let (questions, asked) = channel();
        let carry = move || carry(client, &key, &asked, deliver);
        let started = std::thread::Builder::new().name("arbiter".to_owned()).spawn(carry);
        let no_thread =
            |error: io::Error| EtcdError::File { path: "thread".into(), cause: error.to_string() };
        started.map_err(no_thread)?;
        Ok(Self { questions })
    }

    /// Sends a question; never blocks.
    pub fn send(&self, ticket: Ticket, ask: Ask) {
        // A thread that is gone answers nothing: the mirror asks again, and says that nobody answers.
        let _ = self.questions.send((ticket, ask));
    }
}

fn carry(mut client: Client, key: &str, asked: &Receiver<(Ticket, Ask)>, deliver: impl Fn(Ticket, Answer)) {
    while let Ok(first) = asked.recv() {
        // While etcd was slow, the mirror may have given up on a question and asked another one.
        let (ticket, ask) = asked.try_iter().last().unwrap_or(first);
        deliver(ticket, answer(&mut client, key, ask).unwrap_or_else(Answer::Unknown));
    }
}

fn answer(client: &mut Client, key: &str, ask: Ask) -> Result<Answer, String> {
    let found = client.get(key)?;
    let record = held(key, found.as_ref())?;
    match ask {
        Ask::Swap { from, next } if from == record.as_ref().map(|record| record.current().id) => {
            match client.swap(key, found.as_ref(), &encode(&next))? {
                Swapped::Yes => Ok(Answer::Swapped),
                // Between the two requests: what is there now?
                Swapped::No => {
                    let found = client.get(key)?;
                    Ok(Answer::Holds(held(key, found.as_ref())?))
                }
            }
        }
        Ask::Read | Ask::Swap { .. } => Ok(Answer::Holds(record)),
    }
}

fn held(key: &str, found: Option<&Found>) -> Result<Option<Box<History>>, String> {
    let Some(found) = found else { return Ok(None) };
    let record = decode(&found.value).map(Box::new);
    let unknown = || {
        format!(
            "etcd's key {key} holds something that this program does not know: a newer one's record, or no config"
        )
    };
    record.ok_or_else(unknown).map(Some)
}
