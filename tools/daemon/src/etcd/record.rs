//! A config as etcd holds it: JSON that an administrator can read with `etcdctl get`.

use mirror::format::{Config, ConfigFlags, ConfigId, LegIndex, LegMask, Reason};
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
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

/// As bytes.
pub(super) fn encode(config: &Config) -> Vec<u8> {
    let in_sync = LegIndex::BOTH.into_iter().filter(|leg| config.in_sync.has(*leg));
    let record = Record {
        generation: config.generation(),
        nonce: format!("{:016x}", config.id.nonce),
        holder: config.holder.number(),
        in_sync: in_sync.map(LegIndex::number).collect(),
        forced: config.flags.contains(ConfigFlags::FORCED),
        reason: config.reason as u8,
        because: config.reason.words().to_owned(),
    };
    serde_json::to_vec(&record).expect("numbers and text")
}

/// From bytes; `None` for anything that this program has not written.
pub(super) fn decode(bytes: &[u8]) -> Option<Config> {
    let record: Record = serde_json::from_slice(bytes).ok()?;
    let mut in_sync = LegMask::empty();
    for number in record.in_sync {
        in_sync |= LegMask::only(LegIndex::from_number(number)?);
    }
    let nonce = u64::from_str_radix(&record.nonce, 16).ok()?;
    Some(Config {
        id: ConfigId { generation: record.generation, nonce },
        holder: LegIndex::from_number(record.holder)?,
        in_sync: (!in_sync.is_empty()).then_some(in_sync)?,
        flags: if record.forced { ConfigFlags::FORCED } else { ConfigFlags::empty() },
        reason: Reason::from_code(record.reason)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let first = Config::first(u64::MAX, LegIndex::One, LegMask::both());
        for reason in Reason::ALL {
            let config = Config { reason, flags: ConfigFlags::FORCED, ..first };
            assert_eq!(decode(&encode(&config)), Some(config));
        }
        let text = String::from_utf8(encode(&first)).expect("JSON");
        for (from, to) in
            [("\"holder\":1", "\"holder\":2"), ("[0,1]", "[]"), ("}", ""), ("\"reason\":1", "\"reason\":99")]
        {
            let bad = text.replace(from, to);
            assert_ne!(bad, text);
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
