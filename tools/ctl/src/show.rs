//! Answers as tables.

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

/// A choice, in the word that the command line and the node's methods have for it.
pub(crate) fn choice(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

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

/// `limits`.
pub(crate) fn limits(answer: &Value) -> String {
    let mut rows = answer["target"].as_array().cloned().unwrap_or_default();
    for class in answer["memory"]["frames"].as_array().into_iter().flatten() {
        let name = format!("frames of {}", bytes(number(&class["frame_size"])));
        rows.push(json!({
            "name": name, "used": class["used"], "limit": class["limit"], "misses": class["misses"],
        }));
    }
    table(&["WHAT", "USED", "LIMIT", "FOUND NONE"], &Value::Array(rows), |row| {
        ["name", "used", "limit", "misses"].map(|key| text(&row[key])).to_vec()
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

/// `discover`.
pub(crate) fn targets(answer: &Value) -> String {
    table(&["TARGET", "PORTALS"], answer, |target| {
        let portals = target["portals"].as_array().into_iter().flatten();
        vec![text(&target["name"]), portals.map(text).collect::<Vec<_>>().join(" ")]
    })
}

/// `latency`: one line for each layer and kind of operation that did something.
pub(crate) fn latency(answer: &Value) -> String {
    let mut rows = Vec::new();
    let mut add = |name: String, kind: &Value, figures: &Value| {
        for operation in ["read", "write", "unmap", "flush"] {
            if number(&figures[operation]["count"]) > 0 {
                rows.push(json!([name, kind, operation, figures[operation]]));
            }
        }
    };
    for lun in answer["luns"].as_array().into_iter().flatten() {
        add(format!("{}/{}", text(&lun["target"]), lun["lun_id"]), &json!("LUN"), lun);
    }
    for bdev in answer["bdevs"].as_array().into_iter().flatten() {
        add(text(&bdev["name"]), &bdev["product_name"], bdev);
    }
    let columns = ["LAYER", "KIND", "OPERATION", "COUNT", "MEAN us", "P50", "P99", "P99.9", "MAX"];
    table(&columns, &Value::Array(rows), |row| {
        let figures = ["mean_us", "p50_us", "p99_us", "p999_us", "max_us"]
            .map(|key| format!("{:.1}", row[3][key].as_f64().unwrap_or(0.0)));
        [text(&row[0]), text(&row[1]), text(&row[2]), text(&row[3]["count"])]
            .into_iter()
            .chain(figures)
            .collect()
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
