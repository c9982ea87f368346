//! `gemel link`: network interfaces that the node polls itself. Also the NIC of a new pair.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use rpc::Client;
use serde_json::{Value, json};

use crate::access::Call;
use crate::failure::Failure;
use crate::show;

/// Links: interfaces with TCP/IP in the node's own process.
#[derive(Subcommand)]
pub(crate) enum Links {
    /// State, device, offloads, counters and peers of links.
    Status {
        /// One link; all when absent.
        name: Option<String>,
    },
    /// Take an interface. Portals at its addresses, and imports from its networks, go over it from then on.
    Create {
        /// The link's name.
        name: String,
        /// The network interface.
        #[arg(long)]
        interface: String,
        /// What carries its frames: the kernel's packet rings, AF_XDP (packet rings where that is not to be had), AF_XDP only if the NIC can
        /// do it without a copy, or the far end of a TAP.
        #[arg(long, value_enum, default_value_t = Device::Packet)]
        device: Device,
        /// An address of the link's with its prefix length, as 10.0.0.1/24; the kernel must not have it.
        #[arg(long = "address", required = true)]
        addresses: Vec<String>,
        /// The way to other networks.
        #[arg(long = "gateway")]
        gateways: Vec<IpAddr>,
        /// The longest packet in bytes.
        #[arg(long, default_value_t = 9000)]
        mtu: u32,
        /// What a loss is taken for: a loss, on a link that replication has for itself, or a sign of others who need the path.
        #[arg(long, value_enum, default_value_t = Congestion::None)]
        congestion: Congestion,
        /// The shortest retransmission timeout in microseconds.
        #[arg(long)]
        min_rto_us: Option<u64>,
        /// Connections at the most.
        #[arg(long)]
        sockets: Option<u32>,
    },
    /// Write a link's frames to a file that Wireshark reads, while it is at work; comes back when that has ended.
    Capture {
        /// The link's name.
        name: String,
        /// The file; it must not be there yet.
        file: PathBuf,
        /// For how many seconds.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
        /// Bytes of each frame at the most; all when absent.
        #[arg(long, value_parser = clap::value_parser!(u32).range(64..=262_144))]
        snap_len: Option<u32>,
    },
    /// Give an interface back that nothing uses any more.
    Delete {
        /// The link's name.
        name: String,
    },
}

/// What carries a link's frames.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Device {
    Packet,
    Xdp,
    Auto,
    Tap,
}

/// What a loss is taken for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Congestion {
    None,
    Reno,
}

impl Links {
    pub(crate) fn call(&self) -> Call {
        match self {
            Self::Status { name } => {
                let params = name.as_ref().map(|name| json!({"name": name}));
                ("link_get_links", params, status)
            }
            Self::Create {
                name,
                interface,
                device,
                addresses,
                gateways,
                mtu,
                congestion,
                min_rto_us,
                sockets,
            } => {
                let mut params =
                    json!({"name": name, "interface": interface, "addresses": addresses, "mtu": mtu});
                params["device"] = json!(show::choice(device));
                params["congestion"] = json!(show::choice(congestion));
                if !gateways.is_empty() {
                    params["gateways"] = json!(gateways);
                }
                for (key, value) in [("min_rto_us", *min_rto_us), ("sockets", sockets.map(u64::from))] {
                    if let Some(value) = value {
                        params[key] = json!(value);
                    }
                }
                ("link_create", Some(params), show::done)
            }
            Self::Capture { name, file, seconds, snap_len } => {
                let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
                let mut params = json!({"name": name, "file": file, "seconds": seconds});
                if let Some(bytes) = snap_len {
                    params["snap_len"] = json!(bytes);
                }
                ("link_capture", Some(params), show::done)
            }
            Self::Delete { name } => ("link_delete", Some(json!({"name": name})), show::done),
        }
    }
}

/// Waits for the end of a capture that was begun, and says what came of it.
pub(crate) fn wait_for_capture(client: &mut Client, links: &Links) -> Result<Option<Value>, Failure> {
    let Links::Capture { name, seconds, .. } = links else { return Ok(None) };
    let mut capture = Value::Null;
    for _ in 0..(seconds + 5) * LOOKS_PER_SECOND {
        std::thread::park_timeout(Duration::from_secs(1) / LOOKS_PER_SECOND);
        let status = client.call("link_get_links", Some(json!({"name": name})))?;
        capture = status[0]["capture"].clone();
        if capture["running"] == false {
            break;
        }
    }
    Ok(Some(capture))
}

/// How often a capture is looked at.
const LOOKS_PER_SECOND: u32 = 5;

/// What came of a capture.
pub(crate) fn captured(capture: &Value) -> String {
    let [file, frames, left_out] = ["file", "frames", "left_out"].map(|key| text(&capture[key]));
    match left_out.as_str() {
        "0" => format!("{file}: {frames} frames"),
        _ => format!("{file}: {frames} frames; {left_out} more came too fast, and are left out"),
    }
}

fn list(values: &Value, one: impl Fn(&Value) -> String) -> String {
    let all: Vec<String> = values.as_array().into_iter().flatten().map(one).collect();
    if all.is_empty() { "-".to_owned() } else { all.join(", ") }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// With the reason where it is not what it should be.
fn state(link: &Value) -> String {
    let state = text(&link["state"]);
    link["why"].as_str().map_or_else(|| state.clone(), |why| format!("{state}: {why}"))
}

/// A table of two columns for each link.
fn status(answer: &Value) -> String {
    let one = |link: &Value| {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let counters = &link["counters"];
        let passed = |way: &str| {
            let [frames, bytes] = ["frames", "bytes"].map(|what| &counters[format!("{way}_{what}")]);
            let rate = &link["rates"][format!("{way}_bytes_per_s")];
            format!("{frames} frames, {bytes} bytes, {rate} bytes/s")
        };
        let lost = ["ring_drops", "unusable_frames", "refused_frames", "unsent_answers", "checksum_errors"];
        let lost = lost.map(|key| format!("{} {}", key.replace('_', " "), counters[key])).join(", ");
        let driver = link["driver"].as_str().filter(|driver| !driver.is_empty()).unwrap_or("unknown");
        let rows = [
            ("interface", format!("{} ({driver}), {}", text(&link["interface"]), state(link))),
            ("device", format!("{}, address {}", text(&link["device"]), text(&link["hardware_address"]))),
            ("in place of", list(&link["fallbacks"], text)),
            ("addresses", list(&link["addresses"], text)),
            ("mtu", format!("{} of {}", link["mtu"], link["interface_mtu"])),
            ("offloads", list(&link["offloads"], text)),
            ("sockets", format!("{} of {}", link["sockets"]["used"], link["sockets"]["limit"])),
            (
                "peers",
                list(&link["peers"], |peer| format!("{} {}", text(&peer["host"]), text(&peer["path"]))),
            ),
            (
                "round trip",
                format!(
                    "{} us median, {} us p99",
                    link["round_trips"]["p50_us"], link["round_trips"]["p99_us"]
                ),
            ),
            ("received", passed("received")),
            ("sent", passed("sent")),
            ("segments", format!("{}, {} sent again", counters["segments"], counters["retransmissions"])),
            ("lost", lost),
        ];
        for (key, value) in rows {
            table.add_row([key.to_owned(), value]);
        }
        format!("{}\n{}", text(&link["name"]), table.trim_fmt())
    };
    let all: Vec<String> = answer.as_array().into_iter().flatten().map(one).collect();
    if all.is_empty() { "no links: everything goes over kernel TCP".to_owned() } else { all.join("\n\n") }
}

/// The replication NIC of a new pair.
#[derive(Args)]
pub(crate) struct Nic {
    /// A network interface for replication alone: the node polls it and runs TCP itself. `--listen` and `--peer` are in its
    /// network then. Once for each such link; kernel TCP when absent.
    #[arg(long, requires = "nic_address")]
    nic: Vec<String>,
    /// This node's address on that interface with its prefix length, as 10.0.0.1/24; the kernel must not have it.
    #[arg(long, requires = "nic")]
    nic_address: Vec<String>,
    /// The longest packet in bytes, the same on both nodes.
    #[arg(long, default_value_t = 9000, requires = "nic")]
    nic_mtu: u32,
    /// What carries its frames: the kernel's packet rings, AF_XDP (packet rings where that is not to be had), AF_XDP only if the NIC can
    /// do it without a copy, or the far end of a TAP.
    #[arg(long, value_enum, default_value_t = Device::Packet, requires = "nic")]
    nic_device: Device,
}

impl Nic {
    /// The calls that make the links. One that is there already is used.
    pub(crate) fn links(&self, client: &mut Client, listen: &[SocketAddr]) -> Result<Vec<Value>, Failure> {
        if self.nic.len() != self.nic_address.len() {
            let counts = (self.nic.len(), self.nic_address.len());
            let why = format!("--nic and --nic-address go together: there are {} and {}", counts.0, counts.1);
            return Err(Failure::Usage(why));
        }
        if self.nic.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(address) = self.nic_address.iter().find(|address| position(address, listen).is_none()) {
            return Err(Failure::Usage(format!("no --listen is at --nic-address {address}")));
        }
        let there = client.call("link_get_links", None)?;
        let is_there = |interface: &String, address: &String| {
            there.as_array().into_iter().flatten().any(|link| {
                let has =
                    link["addresses"].as_array().is_some_and(|all| all.iter().any(|one| one == address));
                link["interface"] == *interface && has
            })
        };
        let (mtu, device) = (self.nic_mtu, show::choice(&self.nic_device));
        let wanted = self.nic.iter().zip(&self.nic_address).filter(|(nic, address)| !is_there(nic, address));
        let call = |(nic, address): (&String, &String)| json!({"name": nic, "interface": nic, "addresses": [address], "mtu": mtu, "device": device});
        Ok(wanted.map(call).collect())
    }

    /// What the other node's command gets: options with their values.
    pub(crate) fn for_peer(
        &self,
        listen: &[SocketAddr],
        peers: &[SocketAddr],
    ) -> Vec<(&'static str, String)> {
        let one = |address: &String| {
            let peer = peers.get(position(address, listen)?)?;
            let prefix = address.split('/').nth(1).unwrap_or_default();
            Some([("nic", "INTERFACE".to_owned()), ("nic-address", format!("{}/{prefix}", peer.ip()))])
        };
        let mut options: Vec<_> = self.nic_address.iter().filter_map(one).flatten().collect();
        if !options.is_empty() {
            options.push(("nic-mtu", self.nic_mtu.to_string()));
            options.push(("nic-device", show::choice(&self.nic_device)));
        }
        options
    }
}

/// Which of these is at an address with a prefix length.
fn position(address: &str, listen: &[SocketAddr]) -> Option<usize> {
    let ip = address.split('/').next()?;
    listen.iter().position(|listen| listen.ip().to_string() == ip)
}

/// The ways of imports beside the links, where all links are asked for.
pub(crate) fn with_ways(
    client: &mut Client,
    links: &Links,
    answer: &Value,
) -> Result<Option<Value>, Failure> {
    let Links::Status { name: None } = links else { return Ok(None) };
    let ways = client.call("link_get_ways", None)?;
    Ok(Some(json!({"links": answer, "ways": ways})))
}

/// Both as text.
pub(crate) fn status_with_ways(answer: &Value) -> String {
    let links = status(&answer["links"]);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["import", "way to", "over", "state", "round trip"]);
    for way in answer["ways"].as_array().into_iter().flatten() {
        let over = way["link"].as_str().unwrap_or("kernel TCP").to_owned();
        let took = way["round_trip_us"].as_u64().map_or_else(|| "-".to_owned(), |took| format!("{took} us"));
        table.add_row([text(&way["import"]), text(&way["address"]), over, text(&way["state"]), took]);
    }
    if table.is_empty() { links } else { format!("{links}\n\n{}", table.trim_fmt()) }
}
