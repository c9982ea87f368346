//! gemeld: starts the reactor, opens the control socket, loads the configuration, waits for the end.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use daemon::node::State;
use daemon::server::{Server, call};
use daemon::{Message, Node};
use engine::{CoreList, IdlePolicy, MonotonicClock, Pinning, Pool, PoolConfig, ReactorThread, Sender};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The node of a Gemel pair: serves iSCSI LUNs, is controlled by SPDK-compatible JSON-RPC.
#[derive(Parser)]
#[command(name = "gemeld", version)]
struct Options {
    /// Control socket.
    #[arg(short = 'r', long = "socket", visible_alias = "rpc-socket", default_value = "/var/tmp/spdk.sock")]
    socket: PathBuf,
    /// Configuration to load at start, in SPDK's JSON format (see `gemel config save`).
    #[arg(short, long, visible_alias = "json")]
    config: Option<PathBuf>,
    /// Core of the reactor.
    #[arg(short = 'm', long, default_value = "0")]
    cores: CoreList,
    /// What the reactor does when idle: `spin`, `yield`, `adaptive[:MICROSECONDS]` or `block`.
    #[arg(long, default_value = "adaptive:200")]
    poll: IdlePolicy,
    /// Buffer memory in MiB.
    #[arg(short = 's', long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=1024))]
    memory: u32,
    /// Wait for framework_start_init before anything but start-up methods is allowed.
    #[arg(long)]
    wait_for_rpc: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt().with_target(false).with_writer(std::io::stderr).init();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gemeld: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn run(options: &Options) -> Result<(), Failure> {
    let [core] = *options.cores.cores() else {
        return Err("a node runs on one core for now: name one with --cores".into());
    };
    let config = options.config.as_ref().map(read_config).transpose()?;
    let server = Server::bind(&options.socket)?;
    let pool = Pool::new(PoolConfig::with_memory(options.memory as usize * 1024 * 1024))?;
    tracing::info!("{} MiB of buffers on {}", pool.bytes() >> 20, pool.backing());
    let state = if options.wait_for_rpc { State::Startup } else { State::Runtime };
    let build = move |core: &engine::Core, stats| Node::new(core, stats, state);
    let reactor = engine::spawn(core, pool, options.poll, MonotonicClock::start(), build)?;
    if reactor.pinning == Pinning::Floating {
        tracing::warn!("core {core} cannot be had: the reactor runs where the scheduler puts it");
    }
    if let Some(config) = config
        && let Err(error) = load(&reactor.sender, &config)
    {
        end(reactor)?;
        return Err(error);
    }
    server.serve(reactor.sender.clone())?;
    tracing::info!(
        "ready: core {core}, idle policy {}, control socket {}",
        options.poll,
        options.socket.display()
    );
    shut_down_on_signal(reactor.sender.clone())?;
    join(reactor)
}

/// SIGTERM and SIGINT end the node in order.
fn shut_down_on_signal(node: Sender<Message>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            // A full mailbox drains within a turn: the next signal gets through.
            let _ = node.send(Message::ShutDown);
        }
    })?;
    Ok(())
}

fn end(reactor: ReactorThread<Message>) -> Result<(), Failure> {
    // The mailbox of a reactor that has just started has room.
    let _ = reactor.sender.send(Message::ShutDown);
    join(reactor)
}

fn join(reactor: ReactorThread<Message>) -> Result<(), Failure> {
    reactor.thread.join().map_err(|_| "the reactor panicked: see the lines above")??;
    Ok(())
}

fn read_config(path: &PathBuf) -> Result<Value, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} is no JSON: {error}", path.display()).into())
}

/// Replays a saved configuration; stops at the first call that fails.
fn load(node: &Sender<Message>, config: &Value) -> Result<(), Failure> {
    let subsystems = config["subsystems"].as_array().ok_or("the configuration has no \"subsystems\"")?;
    for subsystem in subsystems {
        let Some(calls) = subsystem["config"].as_array() else { continue };
        for made in calls {
            let method = made["method"].as_str().ok_or("the configuration has a call without \"method\"")?;
            let params = made.get("params").filter(|params| !params.is_null()).cloned();
            call(node, method.to_owned(), params.clone()).map_err(|error| {
                let params = params.unwrap_or_default();
                format!("the configuration's call {method} {params} was refused: {error}")
            })?;
        }
    }
    Ok(())
}
