//! gemeld: starts the reactors, opens the control socket, loads the configuration, waits for the end.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use core::time::Duration;
use daemon::Node;
use daemon::node::{End, SharedNode, State};
use daemon::reactor::{Duty, Reactor};
use daemon::server::{Server, call};
use engine::{CoreList, IdlePolicy, MonotonicClock, Pool, PoolConfig};
use rpc::RpcError;
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
    /// Cores to run a reactor on, as `0,2-3`. The first one serves the portals; mirrors and imports live on the others, if
    /// there are any.
    #[arg(short = 'm', long, default_value = "0")]
    cores: CoreList,
    /// What a reactor does when idle: `spin`, `yield`, `adaptive[:MICROSECONDS]` or `block`.
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
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_target(false).with_ansi(colours).with_writer(std::io::stderr).init();
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
    let config = options.config.as_ref().map(read_config).transpose()?;
    let server = Server::bind(&options.socket)?;
    let pool = Pool::new(PoolConfig::with_memory(options.memory as usize * 1024 * 1024))?;
    tracing::info!("{} MiB of buffers on {}", pool.bytes() >> 20, pool.backing());
    // One clock: times travel with I/Os from reactor to reactor.
    let clock = MonotonicClock::start();
    let reactors = start_reactors(options, &pool, clock)?;
    let (ender, end) = channel();
    let state = if options.wait_for_rpc { State::Startup } else { State::Runtime };
    let node: SharedNode = Arc::new(Mutex::new(Node::new(reactors, clock, state, ender.clone())));
    let loaded = config.map_or(Ok(()), |config| load(&node, &config));
    if let Err(error) = loaded {
        shut_down(&node)?;
        return Err(error);
    }
    server.serve(node.clone())?;
    tracing::info!(
        "ready: cores {:?}, idle policy {}, control socket {}",
        options.cores.cores(),
        options.poll,
        options.socket.display()
    );
    end_on_signal(ender)?;
    wait(&node, &end);
    shut_down(&node)
}

fn start_reactors(options: &Options, pool: &Pool, clock: MonotonicClock) -> std::io::Result<Vec<Reactor>> {
    let duties = std::iter::once(Duty::Front).chain(std::iter::repeat(Duty::Back));
    let start = |(core, duty): (&u32, Duty)| Reactor::start(*core, pool.clone(), options.poll, clock, duty);
    options.cores.cores().iter().zip(duties).map(start).collect()
}

/// SIGTERM and SIGINT end the node in order.
fn end_on_signal(ender: Sender<()>) -> Result<(), Failure> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for _ in signals.forever() {
            // Nobody listens any more once the end is under way.
            let _ = ender.send(());
        }
    })?;
    Ok(())
}

/// How often the reactors are looked after.
const LOOK: Duration = Duration::from_millis(500);
/// How often the end's progress is looked at.
const END_LOOK: Duration = Duration::from_millis(5);

fn locked<T>(node: &SharedNode, act: impl FnOnce(&mut Node) -> T) -> T {
    act(&mut node.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Until somebody asks for the end, or a reactor is gone.
fn wait(node: &SharedNode, end: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(LOOK) {
        // Its events go to the log.
        locked(node, Node::collect_events);
        if !locked(node, |node| node.is_sound()) {
            return;
        }
    }
}

fn shut_down(node: &SharedNode) -> Result<(), Failure> {
    while locked(node, Node::drive_end) == End::NotYet {
        std::thread::park_timeout(END_LOOK);
    }
    locked(node, Node::collect_events);
    Ok(locked(node, Node::end_reactors)?)
}

fn read_config(path: &PathBuf) -> Result<Value, Failure> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} is no JSON: {error}", path.display()).into())
}

/// Replays a saved configuration; stops at the first call that fails.
fn load(node: &SharedNode, config: &Value) -> Result<(), Failure> {
    let subsystems = config["subsystems"].as_array().ok_or("the configuration has no \"subsystems\"")?;
    for subsystem in subsystems {
        let Some(calls) = subsystem["config"].as_array() else { continue };
        for made in calls {
            let method = made["method"].as_str().ok_or("the configuration has a call without \"method\"")?;
            let params = made.get("params").filter(|params| !params.is_null());
            call_patiently(node, method, params).map_err(|error| {
                let params = params.unwrap_or(&Value::Null);
                format!("the configuration's call {method} {params} was refused: {error}")
            })?;
        }
    }
    Ok(())
}

/// A file or port that is in use (`EBUSY`, `EADDRINUSE`).
const IN_USE: [i64; 2] = [-16, -98];
/// How long a process that was killed may keep its files and ports: the kernel ends what its ring had in flight first.
const REMAINS: Duration = Duration::from_secs(10);
const REMAINS_LOOK: Duration = Duration::from_millis(10);

/// A node that takes the place of one that was killed waits until what that had is free.
fn call_patiently(node: &SharedNode, method: &str, params: Option<&Value>) -> Result<Value, RpcError> {
    let looks = REMAINS.as_millis() / REMAINS_LOOK.as_millis();
    for look in 0..looks {
        match call(node, method, params) {
            Err(error) if IN_USE.contains(&error.code) => {
                if look == 0 {
                    tracing::warn!("{method}: {error}: waiting for whoever has it to end");
                }
                std::thread::park_timeout(REMAINS_LOOK);
            }
            answer => return answer,
        }
    }
    call(node, method, params)
}
