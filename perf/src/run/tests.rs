//! Loads on devices in this process.

use bdev::fault::{FaultBdev, FaultTarget};
use engine::{Pool, PoolConfig, RingConfig, RingHandle, Waker};
use iscsi::keys::DigestPreference;

use super::*;
use crate::target::{OpenOptions, open};

fn core() -> Core {
    let pool = Pool::new(PoolConfig::with_memory(16 << 20)).expect("memory");
    let ring = RingHandle::new(RingConfig::default(), &pool, Waker::new().expect("a waker")).expect("a ring");
    Core::new(0, pool, ring)
}

fn job(mix: &str, shape: Loop) -> Job {
    Job {
        workload: Workload {
            mix: mix.parse().expect("a mix"),
            sizes: "4k:50,16k:50".parse().expect("sizes"),
            pattern: "zipf".parse().expect("a pattern"),
            span: None,
        },
        shape,
        warm_up: Duration::from_millis(10),
        settle: None,
        time: Duration::from_millis(100),
        seed: 1,
        patience: Duration::from_secs(5),
    }
}

struct Nobody;
impl Observer for Nobody {}

fn run_on(target: &str, sessions: u16, job: Job) -> Result<Outcome, RunError> {
    let core = core();
    let options = OpenOptions {
        sessions,
        initiator: "iqn.2026-11.org.gemel:perf".to_owned(),
        digests: DigestPreference::Avoid,
        io_timeout: Duration::from_secs(5),
    };
    let clock = MonotonicClock::start();
    let opened = open(&[target.parse().expect("a target")], &options, &core, clock.now()).expect("it opens");
    run(core, clock, opened, job, IdlePolicy::default(), &mut Nobody)
}

#[test]
fn a_closed_loop_over_several_sessions_does_every_kind() {
    let job = job("read:40,write:40,trim:10,flush:10", Loop::Closed { depth: 4 });
    let outcome = run_on("malloc:8m", 3, job).expect("it runs");
    assert_eq!((outcome.errors, outcome.unstarted), (0, 0), "{:?}", outcome.first_error);
    for kind in Kind::ALL {
        assert!(outcome.of(kind).is_some_and(|latencies| latencies.count() > 0), "no {kind}");
    }
    assert!(outcome.iops() > 0.0 && outcome.bytes_per_second() > 0.0);
}

#[test]
fn a_file_is_driven_through_the_ring() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(4 << 20).expect("a size");
    let job = job("read:50,write:50", Loop::Closed { depth: 2 });
    let outcome = run_on(&format!("file:{}", file.path().display()), 1, job).expect("it runs");
    assert!(outcome.errors == 0 && outcome.measurement.total().operations > 0, "{:?}", outcome.first_error);
}

#[test]
fn a_mirrored_pair_in_this_process_is_driven_once_it_is_in_sync() {
    let job = job("read:30,write:60,trim:5,flush:5", Loop::Closed { depth: 4 });
    let outcome = run_on("mirror:24m", 2, job).expect("it runs");
    assert!(outcome.errors == 0 && outcome.measurement.total().operations > 0, "{:?}", outcome.first_error);
}

#[test]
fn an_open_loop_does_what_arrives_and_no_more() {
    let shape = Loop::Open { rate: 2000.0, spacing: Spacing::Even, depth: 64 };
    let outcome = run_on("malloc:8m", 2, job("read", shape)).expect("it runs");
    // 200 are to start in 100 ms; each has a latency, whether it ended in time or not.
    let seen = outcome.measurement.all().count();
    assert!((198..=202).contains(&seen), "{seen} of 200");
}

/// Nothing is answered: what arrives meanwhile is counted, with the time that it has waited.
#[test]
fn what_an_open_loop_could_not_start_counts_as_slow() {
    let core = core();
    let disk = bdev::malloc::MallocBdev::new(
        "disk",
        uuid::Uuid::nil(),
        bdev::Geometry { block_size: 512, physical_block_size: 4096, blocks: 16_384 },
    );
    let slow = FaultBdev::new("slow", "Fault disk", uuid::Uuid::nil(), disk);
    slow.plan().set_latency(FaultTarget::Read, Duration::from_millis(60));
    let channel = bdev::Bdev::open(slow, &core).expect("a channel");
    let opened = vec![Opened { name: "slow".to_owned(), channel }];
    let shape = Loop::Open { rate: 1000.0, spacing: Spacing::Even, depth: 1 };
    let outcome =
        run(core, MonotonicClock::start(), opened, job("read", shape), IdlePolicy::default(), &mut Nobody)
            .expect("it runs");
    assert!(outcome.unstarted > 50, "{} were left", outcome.unstarted);
    assert!(outcome.measurement.layer(Layer::Schedule).max() > 30_000.0, "microseconds in the queue");
    assert!(outcome.measurement.all().count() >= 95, "each of the hundred that were to start is seen");
}

#[test]
fn a_workload_that_does_not_fit_is_refused_with_the_sessions_name() {
    let mut job = job("read", Loop::Closed { depth: 1 });
    job.workload.span = Some("1g".parse().expect("a size"));
    let error = run_on("malloc:8m", 1, job).expect_err("it does not fit").to_string();
    assert!(error.starts_with("malloc:8m session 0: the device has 8388608 bytes"), "{error}");
}

#[test]
fn a_portal_where_nobody_listens_is_given_up_in_time() {
    let mut job = job("read", Loop::Closed { depth: 1 });
    job.patience = Duration::from_millis(100);
    let error = run_on("iscsi://127.0.0.1:9/iqn.2026-11.example:none/0", 1, job).expect_err("nobody listens");
    assert!(matches!(error, RunError::NobodyServes(..)), "{error}");
}
