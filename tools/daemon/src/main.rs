//! gemeld: starts the reactors, opens the control socket, loads the configuration, waits for the end.

use std::io::{ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use core::time::Duration;
use daemon::log::Log;
use daemon::node::{ConfigFile, End, SharedNode, State};
use daemon::notify::Notifier;
use daemon::reactor::{Duty, Reactor};
use daemon::server::{Server, SocketAccess, call};
use daemon::{Node, access, methods};
use engine::{CoreList, IdlePolicy, MonotonicClock, Pool, PoolConfig, ReactorConfig, RingMode};
use rpc::RpcError;
use rpc::config::{self, Call};
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
    /// Mode of the control socket, in octal digits. Whoever may connect controls the node.
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = access::mode)]
    socket_mode: u32,
    /// Group of the control socket, by name or number; with `--socket-mode 0660` its members control the node.
    #[arg(long, value_name = "GROUP", value_parser = access::group)]
    socket_group: Option<u32>,
    /// Configuration to load at start, in SPDK's JSON format (see `gemel config save`).
    #[arg(short, long, visible_alias = "json")]
    config: Option<PathBuf>,
    /// Write the configuration back to the file of `--config` after each call that changes it. The file may be absent at first.
    #[arg(long, requires = "config")]
    write_back: bool,
    /// Cores to run a reactor on, as `0,2-3`. The first one serves the portals; mirrors and imports live on the others, if
    /// there are any.
    #[arg(short = 'm', long, default_value = "0")]
    cores: CoreList,
    /// What a reactor does when idle: `spin`, `yield`, `adaptive[:MICROSECONDS]` or `block`.
    #[arg(long, default_value = "adaptive:200")]
    poll: IdlePolicy,
    /// What to use of io_uring: `probe` for everything that the kernel offers, `plain` for nothing beyond the oldest
    /// interface, to rule out a kernel's fault.
    #[arg(long, default_value = "probe")]
    ring: RingMode,
    /// Buffer memory in MiB.
    #[arg(short = 's', long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=1024))]
    memory: u32,
    /// Leave a core dump when the node crashes, for developers: it holds CHAP secrets and keys, and hosts' data.
    #[arg(long)]
    core_dumps: bool,
    /// Wait for framework_start_init before anything but start-up methods is allowed.
    #[arg(long, conflicts_with = "config")]
    wait_for_rpc: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let colours = std::io::stderr().is_terminal();
    let log = Log::start(colours);
    match run(&options, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gemeld: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn run(options: &Options, log: Log) -> Result<(), Failure> {
    if !options.core_dumps {
        engine::process::forbid_core_dumps()?;
    }
    let config = read_config(options)?;
    let may_connect = SocketAccess { mode: options.socket_mode, group: options.socket_group };
    let server = Server::bind(&options.socket, may_connect)?;
    let pool = Pool::new(PoolConfig::with_memory(options.memory as usize * 1024 * 1024))?;
    tracing::info!("{} MiB of buffers on {}", pool.bytes() >> 20, pool.backing());
    // One clock: times travel with I/Os from reactor to reactor.
    let clock = MonotonicClock::start();
    let reactors = start_reactors(options, &pool, clock)?;
    if let Some(first) = reactors.first() {
        tracing::info!("io_uring ({}): {}", options.ring, first.ring());
    }
    let (ender, end) = channel();
    let starts = options.wait_for_rpc || config.is_some();
    let state = if starts { State::Startup } else { State::Runtime };
    let mut node = Node::new(reactors, clock, state, ender.clone(), log);
    for reactor in 0..node.reactors().len() {
        let events = node.events().sender();
        node.on(reactor, move |residents, _| residents.report_to(events))?;
    }
    let node: SharedNode = Arc::new(Mutex::new(node));
    // Before anything is served: sessions that a configuration's first calls let in end in order, too.
    end_on_signal(ender)?;
    if let (Some(path), Some(calls)) = (&options.config, config)
        && let Err(error) = load(&node, path, calls, options)
    {
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
    let manager = Notifier::from_environment()?;
    if let Some(manager) = &manager {
        manager.ready(&format!("control socket {}", options.socket.display()));
    }
    wait(&node, &end, manager.as_ref());
    if let Some(manager) = &manager {
        manager.stopping();
    }
    shut_down(&node)
}

fn start_reactors(options: &Options, pool: &Pool, clock: MonotonicClock) -> std::io::Result<Vec<Reactor>> {
    let duties = std::iter::once(Duty::Front).chain(std::iter::repeat(Duty::Back));
    let start = |(core, duty): (&u32, Duty)| {
        let config = ReactorConfig { core: *core, policy: options.poll, ring: options.ring };
        Reactor::start(config, pool.clone(), clock, duty)
    };
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

/// Until somebody asks for the end, or a reactor is gone. The service manager's watchdog is fed on the way.
fn wait(node: &SharedNode, end: &Receiver<()>, manager: Option<&Notifier>) {
    let watchdog = manager.and_then(Notifier::watchdog);
    let look = watchdog.map_or(LOOK, |watchdog| LOOK.min(watchdog / 4));
    while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(look) {
        if let (Some(manager), Some(_)) = (manager, watchdog)
            && locked(node, Node::has_turned)
        {
            manager.alive();
        }
        locked(node, Node::look_at_addresses);
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

fn read_config(options: &Options) -> Result<Option<Vec<Call>>, Failure> {
    let Some(path) = &options.config else { return Ok(None) };
    let text = match std::fs::read_to_string(path) {
        // The first start of a node that keeps its configuration.
        Err(error) if error.kind() == ErrorKind::NotFound && options.write_back => {
            return Ok(Some(Vec::new()));
        }
        text => text.map_err(|error| format!("cannot read {}: {error}", path.display()))?,
    };
    let calls = config::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(calls))
}

/// Replays a configuration and notes where it is; stops at the first call that fails.
fn load(node: &SharedNode, path: &Path, calls: Vec<Call>, options: &Options) -> Result<(), Failure> {
    let make = |made: &Call| Ok(call_patiently(node, &made.method, made.params.as_ref())?);
    let check = |call: &Call| methods::check(&call.method, call.params.as_ref());
    let loaded = config::load(calls, check, make).map_err(|error| format!("{}: {error}", path.display()))?;
    for left in &loaded.left_out {
        tracing::warn!("{}: {} is left out: {}", path.display(), left.what, left.why);
    }
    // The node's folder may be another one by the time of a write.
    let path = std::path::absolute(path)?;
    locked(node, |node| match options.write_back {
        true => methods::keep_in(node, &path).map_err(Failure::from),
        false => {
            node.config_file = ConfigFile::Loaded(path);
            Ok(())
        }
    })
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
