//! gemel: the administrator's command. Every subcommand is one or two calls of the control socket; `--json` shows the answers
//! as they are, and a failure as an object `error`.

mod access;
mod auth;
mod config;
mod events;
mod failure;
mod leg;
mod link;
mod pair;
mod print;
mod role;
mod secrets;
mod show;
mod split;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use failure::Failure;
use rpc::Client;
use serde_json::{Value, json};

/// Looks at and changes a running Gemel node.
#[derive(Parser)]
#[command(name = "gemel", version)]
struct Options {
    /// The node's control socket.
    #[arg(short, long, global = true, default_value = "/var/tmp/spdk.sock")]
    socket: PathBuf,
    /// Print answers as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A mirrored pair: create it on one node, join it on the other.
    #[command(subcommand)]
    Pair(Box<pair::Pair>),
    /// Mirrors: role, legs, intent log, resync.
    Status {
        /// One mirror; all when absent.
        name: Option<String>,
        /// Look again every second.
        #[arg(short, long)]
        watch: bool,
    },
    /// What happened to mirrors, each event with a code and a reason for machines.
    Events {
        /// One mirror; all when absent.
        name: Option<String>,
        /// Print events as they come, until the node ends.
        #[arg(short, long)]
        follow: bool,
        /// First event to print, by its id.
        #[arg(long, default_value_t = 0)]
        since: u64,
    },
    /// Make this node the holder: the other one has to be down.
    Promote(role::Promote),
    /// Whether this node may be promoted, with a code for machines; the exit status says no as well.
    MayPromote(role::MayPromote),
    /// Stop being the holder, and stand by until a node is promoted: for a cluster manager's agent.
    Demote(role::Demote),
    /// Give the array to the peer, with both legs in sync: no resync, a short pause for hosts.
    Switchover {
        /// The mirror.
        name: String,
    },
    /// Start without the peer, which may have gone on without this node.
    StartDegraded {
        /// The mirror.
        name: String,
    },
    /// Go on without the peer, where the policy leaves that to the operator.
    Degrade {
        /// The mirror.
        name: String,
    },
    /// Two legs that have diverged: what they differ in, and the choice of one.
    #[command(subcommand)]
    Split(split::Split),
    /// Pause or resume the resync.
    Resync {
        /// What to do.
        what: Throttle,
        /// The mirror.
        name: String,
    },
    /// Portal groups: where initiators connect.
    #[command(subcommand)]
    Portal(access::Portals),
    /// Initiator groups: who may be let in.
    #[command(subcommand)]
    Initiators(access::Initiators),
    /// Targets: who may use them, and sending their initiators away.
    #[command(subcommand)]
    Target(access::Targets),
    /// CHAP: who has to authenticate himself, and how.
    #[command(subcommand)]
    Auth(auth::Auth),
    /// LUNs.
    #[command(subcommand)]
    Lun(Lun),
    /// Block devices.
    #[command(subcommand)]
    Bdev(Bdev),
    /// Where the time goes: percentiles of each layer's latency, from the LUN down to the leg's file.
    Latency,
    /// Links: network interfaces that the node polls itself.
    #[command(subcommand)]
    Link(link::Links),
    /// iSCSI connections.
    Connections,
    /// The targets that a portal of another node shows.
    Discover {
        /// The portal, as `ADDRESS` or `ADDRESS:PORT`.
        address: String,
        /// The initiator's name to ask by.
        #[arg(long, default_value = "iqn.2026-11.org.gemel:discovery")]
        initiator: String,
        #[command(flatten)]
        asker: auth::Asker,
    },
    /// What the node has limits for, and how much of it is used.
    Limits,
    /// The configuration.
    #[command(subcommand)]
    Config(Config),
    /// Call any method.
    Rpc {
        /// The method.
        method: String,
        /// Its parameters as JSON; `-` reads them from standard input, out of others' sight.
        params: Option<String>,
    },
}

#[derive(Subcommand)]
enum Lun {
    /// List them with their counters.
    List,
}

#[derive(Subcommand)]
enum Bdev {
    /// List them.
    List,
}

#[derive(Subcommand)]
enum Config {
    /// Write the running configuration to a file that `gemeld --config` loads.
    Save {
        /// The file, which only its owner can read; `-` for standard output.
        file: PathBuf,
        /// To standard output, too, with the secrets that were given in calls.
        #[arg(long)]
        with_secrets: bool,
    },
    /// Make the calls of a saved configuration, SPDK's too. What may only be called at start is for `gemeld --config`.
    Load {
        /// The file; `-` for standard input.
        file: PathBuf,
    },
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Throttle {
    Pause,
    Resume,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options).and_then(|text| print::line(&text)) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            let shown = options.json && print::line(&show::pretty(&error.json())).is_ok();
            if !shown {
                eprintln!("gemel: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<String, Failure> {
    match &options.command {
        // Of two nodes, or of none.
        Command::Split(split) => split::run(options, split),
        command => ask(options, command),
    }
}

/// A command for one node.
fn ask(options: &Options, command: &Command) -> Result<String, Failure> {
    let mut client = Client::connect(&options.socket)?;
    let (answer, show): (Value, fn(&Value) -> String) = match command {
        Command::Lun(Lun::List) => (client.call("lun_get_list", None)?, show::luns),
        Command::Bdev(Bdev::List) => (client.call("bdev_get_bdevs", None)?, show::bdevs),
        Command::Latency => {
            let [luns, bdevs] = ["lun_get_list", "bdev_get_latency"].map(|method| client.call(method, None));
            (json!({"luns": luns?, "bdevs": bdevs?}), show::latency)
        }
        Command::Portal(portal) => call(&mut client, portal.call())?,
        Command::Initiators(initiators) => call(&mut client, initiators.call())?,
        Command::Target(target) => call(&mut client, target.call())?,
        Command::Link(link) => {
            let (answer, show) = call(&mut client, link.call())?;
            let captured = link::wait_for_capture(&mut client, link)?;
            let ways = link::with_ways(&mut client, link, &answer)?;
            match (captured, ways) {
                (Some(capture), _) => (capture, link::captured),
                (None, Some(all)) => (all, link::status_with_ways),
                (None, None) => (answer, show),
            }
        }
        Command::Auth(auth) => {
            let (method, params) = auth::call(auth);
            (client.call(method, params)?, auth::show)
        }
        Command::Limits => (client.call("node_get_limits", None)?, show::limits),
        Command::Discover { address, initiator, asker } => {
            let mut params = json!({"address": address, "initiator_iqn": initiator});
            asker.add_to(&mut params);
            (client.call("bdev_iscsi_discover", Some(params))?, show::targets)
        }
        Command::Connections => (client.call("iscsi_get_connections", None)?, show::connections),
        Command::Config(Config::Save { file, with_secrets }) => {
            let secrets = if *with_secrets { config::Secrets::Shown } else { config::Secrets::ToFile };
            (config::save(&mut client, file, secrets)?, config::saved)
        }
        Command::Config(Config::Load { file }) => (config::load(&mut client, file)?, config::loaded),
        Command::Pair(pair) => return pair::run(&mut client, options, pair),
        Command::Status { name, watch: true } => {
            let form = if options.json { status::Form::Json } else { status::Form::Words };
            return status::watch(&mut client, name.as_deref(), form);
        }
        Command::Status { name, watch: false } => {
            (client.call("mirror_get_status", Some(status::which(name.as_deref())))?, status::show)
        }
        Command::Events { name, follow: true, since } => {
            let form = if options.json { events::Form::Json } else { events::Form::Words };
            return events::follow(&mut client, name.as_deref(), *since, form);
        }
        Command::Events { name, follow: false, since } => {
            (client.call("mirror_get_events", Some(events::since(name.as_deref(), *since)))?, events::show)
        }
        Command::Split(split) => return split::run(options, split),
        Command::Promote(ask) => return Ok(role::promote(&mut client, ask)?.show(options)),
        Command::MayPromote(ask) => return role::may_promote(&mut client, options, ask),
        Command::Demote(ask) => return Ok(role::demote(&mut client, ask)?.show(options)),
        Command::Switchover { name } => return Ok(role::switchover(&mut client, name)?.show(options)),
        Command::StartDegraded { name } => {
            (client.call("mirror_start_degraded", Some(json!({"name": name})))?, show::done)
        }
        Command::Degrade { name } => {
            (client.call("mirror_degrade", Some(json!({"name": name})))?, show::done)
        }
        Command::Resync { what, name } => {
            let method = match what {
                Throttle::Pause => "mirror_resync_pause",
                Throttle::Resume => "mirror_resync_resume",
            };
            (client.call(method, Some(json!({"name": name})))?, show::done)
        }
        Command::Rpc { method, params } => {
            let params = params.as_deref().map(json_params).transpose()?;
            (client.call(method, params)?, show::pretty)
        }
    };
    Ok(if options.json { show::pretty(&answer) } else { show(&answer) })
}

fn call(client: &mut Client, (method, params, show): access::Call) -> Result<(Value, access::Show), Failure> {
    Ok((client.call(method, params)?, show))
}

/// Parameters as they were typed, or from standard input.
fn json_params(text: &str) -> Result<Value, Failure> {
    if text != "-" {
        return serde_json::from_str(text).map_err(|error| Failure::Json(text.to_owned(), error));
    }
    // What was read may hold a secret: it is not repeated.
    let input = || "standard input".to_owned();
    serde_json::from_reader(std::io::stdin()).map_err(|error| Failure::Json(input(), error))
}
