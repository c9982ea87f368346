//! A config as etcd holds it, with those that it follows: JSON that an administrator can read with `etcdctl get`.
//!
//! Programs before this one stored the config alone. Such a record is read, as one of which nobody knows what it follows, and the next
//! config replaces it.

use mirror::format::config::GENERATION_MAX;
use mirror::format::{Config, ConfigFlags, ConfigId, History, LegIndex, LegMask, Reason};
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// What counts.
    config: Entry,
    /// The ones before it, newest first, as the holder's superblock keeps them.
    follows: Vec<Entry>,
    /// Whether these are all since the array's creation; else older ones have been dropped.
    complete: bool,
}

/// One config.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    generation: u64,
    /// In hexadecimal: JSON's numbers do not hold 64 bits.
    nonce: String,
    holder: u8,
    in_sync: Vec<u8>,
    forced: bool,
    reason: u8,
    /// For people.
    because: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stored {
    Record(Record),
    Alone(Entry),
}

impl From<&Config> for Entry {
    fn from(config: &Config) -> Self {
        let in_sync = LegIndex::BOTH.into_iter().filter(|leg| config.in_sync.has(*leg));
        Self {
            generation: config.generation(),
            nonce: format!("{:016x}", config.id.nonce),
            holder: config.holder.number(),
            in_sync: in_sync.map(LegIndex::number).collect(),
            forced: config.flags.contains(ConfigFlags::FORCED),
            reason: config.reason as u8,
            because: config.reason.words().to_owned(),
        }
    }
}

impl Entry {
    fn config(self) -> Option<Config> {
        let mut in_sync = LegMask::empty();
        for number in self.in_sync {
            in_sync |= LegMask::only(LegIndex::from_number(number)?);
        }
        let nonce = u64::from_str_radix(&self.nonce, 16).ok()?;
        if self.generation > GENERATION_MAX {
            return None;
        }
        Some(Config {
            id: ConfigId { generation: self.generation, nonce },
            holder: LegIndex::from_number(self.holder)?,
            in_sync: (!in_sync.is_empty()).then_some(in_sync)?,
            flags: if self.forced { ConfigFlags::FORCED } else { ConfigFlags::empty() },
            reason: Reason::from_code(self.reason)?,
        })
    }
}

/// As bytes.
pub(super) fn encode(history: &History) -> Vec<u8> {
    let record = Record {
        config: history.current().into(),
        follows: history.entries()[1..].iter().map(Entry::from).collect(),
        complete: history.is_complete(),
    };
    serde_json::to_vec(&record).expect("numbers and text")
}

/// From bytes; `None` for anything that no program of ours has written.
pub(super) fn decode(bytes: &[u8]) -> Option<History> {
    match serde_json::from_slice(bytes).ok()? {
        Stored::Alone(entry) => Some(History::of_unknown_past(entry.config()?)),
        Stored::Record(Record { config, follows, complete }) => {
            let all: Option<Vec<Config>> =
                core::iter::once(config).chain(follows).map(Entry::config).collect();
            History::from_stored(&all?, complete)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mirror::format::history::HISTORY_LEN;

    /// So many configs, the last one for this reason.
    fn history(configs: u64, reason: Reason) -> History {
        let mut history = History::new(Config::first(u64::MAX, LegIndex::One, LegMask::both()));
        for nonce in 2..=configs {
            let reason = if nonce == configs { reason } else { Reason::Restarted };
            let next = history.current().successor(nonce, LegIndex::One, LegMask::both(), reason);
            history.push(next.expect("generations left"));
        }
        history
    }

    #[test]
    fn what_is_written_is_read() {
        for reason in Reason::ALL {
            for configs in [1, 2, HISTORY_LEN as u64, 100] {
                let history = history(configs, reason);
                assert_eq!(decode(&encode(&history)), Some(history));
            }
        }
        let cut = history(100, Reason::Rejoined);
        assert!(!decode(&encode(&cut)).expect("a record").is_complete());
    }

    /// Word for word what the program before this one wrote.
    #[test]
    fn a_config_alone_is_one_of_an_unknown_past() {
        let old = r#"{"generation":3,"nonce":"00000000000000ff","holder":1,"in_sync":[0,1],"forced":false,"reason":8,"because":"leg back in sync"}"#;
        let read = decode(old.as_bytes()).expect("a record");
        let config = read.current();
        assert_eq!((config.id, config.holder), (ConfigId { generation: 3, nonce: 255 }, LegIndex::One));
        assert_eq!((config.in_sync, config.reason), (LegMask::both(), Reason::Rejoined));
        assert_eq!(read, History::of_unknown_past(*config));
        assert!(!read.is_complete());
    }

    #[test]
    fn nothing_else_is_read() {
        let text = String::from_utf8(encode(&history(2, Reason::Created))).expect("JSON");
        for (from, to) in [
            (r#""holder":1"#, r#""holder":2"#),
            ("[0,1]", "[]"),
            ("}", ""),
            (r#""reason":1"#, r#""reason":99"#),
            (r#""generation":2"#, r#""generation":1"#),
            (r#","complete":true"#, ""),
            (r#""complete":true"#, r#""complete":true,"more":1"#),
            (r#""generation":2"#, r#""generation":18446744073709551615"#),
        ] {
            let bad = text.replacen(from, to, 1);
            assert_ne!(bad, text);
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
        let full = history(100, Reason::Restarted);
        let next = full.current().successor(7, LegIndex::One, LegMask::both(), Reason::Restarted);
        let too_many = Record {
            config: (&next.expect("generations left")).into(),
            follows: full.entries().iter().map(Entry::from).collect(),
            complete: false,
        };
        assert_eq!(decode(&serde_json::to_vec(&too_many).expect("numbers and text")), None);
    }
}
