//! A logical unit for tests.

use alloc::string::ToString;
use alloc::vec;

use crate::alua::Management;
use crate::mode::Settings;
use crate::thresholds::Thresholds;
use crate::unit::{
    Accounting, Encryption, Identity, Medium, Provisioning, Queries, Unit, WriteCache, WriteProtection,
    ZeroCount,
};

/// A thin unit of 512-byte blocks in 4 KiB ones that saves its parameters.
pub(crate) fn unit() -> Unit {
    Unit {
        identity: Identity {
            vendor: "GEMEL".to_string(),
            product: "Mirrored LUN".to_string(),
            revision: "0001".to_string(),
            serial: "0123456789abcdef".to_string(),
            naa: 3 << 60 | 7,
            relative_port: 1,
            port_group: 1,
            port_name: "iqn.2026-11.example:t,t,0x0001".to_string(),
            ports: vec![
                (1, "iqn.2026-11.example:t,t,0x0001".to_string()),
                (0x8001, "iqn.2026-11.example:t,t,0x8001".to_string()),
            ],
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
