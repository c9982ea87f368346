//! `gemel split diff`.

use mirror::decide::SyncPlan;
use mirror::events::Codes;
use mirror::format::{Config, ConfigFlags, LegIndex};
use mirror::range::ByteRange;
use mirror::split::{Author, Comparison, Difference, Kinship, Survey, SurveyError, side_by_side, survey};
use serde_json::{Value, json};

use super::Diff;
use super::source::{BLOCK, Source};
use crate::{Failure, Options, show};

/// Bytes that are compared at once.
const PIECE: u64 = 16 << 20;

/// A leg, and where it is read from.
struct Side {
    source: Source,
    survey: Survey,
}

impl Side {
    fn of(mut source: Source) -> Result<Self, Failure> {
        let size = source.size();
        let found = survey(size, None, |range| source.read(range));
        let survey = found.map_err(|error| match error {
            SurveyError::Read(failure) => failure,
            other => Failure::Usage(format!("the leg ({}): {other}", source.words())),
        })?;
        Ok(Self { source, survey })
    }

    fn checksums(&mut self, range: ByteRange) -> Result<Vec<String>, Failure> {
        self.source.checksums(self.survey.superblock.layout.data_offset, range)
    }
}

/// What reading both legs has shown.
struct Verified {
    read: u64,
    /// Where they differ, in whole blocks.
    ranges: Vec<ByteRange>,
}

pub(super) fn run(options: &Options, ask: &Diff) -> Result<String, Failure> {
    let sources = match (&ask.name, &ask.other, ask.leg.as_slice()) {
        (Some(name), Some(other), []) => [Source::node(&options.socket, name)?, Source::node(other, name)?],
        (None, None, [one, other]) => [Source::device(one)?, Source::device(other)?],
        _ => return Err(Failure::Usage("name the two legs: --leg PATH --leg PATH".to_owned())),
    };
    let [one, other] = sources;
    let (one, other) = (Side::of(one)?, Side::of(other)?);
    let compared = side_by_side(&one.survey, &other.survey);
    let compared = compared.map_err(|error| Failure::Usage(error.to_string()))?;
    // Leg 0 first.
    let mut sides = if one.survey.superblock.index == LegIndex::Zero { [one, other] } else { [other, one] };
    let verified = ask.verify.then(|| verify(&mut sides, &compared, ask.everything)).transpose()?;
    let told = describe(&sides, &compared, verified.as_ref());
    Ok(if options.json { show::pretty(&told) } else { words(&told, ask.ranges) })
}

/// Reads what may differ, or everything, on both.
fn verify(sides: &mut [Side; 2], compared: &Comparison, everything: bool) -> Result<Verified, Failure> {
    let size = sides[0].survey.superblock.layout.data_size;
    let stretches = match everything {
        true => vec![ByteRange::new(0, size)],
        false => merged(&compared.differences),
    };
    let mut verified = Verified { read: 0, ranges: Vec::new() };
    for stretch in stretches {
        let mut at = stretch.start;
        while at < stretch.end() {
            let piece = ByteRange::new(at, PIECE.min(stretch.end() - at));
            let sums = [sides[0].checksums(piece)?, sides[1].checksums(piece)?];
            for (block, (ours, theirs)) in (0..).zip(sums[0].iter().zip(&sums[1])) {
                if ours != theirs {
                    let start = piece.start + block * BLOCK;
                    push(&mut verified.ranges, ByteRange::new(start, BLOCK.min(piece.end() - start)));
                }
            }
            verified.read += piece.len;
            at = piece.end();
        }
    }
    Ok(verified)
}

/// Adds a range behind the others; one that touches the last is part of it.
fn push(ranges: &mut Vec<ByteRange>, range: ByteRange) {
    match ranges.last_mut() {
        Some(last) if last.end() == range.start => last.len += range.len,
        _ => ranges.push(range),
    }
}

fn merged(differences: &[Difference]) -> Vec<ByteRange> {
    let mut ranges = Vec::new();
    differences.iter().for_each(|one| push(&mut ranges, one.range));
    ranges
}

fn author(author: Author) -> &'static str {
    match author {
        Author::Zero => "node-0",
        Author::One => "node-1",
        Author::Both => "both",
        Author::Unknown => "unknown",
    }
}

fn config(config: &Config) -> Value {
    let legs = LegIndex::BOTH.iter().filter(|leg| config.in_sync.has(**leg)).map(|leg| leg.number());
    json!({
        "generation": config.generation(), "nonce": config.id.nonce, "holder": config.holder.number(),
        "in_sync": legs.collect::<Vec<u8>>(), "reason": config.reason.code(),
        "forced": config.flags.contains(ConfigFlags::FORCED),
    })
}

fn range(range: ByteRange) -> Value {
    json!({"offset": range.start, "length": range.len})
}

fn describe(sides: &[Side; 2], compared: &Comparison, verified: Option<&Verified>) -> Value {
    let legs = sides.iter().zip(&compared.since).map(|(side, since)| {
        let superblock = &side.survey.superblock;
        json!({
            "leg": superblock.index.number(), "source": side.source.words(),
            "config": config(superblock.config()), "since": since.iter().map(config).collect::<Vec<_>>(),
        })
    });
    let bytes = |wanted: Option<Author>| {
        let of = compared.differences.iter().filter(|one| wanted.is_none_or(|wanted| one.author == wanted));
        of.map(|one| one.range.len).sum::<u64>()
    };
    let last_shared = match compared.kinship {
        Kinship::Diverged(Some(id)) => json!({"generation": id.generation, "nonce": id.nonce}),
        _ => Value::Null,
    };
    let layout = &sides[0].survey.superblock.layout;
    let granule = 1 << layout.granule_shift;
    let untracked = match compared.plan {
        SyncPlan::Delta => Value::Null,
        SyncPlan::Full(why) => json!({"code": why.code(), "reason": why.to_string()}),
    };
    json!({
        "array": sides[0].survey.superblock.array.to_string(),
        "relation": compared.kinship.code(),
        "what": compared.kinship.to_string(),
        "last_shared": last_shared,
        "legs": legs.collect::<Vec<_>>(),
        "untracked": untracked,
        "granule_size": granule,
        "data_size": layout.data_size,
        "may_differ": json!({
            "bytes": bytes(None), "granules": bytes(None).div_ceil(granule),
            "ranges": merged(&compared.differences).len(),
            "by_node_0": bytes(Some(Author::Zero)), "by_node_1": bytes(Some(Author::One)),
            "by_both": bytes(Some(Author::Both)), "by_unknown": bytes(Some(Author::Unknown)),
        }),
        "differences": compared.differences.iter().map(|one| json!({
            "offset": one.range.start, "length": one.range.len, "by": author(one.author),
        })).collect::<Vec<_>>(),
        "verified": verified.map(|verified| json!({
            "bytes_read": verified.read,
            "block_size": BLOCK,
            "blocks": verified.ranges.iter().map(|one| one.len.div_ceil(BLOCK)).sum::<u64>(),
            "bytes": verified.ranges.iter().map(|one| one.len).sum::<u64>(),
            "ranges": verified.ranges.iter().copied().map(range).collect::<Vec<_>>(),
        })),
    })
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn config_words(config: &Value) -> String {
    let legs = match config["in_sync"].as_array().map(Vec::len) {
        Some(2) => "both legs".to_owned(),
        _ => format!("leg {} alone", config["in_sync"][0]),
    };
    let forced = if config["forced"] == true { ", FORCED" } else { "" };
    let (generation, holder) = (&config["generation"], &config["holder"]);
    let reason = config["reason"].as_str().unwrap_or("-");
    format!("generation {generation}, node {holder} with {legs}: {reason}{forced}")
}

/// Ranges, as many as are wanted, each with what is known of it.
fn ranges(list: &Value, most: usize) -> Vec<String> {
    let all = list.as_array().map_or(&[][..], Vec::as_slice);
    let one = |range: &Value| {
        let by = range["by"].as_str().map(|by| format!("  {by}")).unwrap_or_default();
        format!("  {:>15}  {:>10}{by}", number(&range["offset"]), show::bytes(number(&range["length"])))
    };
    let mut lines: Vec<String> = all.iter().take(most).map(one).collect();
    if all.len() > most {
        lines.push(format!("  and {} more (--ranges, --json)", all.len() - most));
    }
    lines
}

fn words(told: &Value, most: usize) -> String {
    let mut lines = vec![told["what"].as_str().unwrap_or("-").to_owned()];
    for leg in told["legs"].as_array().into_iter().flatten() {
        lines.push(format!("leg {} ({}):", leg["leg"], leg["source"].as_str().unwrap_or("-")));
        lines.push(format!("  now {}", config_words(&leg["config"])));
        let since = leg["since"].as_array().into_iter().flatten().skip(1);
        lines.extend(since.map(|config| format!("  after {}", config_words(config))));
    }
    let may = &told["may_differ"];
    let of = |key: &str| show::bytes(number(&may[key]));
    match told["untracked"]["reason"].as_str() {
        Some(why) => lines.push(format!("may differ: everything, {}: {why}", of("bytes"))),
        None => {
            lines.push(format!(
                "may differ: {} in {} ranges ({} granules of {}): written by node 0 {}, by node 1 {}, by both {}",
                of("bytes"),
                may["ranges"],
                may["granules"],
                show::bytes(number(&told["granule_size"])),
                of("by_node_0"),
                of("by_node_1"),
                of("by_both"),
            ));
            lines.extend(ranges(&told["differences"], most));
        }
    }
    let verified = &told["verified"];
    if !verified.is_null() {
        lines.push(format!(
            "do differ: {} ({} blocks of 4 KiB), of {} that were read on both legs",
            show::bytes(number(&verified["bytes"])),
            verified["blocks"],
            show::bytes(number(&verified["bytes_read"])),
        ));
        lines.extend(ranges(&verified["ranges"], most));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        let one = |start, len, author| Difference { range: ByteRange::new(start, len), author };
        let list = [one(0, 4, Author::Zero), one(4, 4, Author::Both), one(12, 4, Author::One)];
        assert_eq!(merged(&list), [ByteRange::new(0, 8), ByteRange::new(12, 4)]);
    }

    #[test]
    fn a_config_says_who_was_there() {
        let shown = json!({
            "generation": 7, "holder": 1, "in_sync": [1], "reason": "force-promoted", "forced": true,
        });
        assert_eq!(config_words(&shown), "generation 7, node 1 with leg 1 alone: force-promoted, FORCED");
    }
}
