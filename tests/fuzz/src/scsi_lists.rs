//! SCSI: command descriptor blocks and the parameter lists that come with them.

use scsi::alua::{self, Management, PortGroup, PortState, SetBy};
use scsi::identifying::{self, Identifying};
use scsi::kept::Kept;
use scsi::mode::Settings;
use scsi::reservation::{Action, Parameters, Table};
use scsi::thresholds::Thresholds;
use scsi::{
    Accounting, Encryption, Identity, Medium, Provisioning, Queries, SenseFormat, Unit, WriteCache,
    WriteProtection, ZeroCount,
};

fn unit() -> Unit {
    Unit {
        identity: Identity {
            vendor: "GEMEL".to_owned(),
            product: "Mirrored LUN".to_owned(),
            revision: "0001".to_owned(),
            serial: "0123456789abcdef".to_owned(),
            naa: 3 << 60 | 7,
            relative_port: 1,
            port_group: 1,
            port_name: "iqn.2026-11.example:t,t,0x0001".to_owned(),
            ports: vec![(1, "iqn.2026-11.example:t,t,0x0001".to_owned())],
            management_url: None,
        },
        block_size: 512,
        physical_block_size: 4096,
        blocks: 1 << 20,
        transfer_max: 16384,
        transfer_optimal: 2048,
        provisioning: Provisioning::Thin,
        accounting: Accounting::Known,
        default_thresholds: Thresholds::at_percent(80, 1 << 20),
        write_cache: WriteCache::Disabled,
        protection: WriteProtection::Writable,
        settings: Settings::default(),
        saved_settings: Some(Settings::default()),
        medium: Medium::Fixed,
        write_same_zero: ZeroCount::ToTheEnd,
        atomic_max: 0,
        management: Management::Implicit,
        encryption: Encryption::None,
        queries: Queries::Yes,
    }
}

/// A command is one of the table or refused with sense data that can be read; what the unit answers fits the allocation.
pub(super) fn cdb(data: &[u8]) {
    let mut cdb = [0; 16];
    let len = data.len().min(16);
    cdb[..len].copy_from_slice(&data[..len]);
    let _ = scsi::reservation::demand(&cdb);
    match scsi::parse(&cdb) {
        Ok(command) => {
            let _ = command.access();
            match scsi::answer(&command, &unit()) {
                Some(Ok(data)) => assert!(data.len() < 1 << 20),
                Some(Err(sense)) => readable(&sense),
                None => {}
            }
        }
        Err(sense) => readable(&sense),
    }
}

fn readable(sense: &scsi::Sense) {
    for format in [SenseFormat::Fixed, SenseFormat::Descriptor] {
        let bytes = sense.encode(format);
        let (key, _) = scsi::sense::decode(&bytes).expect("sense data that can be read");
        assert!(key < 16 && bytes.len() <= 252);
    }
}

/// The first byte says which list the rest is.
pub(super) fn parameter_lists(data: &[u8]) {
    let Some((which, list)) = data.split_first() else { return };
    let unit = unit();
    let refused = match which % 8 {
        0 => scsi::parameter::unmap_ranges(list).err(),
        1 => scsi::parameter::overwrite(list, unit.block_size).err(),
        2 => scsi::mode::select(which & 8 != 0, list, &unit).err(),
        3 => scsi::copy::parse(list).err(),
        4 => scsi::log::select(which >> 3, 0, list, &unit).err(),
        5 => reservation(which >> 3, list),
        6 => {
            if let Ok(table) = Table::from_record(list) {
                let again = Table::from_record(&table.to_record());
                assert_eq!(again.ok().as_ref(), Some(&table));
            }
            None
        }
        _ => more_lists(which >> 3, list, &unit),
    };
    if let Some(sense) = refused {
        readable(&sense);
    }
}

/// The lists that came later, so that earlier corpora keep their meaning.
fn more_lists(which: u8, list: &[u8], unit: &Unit) -> Option<scsi::Sense> {
    match which % 16 {
        1 => target_port_groups(list),
        2 => scsi::copy::parse_lid4(list).err(),
        3 => scsi::copy::token::populate(list, unit).err(),
        4 => scsi::copy::token::write_using(list, unit).err(),
        5 => Identifying::default().set(identifying::Kind::Device, list).err(),
        6 => Identifying::default().set(identifying::Kind::Text, list).err(),
        7 => {
            if let Ok(kept) = Kept::from_record(list) {
                let again = Kept::from_record(&kept.to_record());
                assert_eq!(again.ok().as_ref(), Some(&kept));
            }
            None
        }
        _ => {
            let _ =
                (scsi::sense::decode(list), scsi::sense::information(list), scsi::initiator::capacity(list));
            None
        }
    }
}

/// Whatever a host chooses, it is a group that is there and not the best one already.
fn target_port_groups(list: &[u8]) -> Option<scsi::Sense> {
    let group = |id, state| PortGroup { id, state, set_by: SetBy::Unknown, ports: [id].into() };
    let groups = [group(1, PortState::Optimized), group(2, PortState::NonOptimized)];
    let chosen = alua::set(list, &groups);
    assert!(matches!(chosen, Ok(None | Some(2)) | Err(_)), "{chosen:?}");
    chosen.err()
}

fn reservation(action: u8, list: &[u8]) -> Option<scsi::Sense> {
    const ACTIONS: [Action; 8] = [
        Action::Register,
        Action::Reserve,
        Action::Release,
        Action::Clear,
        Action::Preempt,
        Action::PreemptAndAbort,
        Action::RegisterAndIgnore,
        Action::RegisterAndMove,
    ];
    Parameters::parse(ACTIONS[usize::from(action % 8)], list).err()
}
