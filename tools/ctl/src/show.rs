//! Answers as tables.

use comfy_table::{Table, presets};
use serde_json::Value;

/// Indented JSON.
pub(crate) fn pretty(answer: &Value) -> String {
    serde_json::to_string_pretty(answer).unwrap_or_else(|_| answer.to_string())
}

fn table(columns: &[&str], rows: &Value, row: impl Fn(&Value) -> Vec<String>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns);
    for value in rows.as_array().into_iter().flatten() {
        table.add_row(row(value));
    }
    table.to_string()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Bytes with a binary unit, one decimal where it matters.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = ((count.max(1).ilog2() / 10) as usize).min(UNITS.len() - 1);
    let tenths = (u128::from(count) * 10) >> (10 * unit);
    if unit == 0 || tenths.is_multiple_of(10) {
        format!("{} {}", tenths / 10, UNITS[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn size(value: &Value) -> String {
    bytes(number(&value["block_size"]) * number(&value["num_blocks"]))
}

/// A command that has nothing to tell.
pub(crate) fn done(_: &Value) -> String {
    "done".to_owned()
}

/// `lun list`.
pub(crate) fn luns(answer: &Value) -> String {
    let columns = [
        "TARGET", "LUN", "STATUS", "SIZE", "SECTOR", "BACKING", "SERIAL", "MODE", "DEPTH", "ACTIVE", "READ",
        "WRITTEN", "ACL",
    ];
    table(&columns, answer, |lun| {
        let backing = if lun["backing"].is_null() { &lun["bdev_name"] } else { &lun["backing"] };
        vec![
            text(&lun["target"]),
            text(&lun["lun_id"]),
            text(&lun["status"]),
            size(lun),
            text(&lun["block_size"]),
            text(backing),
            text(&lun["serial"]),
            text(&lun["durability"]),
            text(&lun["queue_depth"]),
            text(&lun["active_commands"]),
            bytes(number(&lun["bytes_read"])),
            bytes(number(&lun["bytes_written"])),
            text(&lun["initiators"]),
        ]
    })
}

/// `bdev list`.
pub(crate) fn bdevs(answer: &Value) -> String {
    table(&["NAME", "KIND", "SIZE", "BLOCK", "UUID", "CLAIMED"], answer, |bdev| {
        let columns = ["name", "product_name"].map(|key| text(&bdev[key]));
        let rest = ["block_size", "uuid", "claimed"].map(|key| text(&bdev[key]));
        columns.into_iter().chain([size(bdev)]).chain(rest).collect()
    })
}

/// `connections`.
pub(crate) fn connections(answer: &Value) -> String {
    let keys = ["id", "initiator_name", "initiator_addr", "target_addr", "target_node_name", "login_phase"];
    table(&["ID", "INITIATOR", "FROM", "PORTAL", "TARGET", "PHASE"], answer, |connection| {
        keys.iter().map(|key| text(&connection[*key])).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1 << 30), "1 GiB");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
    }
}
