use alloc::vec::Vec;

use super::*;

const ISID: [u8; 6] = [0x80, 1, 2, 3, 4, 5];

fn nexus(name: &str, port: u16) -> Nexus {
    Nexus { initiator: InitiatorPort::new(name, ISID).expect("a name"), port }
}

fn a() -> Nexus {
    nexus("iqn.a", 1)
}

fn b() -> Nexus {
    nexus("iqn.b", 1)
}

fn c() -> Nexus {
    nexus("iqn.c", 0x8001)
}

const PORTS: [u16; 2] = [1, 0x8001];

/// A parameter list as SPC-4 lays it out.
fn list(key: u64, new_key: u64, flags: u8) -> Vec<u8> {
    let mut bytes = [key.to_be_bytes(), new_key.to_be_bytes(), [0; 8]].concat();
    bytes[20] = flags;
    bytes
}

fn try_out(table: &Table, nexus: &Nexus, action: Action, kind: u8, list: &[u8]) -> Result<Change, Refusal> {
    table.change(nexus, action, ScopeType(kind), &Parameters::parse(action, list)?, &PORTS.into())
}

fn out(table: &mut Table, nexus: &Nexus, action: Action, kind: Kind, keys: (u64, u64)) -> Change {
    let change = try_out(table, nexus, action, kind as u8, &list(keys.0, keys.1, 0)).expect("allowed");
    *table = change.next.clone();
    assert_eq!(Table::from_record(&table.to_record()), Ok(table.clone()), "the record is faithful");
    change
}

/// All three registered, with keys 1, 2, 3.
fn registered() -> Table {
    let mut table = Table::default();
    for (nexus, key) in [(a(), 1), (b(), 2), (c(), 3)] {
        out(&mut table, &nexus, Action::Register, Kind::WriteExclusive, (0, key));
    }
    table
}

fn conflicts(table: &Table, nexus: &Nexus, action: Action, kind: Kind, keys: (u64, u64)) {
    let refused = try_out(table, nexus, action, kind as u8, &list(keys.0, keys.1, 0));
    assert_eq!(refused, Err(Refusal::Conflict), "{action:?} {keys:?}");
}

fn told(change: &Change) -> Vec<(Nexus, u16)> {
    change.attentions.iter().map(|(nexus, sense)| (nexus.clone(), sense.asc_ascq)).collect()
}

#[test]
fn a_key_is_registered_changed_and_removed_by_who_knows_it() {
    let mut table = Table::default();
    conflicts(&table, &a(), Action::Register, Kind::WriteExclusive, (7, 8));
    out(&mut table, &a(), Action::Register, Kind::WriteExclusive, (0, 8));
    conflicts(&table, &a(), Action::Register, Kind::WriteExclusive, (7, 9));
    out(&mut table, &a(), Action::Register, Kind::WriteExclusive, (8, 9));
    out(&mut table, &a(), Action::RegisterAndIgnore, Kind::WriteExclusive, (77, 10));
    assert_eq!((table.generation(), table.registrations().count()), (3, 1));
    out(&mut table, &a(), Action::Register, Kind::WriteExclusive, (10, 0));
    assert_eq!((table.generation(), table.is_empty()), (4, true));
    // Nothing to remove: nothing changes.
    out(&mut table, &a(), Action::Register, Kind::WriteExclusive, (0, 0));
    assert_eq!(table.generation(), 4);
}

#[test]
fn all_target_ports_and_named_initiators_are_registered_at_once() {
    let mut table = Table::default();
    let mut bytes = list(0, 5, 0x08 | 0x04 | 0x01);
    let id = transport::encode(&b().initiator);
    bytes.extend_from_slice(&u32::try_from(id.len()).expect("short").to_be_bytes());
    bytes.extend_from_slice(&id);
    table = try_out(&table, &a(), Action::Register, 0, &bytes).expect("allowed").next;
    let nexuses: Vec<Nexus> = table.registrations().map(|(nexus, _)| nexus.clone()).collect();
    let all = [nexus("iqn.a", 1), nexus("iqn.a", 0x8001), nexus("iqn.b", 1), nexus("iqn.b", 0x8001)];
    assert_eq!(nexuses, all);
    // PRgeneration begins anew with a power on, whatever is kept (SPC-5 section 6.15.2).
    let after = table.clone().after_power_loss();
    assert_eq!((table.generation(), after.generation()), (1, 0));
    assert_eq!(Table { generation: 1, ..after }, table);
    // SPEC_I_PT once more, from a nexus that is registered by now; and with another service action.
    let parameter = |at| Err(Refusal::Check(Sense::invalid_parameter_byte(at)));
    bytes[7] = 5;
    assert_eq!(try_out(&table, &a(), Action::Register, 0, &bytes), parameter(20));
    assert_eq!(try_out(&table, &a(), Action::RegisterAndIgnore, 0, &bytes), parameter(20));
    // Nor with an empty list; and where there is nothing to register nobody looks at the list.
    let mut none = list(5, 6, 0x08);
    none.extend_from_slice(&[0; 4]);
    assert_eq!(try_out(&table, &a(), Action::Register, 0, &none), parameter(20));
    bytes[7] = 0;
    bytes[15] = 0;
    assert_eq!(
        try_out(&table, &c(), Action::Register, 0, &bytes).map(|change| change.next),
        Ok(table.clone())
    );
    bytes.pop();
    let short = Err(Refusal::Check(Sense::PARAMETER_LENGTH));
    assert_eq!(try_out(&table, &a(), Action::Register, 0, &bytes), short);
    assert_eq!(try_out(&table, &a(), Action::Clear, 0, &list(5, 0, 0)[..23]), short);
}

/// Who is registered keeps its key: it is nobody else's to change (SPC-5 section 5.13.7, table 67).
#[test]
fn an_initiator_that_is_registered_cannot_be_named_again() {
    let mut table = Table::default();
    out(&mut table, &b(), Action::Register, Kind::WriteExclusive, (0, 2));
    let naming = |others: &[Nexus], flags: u8| {
        let ids: Vec<u8> = others.iter().flat_map(|nexus| transport::encode(&nexus.initiator)).collect();
        let mut bytes = list(0, 5, 0x08 | flags);
        bytes.extend_from_slice(&u32::try_from(ids.len()).expect("short").to_be_bytes());
        bytes.extend_from_slice(&ids);
        bytes
    };
    let registering = |nexus: &Nexus, bytes: &[u8]| try_out(&table, nexus, Action::Register, 0, bytes);
    let second = 28 + u16::try_from(transport::encode(&c().initiator).len()).expect("short");
    let refused = Err(Refusal::Check(Sense::invalid_parameter_byte(second)));
    assert_eq!(registering(&a(), &naming(&[c(), b()], 0)), refused, "and nobody is registered");
    // Through another port it is another nexus, but not when all of them are meant.
    let far = nexus("iqn.a", 0x8001);
    assert_eq!(registering(&far, &naming(&[c(), b()], 0x04)), refused);
    let next = registering(&far, &naming(&[c(), b()], 0)).expect("allowed").next;
    let keys: Vec<(Nexus, u64)> = next.registrations().map(|(nexus, key)| (nexus.clone(), key)).collect();
    assert_eq!(keys, [(far, 5), (b(), 2), (nexus("iqn.b", 0x8001), 5), (c(), 5)]);
    // Whoever names itself is registered once.
    assert_eq!(registering(&a(), &naming(&[a()], 0)).expect("allowed").next.registrations().count(), 2);
}

#[test]
fn a_reservation_is_held_and_released_by_its_holder() {
    for kind in Kind::ALL {
        let mut table = registered();
        let generation = table.generation();
        conflicts(&table, &a(), Action::Reserve, kind, (2, 0));
        out(&mut table, &a(), Action::Reserve, kind, (1, 0));
        out(&mut table, &a(), Action::Reserve, kind, (1, 0));
        assert_eq!(table.generation(), generation, "RESERVE does not count");
        assert_eq!(table.reservation(), Some((kind, if kind.is_of_all() { 0 } else { 1 })));
        let other = Kind::ALL.into_iter().find(|other| *other != kind).expect("six types");
        conflicts(&table, &a(), Action::Reserve, other, (1, 0));
        assert_eq!(table.holds(&b()), kind.is_of_all());
        let wrong = try_out(&table, &a(), Action::Release, other as u8, &list(1, 0, 0));
        assert_eq!(wrong, Err(Refusal::Check(Sense::INVALID_RELEASE)));
        if !kind.is_of_all() {
            conflicts(&table, &b(), Action::Reserve, kind, (2, 0));
            // Not the holder: GOOD, and nothing happens.
            out(&mut table, &b(), Action::Release, kind, (2, 0));
            assert!(table.holds(&a()));
        }
        let change = out(&mut table, &a(), Action::Release, kind, (1, 0));
        let told = told(&change);
        assert_eq!(told, if kind.admits_registrants() { vec_of(&[b(), c()], 0x2a04) } else { Vec::new() });
        assert_eq!(table.reservation(), None);
    }
    let scope = try_out(&registered(), &a(), Action::Reserve, 0x21, &list(1, 0, 0));
    assert_eq!(scope, Err(Refusal::Check(Sense::invalid_cdb_byte(2))));
    let kind = try_out(&registered(), &a(), Action::Reserve, 2, &list(1, 0, 0));
    assert_eq!(kind, Err(Refusal::Check(Sense::invalid_cdb_byte(2))));
}

fn vec_of(nexuses: &[Nexus], code: u16) -> Vec<(Nexus, u16)> {
    nexuses.iter().map(|nexus| (nexus.clone(), code)).collect()
}

#[test]
fn who_unregisters_drops_what_it_holds() {
    for kind in Kind::ALL {
        let mut table = registered();
        out(&mut table, &a(), Action::Reserve, kind, (1, 0));
        let change = out(&mut table, &a(), Action::Register, kind, (1, 0));
        assert_eq!(table.reservation().is_some(), kind.is_of_all(), "{kind:?}");
        let only = matches!(kind, Kind::WriteExclusiveRegistrantsOnly | Kind::ExclusiveAccessRegistrantsOnly);
        assert_eq!(told(&change), if only { vec_of(&[b(), c()], 0x2a04) } else { Vec::new() }, "{kind:?}");
        out(&mut table, &b(), Action::Register, kind, (2, 0));
        out(&mut table, &c(), Action::Register, kind, (3, 0));
        assert_eq!(table.reservation(), None, "nobody is left to hold it");
    }
}

#[test]
fn clear_removes_everything_and_tells_the_others() {
    let mut table = registered();
    out(&mut table, &a(), Action::Reserve, Kind::ExclusiveAccess, (1, 0));
    let change = out(&mut table, &b(), Action::Clear, Kind::WriteExclusive, (2, 0));
    assert_eq!(told(&change), vec_of(&[a(), c()], 0x2a03));
    assert!(table.is_empty() && table.reservation().is_none());
}

#[test]
fn preempt_takes_the_reservation_of_the_key_that_holds_it() {
    let mut table = registered();
    out(&mut table, &a(), Action::Reserve, Kind::WriteExclusive, (1, 0));
    let change = out(&mut table, &b(), Action::PreemptAndAbort, Kind::ExclusiveAccessRegistrantsOnly, (2, 1));
    // The type changed: who stays learns of it, too.
    assert_eq!(told(&change), [(c(), 0x2a04), (a(), 0x2a05)]);
    assert_eq!(change.aborted, [a()].into());
    assert_eq!(table.reservation(), Some((Kind::ExclusiveAccessRegistrantsOnly, 2)));
    assert_eq!(table.registrations().count(), 2);
    // Itself: the reservation is made anew, and the registration stays.
    let change = out(&mut table, &b(), Action::Preempt, Kind::WriteExclusive, (2, 2));
    assert_eq!((table.reservation(), change.aborted.is_empty()), (Some((Kind::WriteExclusive, 2)), true));
    let zero = try_out(&table, &b(), Action::Preempt, 1, &list(2, 0, 0));
    assert_eq!(zero, Err(Refusal::Check(Sense::invalid_parameter_byte(8))));
    conflicts(&table, &b(), Action::Preempt, Kind::WriteExclusive, (2, 77));
}

#[test]
fn preempt_of_a_key_that_holds_nothing_removes_its_registrations() {
    let mut table = registered();
    out(&mut table, &nexus("iqn.d", 1), Action::Register, Kind::WriteExclusive, (0, 3));
    out(&mut table, &a(), Action::Reserve, Kind::WriteExclusiveRegistrantsOnly, (1, 0));
    let change = out(&mut table, &b(), Action::Preempt, Kind::ExclusiveAccess, (2, 3));
    assert_eq!(told(&change), vec_of(&[c(), nexus("iqn.d", 1)], 0x2a05));
    assert_eq!(table.reservation(), Some((Kind::WriteExclusiveRegistrantsOnly, 1)), "it stays");
}

#[test]
fn key_zero_preempts_all_registrants() {
    let mut table = registered();
    out(&mut table, &a(), Action::Reserve, Kind::WriteExclusiveAllRegistrants, (1, 0));
    // A key that is one of many holders' removes its registration alone.
    out(&mut table, &a(), Action::Preempt, Kind::WriteExclusive, (1, 3));
    assert_eq!(table.reservation(), Some((Kind::WriteExclusiveAllRegistrants, 0)));
    let change = out(&mut table, &a(), Action::PreemptAndAbort, Kind::WriteExclusive, (1, 0));
    assert_eq!((told(&change), change.aborted), (vec_of(&[b()], 0x2a05), [b()].into()));
    assert_eq!((table.reservation(), table.registrations().count()), (Some((Kind::WriteExclusive, 1)), 1));
}

#[test]
fn a_reservation_is_moved_to_a_nexus_that_is_named() {
    let mut table = registered();
    let moving = |to: &Nexus, flags: u8, new_key: u64| {
        let mut bytes = list(1, new_key, 0);
        let id = transport::encode(&to.initiator);
        bytes[17] = flags;
        bytes[18..20].copy_from_slice(&to.port.to_be_bytes());
        bytes[20..24].copy_from_slice(&u32::try_from(id.len()).expect("short").to_be_bytes());
        bytes.extend_from_slice(&id);
        bytes
    };
    let d = nexus("iqn.d", 0x8001);
    let none = try_out(&table, &a(), Action::RegisterAndMove, 0, &moving(&d, 0, 4));
    assert_eq!(none, Err(Refusal::Check(Sense::invalid_cdb_byte(1))), "there is nothing to move");
    out(&mut table, &a(), Action::Reserve, Kind::WriteExclusive, (1, 0));
    let refused = |bytes: &[u8]| try_out(&table, &a(), Action::RegisterAndMove, 0, bytes);
    let parameter = |at| Err(Refusal::Check(Sense::invalid_parameter_byte(at)));
    assert_eq!(refused(&moving(&d, 0, 0)), parameter(8));
    assert_eq!(refused(&moving(&a(), 0, 4)), parameter(24), "to itself");
    assert_eq!(
        refused(&moving(&nexus("iqn.a", 0x8001), 0, 4)),
        parameter(24),
        "to itself through another port"
    );
    assert_eq!(refused(&moving(&nexus("iqn.d", 99), 0, 4)), parameter(18), "no such port");
    table = refused(&moving(&d, 0x03, 4)).expect("allowed").next;
    assert_eq!(table.reservation(), Some((Kind::WriteExclusive, 4)));
    assert!(table.holds(&d) && !table.registrations().any(|(nexus, _)| *nexus == a()));
    assert!(!table.clone().after_power_loss().is_empty(), "APTPL of the move");
}

#[test]
fn what_a_reservation_keeps_out() {
    const READ: [u8; 16] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    const WRITE: [u8; 16] = [0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let may = |table: &Table, nexus: &Nexus| {
        let admitted = |cdb| table.admit(nexus, demand(cdb)).is_ok();
        (admitted(&READ), admitted(&WRITE))
    };
    let stranger = nexus("iqn.stranger", 1);
    for (kind, registrant, other) in [
        (Kind::WriteExclusive, (true, false), (true, false)),
        (Kind::ExclusiveAccess, (false, false), (false, false)),
        (Kind::WriteExclusiveRegistrantsOnly, (true, true), (true, false)),
        (Kind::ExclusiveAccessRegistrantsOnly, (true, true), (false, false)),
        (Kind::WriteExclusiveAllRegistrants, (true, true), (true, false)),
        (Kind::ExclusiveAccessAllRegistrants, (true, true), (false, false)),
    ] {
        let mut table = registered();
        assert_eq!(may(&table, &stranger), (true, true), "registrations alone keep nobody out");
        out(&mut table, &a(), Action::Reserve, kind, (1, 0));
        assert_eq!(may(&table, &a()), (true, true), "{kind:?}");
        assert_eq!(may(&table, &b()), registrant, "{kind:?}");
        assert_eq!(may(&table, &stranger), other, "{kind:?}");
        for always in [0x00, 0x03, 0x12, 0x5e, 0x5f, 0xa0, 0x25] {
            let mut cdb = [0; 16];
            cdb[0] = always;
            assert!(table.admit(&stranger, demand(&cdb)).is_ok(), "{always:02x}");
        }
    }
}

#[test]
fn the_older_reservation_excludes_everybody_and_goes_with_its_nexus() {
    let mut table = Table::default();
    table.reserve(&a()).expect("free");
    table.reserve(&a()).expect("again");
    assert_eq!(table.reserve(&b()), Err(Refusal::Conflict));
    let code = |opcode| {
        let mut cdb = [0; 16];
        cdb[0] = opcode;
        demand(&cdb)
    };
    for (opcode, passes) in [(0x00, false), (0x28, false), (0x5e, false), (0x12, true), (0x03, true)] {
        assert_eq!(table.admit(&b(), code(opcode)).is_ok(), passes, "{opcode:02x}");
        table.admit(&a(), code(opcode)).expect("the holder's");
    }
    conflicts(&table, &a(), Action::Register, Kind::WriteExclusive, (0, 1));
    table.release(&b()).expect("GOOD, without effect");
    assert_eq!(table.reserve(&b()), Err(Refusal::Conflict));
    table.forget_older(&a());
    table.reserve(&b()).expect("free");
    table.reset();
    table.reserve(&a()).expect("free");
    let mut table = registered();
    assert_eq!((table.reserve(&a()), table.release(&a())), (Err(Refusal::Conflict), Err(Refusal::Conflict)));
}

#[test]
fn reports_are_laid_out_as_the_standard_says() {
    let mut table = registered();
    out(&mut table, &c(), Action::Reserve, Kind::ExclusiveAccess, (3, 0));
    let can = |power_loss| super::Capabilities { power_loss };
    let report = |report| table.report(report, can(PowerLoss::Persists));
    let keys = report(Report::Keys);
    assert_eq!((&keys[..8], keys.len()), (&[0, 0, 0, 3, 0, 0, 0, 24][..], 32));
    let reservation = report(Report::Reservation);
    assert_eq!(reservation[4..], [0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 3, 0, 0]);
    assert_eq!(report(Report::Capabilities), [0, 8, 0x0d, 0x80, 0xea, 1, 0, 0]);
    assert_eq!(table.report(Report::Capabilities, can(PowerLoss::Forgets))[2], 0x0c);
    let full = report(Report::FullStatus);
    // The third descriptor is the holder's, which came through port 8001h.
    let each = 24 + transport::encode(&c().initiator).len();
    assert_eq!(full.len(), 8 + 3 * each);
    let third = &full[8 + 2 * each..];
    assert_eq!((third[7], third[12], third[13], &third[18..20]), (3, 1, 3, &[0x80, 1][..]));
    assert_eq!(&third[24..28], [0x45, 0, 0, 24]);
    assert_eq!(&third[28..50], b"iqn.c,i,0x800102030405");
}

#[test]
fn transport_ids_survive_both_ways_and_strangers_are_refused() {
    for name in ["iqn.2026-11.org.gemel:host", "eui.0123456789abcdef", &"n".repeat(NAME_MAX)] {
        let port = InitiatorPort::new(name, ISID).expect("a name");
        let bytes = transport::encode(&port);
        assert!(bytes.len().is_multiple_of(4) && bytes.len() >= 24);
        assert_eq!(transport::decode(&bytes), Some((port, bytes.len())));
    }
    let good = transport::encode(&a().initiator);
    for spoilt in [0, 3, 10, good.len() - 8] {
        let mut bytes = good.clone();
        bytes[spoilt] = 0xff;
        assert_eq!(transport::decode(&bytes), None, "{spoilt}");
    }
    assert_eq!(transport::decode(&good[..good.len() - 4]), None);
    assert_eq!(transport::decode(&[]), None);
}

#[test]
fn records_that_could_not_be_are_refused() {
    let mut table = registered();
    out(&mut table, &b(), Action::Reserve, Kind::ExclusiveAccess, (2, 0));
    let record = table.to_record();
    assert_eq!(Table::from_record(&[]), Ok(Table::default()));
    for len in 1..record.len() {
        assert_eq!(Table::from_record(&record[..len]), Err(RecordError), "{len}");
    }
    let mut padded = record.clone();
    padded.extend_from_slice(&[0; 100]);
    assert_eq!(Table::from_record(&padded), Ok(table.clone()));
    for (at, value) in [(0, 9), (8, 2), (12, 3), (11, 9)] {
        let mut spoilt = record.clone();
        spoilt[at] = value;
        assert_eq!(Table::from_record(&spoilt), Err(RecordError), "byte {at}");
    }
    assert_eq!(table.after_power_loss(), Table::default());
}

#[test]
fn registrations_are_bounded() {
    let mut table = Table::default();
    for count in 0..REGISTRATIONS_MAX {
        let nexus = nexus(&alloc::format!("iqn.{count}"), 1);
        out(&mut table, &nexus, Action::Register, Kind::WriteExclusive, (0, 1));
    }
    assert!(table.to_record().len() <= Table::RECORD_MAX);
    let refused = try_out(&table, &a(), Action::Register, 0, &list(0, 1, 0));
    assert_eq!(refused, Err(Refusal::Check(Sense::INSUFFICIENT_REGISTRATION_RESOURCES)));
}
