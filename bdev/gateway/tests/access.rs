//! Who gets in, what he sees, and where he is sent.

mod host;

use core::net::SocketAddr;
use std::time::Duration;

use bdev::fault::{Fault, FaultTarget};
use gateway::{
    AuthPolicy, InitiatorGroup, Limits, LunMask, Map, Portal, PortalGroup, Redirect, User, Visibility,
};
use host::{GOOD, Host, TARGET, World, attention, portal};
use iscsi::Moved;
use iscsi::chap::{Account, Algorithm, Challenge, Credential, Proving, Requirement, Secret};
use iscsi::initiator::Event;
use net::Network;

fn group(tag: i32, initiators: &[&str], netmasks: &[&str]) -> InitiatorGroup {
    let initiators = initiators.iter().map(|name| (*name).to_owned()).collect();
    let netmasks = netmasks.iter().map(|mask| mask.parse().expect("a network")).collect();
    InitiatorGroup { tag, initiators, netmasks }
}

fn only(luns: &[u16]) -> LunMask {
    LunMask::Only(luns.iter().copied().collect())
}

/// Numbers that REPORT LUNS lists.
fn luns_seen(world: &mut World, host: usize) -> Vec<u8> {
    let task = world.hosts[host].send(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[], 256);
    assert_eq!(world.end(host, task), GOOD);
    let data = world.hosts[host].data(task);
    let len = u32::from_be_bytes(data[..4].try_into().expect("four bytes")) as usize;
    data[8..8 + len].chunks(8).map(|lun| lun[1]).collect()
}

/// What a discovery session is told at a portal.
fn discovered(world: &mut World, at: SocketAddr, host: u8) -> String {
    let finder = world.add_at(at, host, |config| config.target = None);
    world.until("a discovery session", |world| world.hosts[finder].is_in());
    world.hosts[finder].connection().send_targets("All");
    let text = |host: &Host| {
        host.events.iter().find_map(|event| match event {
            Event::Text(text) => Some(String::from_utf8_lossy(text).replace('\0', "\n")),
            _ => None,
        })
    };
    world.until("an answer", |world| text(&world.hosts[finder]).is_some());
    let text = text(&world.hosts[finder]).expect("waited for");
    world.hosts.remove(finder);
    text
}

#[test]
fn each_initiator_sees_its_luns_and_no_others() {
    let mut world = World::empty();
    world.target.remove_map(TARGET, 1, 1).expect("it was there");
    world.target.add_initiator_group(group(2, &["iqn.2026-11.example:H1"], &["ANY"])).expect("new");
    world
        .target
        .add_initiator_group(group(3, &["!iqn.2026-11.example:h3", "ANY"], &["10.0.0.0/24"]))
        .expect("new");
    world.target.add_map(TARGET, Map { luns: only(&[1]), ..Map::new(1, 2) }).expect("new");
    world.target.add_map(TARGET, Map { luns: only(&[0]), ..Map::new(1, 3) }).expect("new");
    world.target.add_map(TARGET, Map::new(1, 3)).expect_err("mapped already");
    for index in [1, 2, 3] {
        world.add(index, |_| {});
    }
    world.until("logins", |world| {
        world.hosts[0].is_in() && world.hosts[1].is_in() && world.hosts[2].closed().is_some()
    });
    assert_eq!(
        world.hosts[2].closed().as_deref(),
        Some("login refused: this initiator may not use the target (status 0x0202)")
    );
    assert_eq!(luns_seen(&mut world, 0), [0, 1], "both groups know it");
    assert_eq!(luns_seen(&mut world, 1), [0]);
    let hidden = world.hosts[1].send_to(1, &[0; 6], &[], 0);
    assert_eq!(world.end(1, hidden), attention(0x2500), "logical unit not supported");
    assert_eq!(world.managed(1, 5, scsi::lun::encode(1), None), 2, "nor can it be reset");
    let hidden = world.hosts[1].send_to(1, &[0x12, 0, 0, 0, 36, 0], &[], 36);
    assert_eq!(world.end(1, hidden), GOOD);
    assert_eq!(world.hosts[1].data(hidden)[0], 0x7f, "INQUIRY says that there is nothing");
    assert!(!discovered(&mut world, portal(3260), 3).contains(TARGET));
    assert!(discovered(&mut world, portal(3260), 2).contains(TARGET));
    // Who is taken off the list goes.
    world.target.add_initiators(3, vec!["!iqn.2026-11.example:h2".into()], Vec::new()).expect("there");
    world.until("the end of one", |world| world.hosts[1].closed().is_some());
    world.target.remove_initiators(3, &["nobody".into()], &[]).expect_err("not listed");
    world.target.remove_initiators(3, &["!iqn.2026-11.example:h2".into()], &[]).expect("listed");
    let again = world.add(2, |_| {});
    world.until("a login", |world| world.hosts[again].is_in());
    world.target.remove_initiators(3, &["ANY".into()], &[]).expect("listed");
    world.until("the end of it", |world| world.hosts[again].closed().is_some());
    world.run_for(Duration::from_millis(10));
    assert!(world.hosts[0].closed().is_none());
}

/// What a login says of its InitiatorAlias decides.
#[test]
fn an_alias_may_be_listed_and_kept_out() {
    let mut world = World::empty();
    world.target.remove_map(TARGET, 1, 1).expect("it was there");
    let listed = group(2, &["!alias:old", "alias:db", "iqn.2026-11.example:h3"], &["10.0.0.0/24"]);
    world.target.add_initiator_group(listed).expect("new");
    world.target.add_map(TARGET, Map::new(1, 2)).expect("new");
    let says = [(0, Some("db")), (1, Some("web")), (2, None), (3, Some("old")), (4, Some("DB")), (3, None)];
    for (index, alias) in says {
        world.add(index, |config| config.alias = alias.map(str::to_owned));
        world.until("a decision", |world| {
            world.hosts.last().is_some_and(|host| host.is_in() || host.closed().is_some())
        });
    }
    let inside: Vec<bool> = world.hosts.iter().map(Host::is_in).collect();
    assert_eq!(inside, [true, false, false, false, false, true]);
}

#[test]
fn a_network_may_be_kept_out() {
    let mut world = World::empty();
    world.target.remove_map(TARGET, 1, 1).expect("it was there");
    // Host N has the address 10.0.0.(2 + N).
    world.target.add_initiator_group(group(2, &["ANY"], &["!10.0.0.3", "10.0.0.0/29"])).expect("new");
    world.target.add_map(TARGET, Map::new(1, 2)).expect("new");
    for index in [0, 1, 6] {
        world.add(index, |_| {});
    }
    world.until("decisions", |world| world.hosts.iter().all(|host| host.is_in() || host.closed().is_some()));
    let inside: Vec<bool> = world.hosts.iter().map(Host::is_in).collect();
    assert_eq!(inside, [true, false, false]);
}

#[test]
fn discovery_tells_of_portals_that_can_be_reached() {
    let mut world = World::empty();
    let advertised = "192.0.2.9:3333".parse().expect("address");
    let nat = Portal { address: portal(3261), advertised: Some(advertised) };
    world
        .target
        .add_portal_group(&PortalGroup { portals: vec![nat], ..PortalGroup::new(2, []) })
        .expect("listening");
    let hidden = PortalGroup { visibility: Visibility::Private, ..PortalGroup::new(3, [portal(3262)]) };
    world.target.add_portal_group(&hidden).expect("listening");
    world
        .target
        .add_portal_group(&PortalGroup::new(4, ["0.0.0.0:3263".parse().expect("address")]))
        .expect("listening");
    world.target.add_waiting_portal_group(&PortalGroup::new(5, [portal(3264)])).expect("new");
    for tag in [2, 3, 4] {
        world.target.add_map(TARGET, Map::new(tag, 1)).expect("new");
    }
    let told = discovered(&mut world, portal(3260), 0);
    assert_eq!(
        told,
        format!(
            "TargetName={TARGET}\nTargetAddress=10.0.0.1:3260,1\nTargetAddress=192.0.2.9:3333,2\nTargetAddress=10.0.0.1:3263,4\n"
        )
    );
    let inside = discovered(&mut world, portal(3262), 0);
    assert!(inside.contains("10.0.0.1:3262,3") && inside.contains("10.0.0.1:3260,1"), "{inside}");
    // A group that waits does not listen before it is told to.
    let end = world.network.host([10, 0, 0, 9].into());
    let mut early = end.connect(portal(3264));
    world.run_for(Duration::from_millis(10));
    let _ = early.poll(world.now);
    assert!(matches!(early.status(), net::StreamStatus::Closed(_)));
    world.target.start_portal_group(5).expect("it waits");
    world.target.start_portal_group(5).expect_err("it listens");
    let at = world.add_at(portal(3264), 0, |_| {});
    world.until("a refusal", |world| world.hosts[at].closed().is_some());
    assert!(world.hosts[at].closed().expect("over").contains("no such target at this portal"));
}

#[test]
fn a_redirected_initiator_learns_where_to_go() {
    let mut world = World::new(1);
    let to = |how| Some(Redirect { address: portal(3261), how });
    world.target.set_redirect(TARGET, 2, to(Moved::Temporarily)).expect_err("not shown there");
    world.target.set_redirect(TARGET, 1, to(Moved::Permanently)).expect("shown");
    let sent = world.add(3, |_| {});
    world.until("an answer", |world| world.hosts[sent].closed().is_some());
    assert!(world.hosts[sent].closed().expect("over").contains("0x0102"));
    world.target.set_redirect(TARGET, 1, to(Moved::Temporarily)).expect("shown");
    let sent = world.add(1, |_| {});
    world.until("an answer", |world| world.hosts[sent].closed().is_some());
    let closed = world.hosts[sent].closed().expect("over");
    assert!(closed.contains("10.0.0.1:3261") && closed.contains("0x0101"), "{closed}");
    assert_eq!(world.ready(0), GOOD, "sessions go on");
    world.target.request_logouts(TARGET, Some(2)).expect("there");
    world.target.request_logouts(TARGET, Some(1)).expect("there");
    world.until("a request", |world| {
        world.hosts[0].events.iter().any(|event| matches!(event, Event::LogoutRequested { seconds: 5 }))
    });
    world.target.set_redirect(TARGET, 1, None).expect("shown");
    let back = world.add(2, |_| {});
    world.until("a login", |world| world.hosts[back].is_in());
}

#[test]
fn a_flood_of_logins_stops_neither_sessions_nor_other_hosts() {
    let mut world = World::new(1);
    let limits = Limits { logins: 8, logins_per_address: 4, login_burst: 1000, ..Limits::default() };
    world.target.set_config(gateway::TargetConfig { limits, ..world.target.config() });
    let end = world.network.host([10, 0, 0, 99].into());
    let mut flood: Vec<_> = (0..300).map(|_| end.connect(portal(3260))).collect();
    for round in 0..50 {
        let write = world.write(0);
        assert_eq!(world.end(0, write), GOOD, "round {round}");
        for stream in &mut flood {
            let _ = stream.poll(world.now);
        }
        assert!(world.target.connections().len() <= 1 + 4);
    }
    let honest = world.add(1, |_| {});
    world.until("a login beside the flood", |world| world.hosts[honest].is_in());
    // Those that are left go when their time is up.
    world.run_for(Duration::from_millis(1));
    world.now += limits.login_timeout;
    world.until("the end of slow logins", |world| world.target.connections().len() == 2);
    assert_eq!(world.ready(0), GOOD);
}

#[test]
fn sessions_have_a_limit_and_a_successor_counts_as_none() {
    let mut world = World::new(2);
    let limits = Limits { sessions: 2, ..Limits::default() };
    world.target.set_config(gateway::TargetConfig { limits, ..world.target.config() });
    let third = world.add(2, |_| {});
    world.until("a refusal", |world| world.hosts[third].closed().is_some());
    assert!(world.hosts[third].closed().expect("over").contains("out of resources"));
    let again = world.add(0, |_| {});
    world.until("a reinstatement", |world| world.hosts[again].is_in());
    world.until("the end of the old one", |world| world.hosts[0].closed().is_some());
}

#[test]
fn a_map_is_taken_back_while_sessions_run() {
    let mut world = World::new(1);
    world.target.remove_map(TARGET, 1, 7).expect_err("there is none");
    world.target.remove_map(TARGET, 1, 1).expect("it is there");
    world.until("the end of the session", |world| world.hosts[0].closed().is_some());
}

#[test]
fn what_is_no_name_gets_no_session() {
    let mut world = World::new(1);
    world.target.add_initiator_group(group(2, &["ANY"], &["ANY"])).expect("new");
    world.target.add_map(TARGET, Map::new(1, 2)).expect("new");
    let longest = format!("iqn.2026-11.example:{}", "x".repeat(203));
    let names = [
        longest.clone(),
        format!("{longest}x"),
        "x".repeat(8000),
        "iqn.2026-11.example:a\nb".into(),
        "host".into(),
    ];
    for name in names {
        let host = world.add(1, |config| config.initiator = name.clone());
        world.until("a decision", |world| world.hosts[host].is_in() || world.hosts[host].closed().is_some());
        match world.hosts[host].closed() {
            None => assert_eq!(name, longest),
            Some(why) => assert!(why.contains("0x0200"), "{name:?}: {why}"),
        }
    }
    let host = world.add(2, |config| config.target = Some("x".repeat(8000)));
    world.until("a decision", |world| world.hosts[host].closed().is_some());
    assert!(world.hosts[host].closed().expect("over").contains("0x0203"));
    // Whoever is in with the longest of names may register it.
    let register = world.hosts[1].send(
        &[0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0],
        &[&[0; 8][..], &5u64.to_be_bytes(), &[0; 8]].concat(),
        0,
    );
    assert_eq!(world.end(1, register), GOOD);
}

#[test]
fn names_compare_without_case() {
    let mut world = World::new(1);
    let loud = world.add(1, |config| {
        config.initiator = "IQN.2026-11.EXAMPLE:H0".into();
        config.target = Some(TARGET.to_ascii_uppercase());
    });
    world.until("a login", |world| world.hosts[loud].is_in());
    // The same initiator, with the same ISID, at the same target: its session is reinstated.
    world.until("the end of the other", |world| world.hosts[0].closed().is_some());
    assert_eq!(world.target.connections().len(), 1);
}

/// What an initiator may see changes while it is in: commands at what is gone end, and of the rest it is told.
#[test]
fn a_session_sees_what_it_may_see_now() {
    let mut world = World::empty();
    world.target.add_initiator_group(group(2, &["iqn.2026-11.example:h0"], &["ANY"])).expect("new");
    world.target.remove_map(TARGET, 1, 1).expect("it was there");
    world.target.add_initiator_group(group(3, &["iqn.2026-11.example:h0"], &["ANY"])).expect("new");
    world.target.add_map(TARGET, Map { luns: only(&[1]), ..Map::new(1, 2) }).expect("new");
    world.target.add_map(TARGET, Map { luns: only(&[0]), ..Map::new(1, 3) }).expect("new");
    world.add(0, |_| {});
    world.until("a login", |world| world.hosts[0].is_in());
    assert_eq!(luns_seen(&mut world, 0), [0, 1]);
    // A write that the medium keeps, at the LUN that goes.
    world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
    let held = world.write(0);
    world.until("the write is under way", |world| world.target.luns()[0].active == 1);
    world.target.remove_map(TARGET, 1, 3).expect("there");
    world.run_for(Duration::from_millis(100));
    assert_eq!(world.hosts[0].take(held), None, "it may still land");
    let other = |world: &mut World| {
        let task = world.hosts[0].send_to(1, &[0; 6], &[], 0);
        world.end(0, task)
    };
    assert_eq!((other(&mut world), other(&mut world)), (attention(0x3f0e), GOOD));
    assert_eq!(luns_seen(&mut world, 0), [1]);
    assert_eq!(world.ready(0), attention(0x2500));
    world.fault.plan().clear(FaultTarget::Write);
    assert_eq!(world.end(0, held), attention(0x2500), "logical unit not supported");
    world.run_for(Duration::from_millis(10));
    assert_eq!(world.target.luns()[0].active, 0);
    // It comes back, and that is told too.
    world.target.add_map(TARGET, Map { luns: only(&[0]), ..Map::new(1, 3) }).expect("new");
    world.run_for(Duration::from_millis(1));
    assert_eq!(other(&mut world), attention(0x3f0e));
    assert_eq!((luns_seen(&mut world, 0), world.ready(0), other(&mut world)), (vec![0, 1], GOOD, GOOD));
    assert!(world.hosts[0].closed().is_none());
}

/// One host cannot take every place, whether it logs in or only asks what there is.
#[test]
fn one_address_and_one_initiator_leave_places_to_others() {
    let mut world = World::new(1);
    let limits = Limits {
        connections_per_address: 6,
        discovery_per_address: 2,
        sessions_per_initiator: 3,
        ..Limits::default()
    };
    world.target.set_config(gateway::TargetConfig { limits, ..world.target.config() });
    let decided =
        |world: &World, host: usize| world.hosts[host].is_in() || world.hosts[host].closed().is_some();
    let join = |world: &mut World, at: u8, change: &dyn Fn(&mut iscsi::initiator::Config)| {
        let host = world.add(at, |config| change(config));
        world.until("a decision", |world| decided(world, host));
        world.hosts[host].is_in()
    };
    // Discovery sessions of one address, under whatever name.
    let finds = |world: &mut World, at: u8, number: u8| {
        join(world, at, &|config| {
            config.target = None;
            config.initiator = format!("iqn.2026-11.example:finder{number}");
        })
    };
    let found: Vec<bool> = (0..3).map(|number| finds(&mut world, 7, number)).collect();
    assert_eq!((found, finds(&mut world, 8, 9)), (vec![true, true, false], true));
    // Sessions of one name, wherever it is.
    let named = |world: &mut World, at: u8, isid: u8| {
        join(world, at, &|config| {
            config.initiator = "iqn.2026-11.example:h3".into();
            config.isid[5] = isid;
        })
    };
    let named: Vec<bool> = [(3, 1), (4, 2), (5, 3), (3, 4), (3, 1)]
        .into_iter()
        .map(|(at, isid)| named(&mut world, at, isid))
        .collect();
    assert_eq!(named, [true, true, true, false, true], "one more, and one that replaces its own");
    // Connections of one address.
    let all: Vec<bool> =
        (0..7).map(|isid| join(&mut world, 0, &|config| config.isid[5] = 40 + isid)).collect();
    assert!(!all[6] && all[0], "{all:?}");
    let crowd = world.target.crowd();
    assert_eq!((crowd.discovery_per_address, crowd.sessions_per_initiator), (2, 3));
    assert!(crowd.connections_per_address <= 6, "{crowd:?}");
    assert!(join(&mut world, 6, &|_| {}), "another host");
}

/// A host that logs in again and again, has its sessions kept for as long as they may be, and hangs up.
#[test]
fn sessions_that_nobody_is_connected_to_keep_nobody_out() {
    let enter = |world: &mut World, at: u8, isid: u8, level: u32| {
        let host = world.add(at, |config| {
            config.initiator = format!("iqn.2026-11.example:a{at}");
            config.isid[5] = isid;
            config.preferences.error_recovery_level = level;
            (config.preferences.default_time2wait, config.preferences.default_time2retain) = (3600, 20);
        });
        world.until("a decision", |world| world.hosts[host].is_in() || world.hosts[host].closed().is_some());
        (world.hosts[host].is_in(), host)
    };
    let leave = |world: &mut World, host: usize| {
        world.hosts[host].hang_up();
        world.run_for(Duration::from_millis(5));
    };
    let usual =
        Limits { connections_per_address: 9, sessions: 9, sessions_per_initiator: 9, ..Limits::default() };
    // Of all, of one initiator, of one address.
    for limits in [
        Limits { sessions: 3, ..usual },
        Limits { sessions_per_initiator: 2, ..usual },
        Limits { connections_per_address: 2, ..usual },
    ] {
        let mut world = World::empty();
        world.target.set_config(gateway::TargetConfig { limits, ..world.target.config() });
        let (is_in, other) = enter(&mut world, 9, 1, 2);
        assert!(is_in);
        // It has a write open: it goes later than those that have none.
        world.fault.plan().arm(FaultTarget::Write, Fault::Silence, 1);
        world.write(other);
        world.run_for(Duration::from_millis(5));
        leave(&mut world, other);
        for isid in 1..=6 {
            let (is_in, host) = enter(&mut world, 3, isid, 2);
            assert!(is_in, "{limits:?}: session {isid}");
            leave(&mut world, host);
        }
        let (is_in, late) = enter(&mut world, 5, 1, 0);
        assert!(is_in, "{limits:?}: somebody else");
        assert_eq!(world.ready(late), GOOD, "{limits:?}");
        world.fault.plan().clear(FaultTarget::Write);
        world.run_for(Duration::from_millis(5));
        assert_eq!(world.target.luns()[0].active, 1, "{limits:?}: its answer is kept");
    }
}

/// Discovery sessions need no secret, and sessions of hosts have their places beside however many of them.
#[test]
fn discovery_sessions_are_few_in_all_and_end_when_they_ask_for_nothing() {
    let mut world = World::new(1);
    let limits = Limits { connections: 20, ..Limits::default() };
    world.target.set_config(gateway::TargetConfig { limits, ..world.target.config() });
    let finders: Vec<usize> = (10..40)
        .map(|at| {
            let finder = world.add(at, |config| config.target = None);
            world.until("a discovery session", |world| world.hosts[finder].is_in());
            finder
        })
        .collect();
    world.run_for(Duration::from_millis(20));
    let open = |world: &World| finders.iter().filter(|host| world.hosts[**host].closed().is_none()).count();
    assert_eq!(open(&world), 16, "the oldest have gone");
    let late = world.add(5, |_| {});
    world.until("a login", |world| world.hosts[late].is_in());
    // One of them asks, and stays; the others answer pings, and do not.
    let asking = *finders.last().expect("some");
    let pass = |world: &mut World, seconds: u32| {
        for _ in 0..200 * seconds {
            world.now += Duration::from_millis(5);
            world.step();
        }
    };
    pass(&mut world, 20);
    world.hosts[asking].connection().send_targets("All");
    pass(&mut world, 12);
    assert_eq!((open(&world), world.hosts[asking].closed()), (1, None));
    pass(&mut world, 20);
    assert_eq!((open(&world), world.hosts[late].closed()), (0, None));
}

/// A user who is tied to a name is good for no other one: neither to begin a session, nor to join or replace another host's.
#[test]
fn a_user_who_is_tied_to_an_initiator_is_no_other_one() {
    let account = |user: &str| {
        let secret = Secret::new(format!("the secret of {user}").into_bytes()).expect("a secret");
        Account::new(Credential { name: user.into(), secret }, None).expect("one secret")
    };
    let name = |host: u8| format!("iqn.2026-11.example:h{host}");
    let tied = |user: &str, host: u8| User { account: account(user), initiators: vec![name(host)] };
    let mut world = World::empty();
    let users = vec![tied("a", 0), tied("b", 1), account("any").into()];
    world.target.add_auth_group(1, users).expect("new");
    let policy = AuthPolicy { requirement: Requirement::Required, group: 1 };
    world.target.set_node_auth(TARGET, policy).expect("both are there");
    let mut enters = |user: &str, as_host: u8| {
        let host = world.add(as_host, |config| {
            let challenge = Challenge { id: 1, bytes: [7; 32] };
            let algorithms = vec![Algorithm::Md5];
            config.credentials = Some(Proving { account: account(user), challenge, algorithms });
        });
        world.until("a decision", |world| world.hosts[host].is_in() || world.hosts[host].closed().is_some());
        (world.hosts[host].is_in(), world.hosts[0].closed().is_none())
    };
    assert_eq!(enters("a", 0), (true, true));
    assert_eq!(enters("b", 0), (false, true), "his own secret, and another's name");
    assert_eq!(enters("b", 1), (true, true));
    assert_eq!(enters("any", 2), (true, true), "who is tied to none is good for all, as before");
    assert_eq!(enters("a", 2), (false, true));
}
