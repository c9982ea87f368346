//! This project's initiator against tgt: every negotiable choice and both digests. A verifying load judges the data.

use std::time::Duration;

use engine::{Core, MonotonicClock, Pool, PoolConfig, RingConfig, RingHandle, Waker};
use gateway::{Remote, RemoteConfig};
use iscsi::keys::{Choice, DigestPreference};
use net::tcp::{TcpConfig, TcpNetwork};
use perf::{Load, LoadConfig, Mix, Report};
use tests::tgt::{TARGET, Tgt};

fn config(tgt: &Tgt) -> RemoteConfig {
    RemoteConfig { lun: 1, ..RemoteConfig::new("iqn.2026-11.example:initiator", TARGET, tgt.portal) }
}

/// A short verified load over one session.
fn run(config: RemoteConfig, seed: u64) -> Result<Report, String> {
    let pool = Pool::new(PoolConfig::with_memory(16 << 20)).expect("memory");
    let ring = RingHandle::new(RingConfig::default(), &pool, Waker::new().expect("a waker")).expect("a ring");
    let core = Core::new(0, pool, ring);
    let remote = Remote::new("r0", uuid::Uuid::nil(), config);
    let channel = remote.open_over(&core, Box::new(TcpNetwork::new(&core, TcpConfig::default())));
    let load = LoadConfig {
        depth: 8,
        blocks: 128,
        duration: Duration::from_millis(150),
        mix: Mix(40),
        seed,
        patience: Duration::from_secs(2),
    };
    Load::new(core, MonotonicClock::start(), vec![channel], load).run().map_err(|error| error.to_string())
}

fn must_run(config: RemoteConfig, seed: u64, what: &str) {
    let report = run(config, seed).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(report.reads > 0 && report.writes > 0 && report.errors == 0, "{what}: {} errors", report.errors);
    assert!(report.mismatches.is_empty(), "{what}: {:?}", report.mismatches);
}

#[test]
fn every_negotiable_choice_carries_data_whole() {
    let Some(tgt) = Tgt::start() else { return };
    let mut seed = 0;
    for digest in [DigestPreference::Never, DigestPreference::Require] {
        tgt.set_digests(if digest == DigestPreference::Require { "CRC32C" } else { "None" });
        for (initial_r2t, immediate_data) in [
            (Choice::No, Choice::Yes),
            (Choice::No, Choice::No),
            (Choice::Yes, Choice::Yes),
            (Choice::Yes, Choice::No),
        ] {
            for (segment, burst, first) in [(512, 1024, 512), (2048, 8192, 4096), (262_144, 1 << 20, 65_536)]
            {
                seed += 1;
                let mut config = config(&tgt);
                let preferences = &mut config.preferences;
                (preferences.header_digest, preferences.data_digest) = (digest, digest);
                (preferences.initial_r2t, preferences.immediate_data) = (initial_r2t, immediate_data);
                preferences.max_recv_data_segment_length = segment;
                (preferences.max_burst_length, preferences.first_burst_length) = (burst, first);
                let what = format!("{digest:?} {initial_r2t:?} {immediate_data:?} {segment}/{burst}/{first}");
                must_run(config, seed, &what);
            }
        }
    }
}

#[test]
fn sessions_that_come_again_replace_their_predecessors() {
    let Some(tgt) = Tgt::start() else { return };
    for seed in 0..3 {
        must_run(config(&tgt), 200 + seed, "again");
    }
    let sessions = tgt.must(&["--op", "show", "--mode", "target"]);
    assert!(sessions.matches("I_T nexus:").count() <= 1, "{sessions}");
}
