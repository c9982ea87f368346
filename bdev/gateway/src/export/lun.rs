//! A bdev as a logical unit.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::node::port_group;
use bdev::{Bdev, Capabilities};
use engine::BUF_LEN_MAX;
use scsi::alua::Management;
use scsi::mode::{Modes, SoftwareWriteProtect};
use scsi::thresholds::{Resources, Thresholds};
use scsi::{
    Accounting, Encryption, Identity, Medium, Provisioning, Queries, Unit, WriteCache, WriteProtection,
    ZeroCount,
};

/// When a write's status means that it is stable: the LUN's durability mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LunMode {
    /// Every write is stable before its status; WCE=0.
    #[default]
    SyncDurable,
    /// Writes may sit in caches until SYNCHRONIZE CACHE or FUA; WCE=1.
    SyncCached,
}

impl LunMode {
    /// As configurations write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SyncDurable => "sync-durable",
            Self::SyncCached => "sync-cached",
        }
    }
}

/// What may be chosen about a LUN beside its durability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LunOptions {
    /// Whether its medium can be ejected.
    pub medium: Medium,
    /// Whether hosts may write.
    pub access: LunAccess,
    /// Whether blocks can be given back, where the device can take them back.
    pub provisioning: LunProvisioning,
    /// Bytes a second that SANITIZE writes at the most.
    pub sanitize_rate: Option<NonZeroU64>,
    /// What a WRITE SAME of zero blocks means.
    pub write_same_zero: ZeroCount,
    /// Hosts are told when this share of its blocks has storage, unless they choose otherwise.
    pub soft_threshold: Option<Percent>,
}

/// A share in percent, 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(u8);

impl Percent {
    /// `None` where it is out of range.
    pub fn new(percent: u8) -> Option<Self> {
        (1..=100).contains(&percent).then_some(Self(percent))
    }
}

/// Whether hosts may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LunAccess {
    /// Where the device allows it.
    #[default]
    ReadWrite,
    /// They may not.
    ReadOnly,
}

/// Whether a LUN is thin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LunProvisioning {
    /// Where the device can take blocks back.
    #[default]
    Thin,
    /// Never: its blocks keep the storage that they have.
    Thick,
}

/// How a bdev is exported.
#[derive(Clone, Debug)]
pub struct LunConfig {
    /// The device.
    pub bdev: Arc<dyn Bdev>,
    /// Durability mode.
    pub mode: LunMode,
    /// What else is chosen.
    pub options: LunOptions,
    /// Unit serial number; the same through every path to the data.
    pub serial: String,
    /// T10 vendor identification.
    pub vendor: String,
    /// Product identification.
    pub product: String,
    /// Where the unit is managed, for the management network addresses page.
    pub management_url: Option<String>,
}

/// A target port that a unit is looked at through.
#[derive(Clone, Debug, Default)]
pub(crate) struct Port {
    /// Relative identifier.
    pub(crate) number: u16,
    /// SCSI name string.
    pub(crate) name: String,
    /// All target ports of the device.
    pub(crate) all: Vec<(u16, String)>,
    /// Who changes which of them is the best.
    pub(crate) management: Management,
    /// Whether the session has the newer task management functions.
    pub(crate) queries: Queries,
}

impl LunConfig {
    /// A LUN whose identity derives from the device's uuid.
    pub fn new(bdev: Arc<dyn Bdev>, mode: LunMode) -> Self {
        let serial = bdev.uuid().simple().to_string();
        let options = LunOptions::default();
        Self {
            bdev,
            mode,
            options,
            serial,
            vendor: "GEMEL".to_owned(),
            product: "Mirrored LUN".to_owned(),
            management_url: None,
        }
    }

    /// How its blocks are provisioned.
    pub(crate) fn provisioning(&self) -> Provisioning {
        let can = self.bdev.capabilities().contains(Capabilities::DISCARD | Capabilities::DISCARD_ZEROES);
        match can && self.options.provisioning == LunProvisioning::Thin {
            true => Provisioning::Thin,
            false => Provisioning::Full,
        }
    }

    /// Whether its blocks have storage that they must not lose.
    pub(crate) fn keeps_storage(&self) -> bool {
        self.options.provisioning == LunProvisioning::Thick
    }

    fn accounting(&self) -> Accounting {
        if self.bdev.space().is_some() { Accounting::Known } else { Accounting::Unknown }
    }

    fn default_thresholds(&self) -> Thresholds {
        let blocks = self.bdev.geometry().blocks;
        let told = self.options.soft_threshold;
        told.map_or_else(Thresholds::default, |percent| Thresholds::at_percent(percent.0, blocks))
    }

    /// The storage behind the unit, where that is known. A file may have more than its blocks need.
    pub(crate) fn resources(&self) -> Option<Resources> {
        let (space, geometry) = (self.bdev.space()?, self.bdev.geometry());
        let blocks = |bytes: u64| bytes / u64::from(geometry.block_size);
        let used = space.allocated.div_ceil(u64::from(geometry.block_size)).min(geometry.blocks);
        Some(Resources { used, available: blocks(space.available) })
    }

    /// The thresholds of its storage in force.
    pub(crate) fn thresholds(&self, modes: Modes) -> Thresholds {
        modes.current.thresholds.unwrap_or_else(|| self.default_thresholds())
    }

    /// The unit as SCSI sees it now, through a target port; one command moves at the most so many bytes.
    pub(crate) fn unit(&self, port: Port, modes: Modes, transfer_bytes: usize) -> Unit {
        let geometry = self.bdev.geometry();
        let capabilities = self.bdev.capabilities();
        let read_only =
            capabilities.contains(Capabilities::READ_ONLY) || self.options.access == LunAccess::ReadOnly;
        let atomic = capabilities.contains(Capabilities::ATOMIC_WRITE);
        let blocks = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX) / geometry.block_size;
        Unit {
            identity: Identity {
                vendor: self.vendor.clone(),
                product: self.product.clone(),
                revision: "0001".to_owned(),
                serial: self.serial.clone(),
                naa: naa(&self.serial),
                relative_port: port.number,
                port_group: port_group(self.bdev.access().side()),
                port_name: port.name,
                ports: port.all,
                management_url: self.management_url.clone(),
            },
            block_size: geometry.block_size,
            physical_block_size: geometry.physical_block_size,
            blocks: geometry.blocks,
            transfer_max: blocks(transfer_bytes),
            // What fits in a frame waits for nobody's turn.
            transfer_optimal: blocks(BUF_LEN_MAX),
            accounting: self.accounting(),
            default_thresholds: self.default_thresholds(),
            provisioning: self.provisioning(),
            write_cache: match self.mode {
                LunMode::SyncDurable => WriteCache::Disabled,
                LunMode::SyncCached => WriteCache::Enabled,
            },
            protection: match modes.current.software_write_protect {
                _ if read_only => WriteProtection::Protected,
                SoftwareWriteProtect::On => WriteProtection::Software,
                SoftwareWriteProtect::Off => WriteProtection::Writable,
            },
            settings: modes.current,
            saved_settings: capabilities.contains(Capabilities::UNIT_STATE).then_some(modes.saved),
            medium: self.options.medium,
            write_same_zero: self.options.write_same_zero,
            atomic_max: if atomic { bdev::ATOMIC_WRITE_MAX / geometry.block_size } else { 0 },
            management: if capabilities.contains(Capabilities::HAND_OVER) {
                port.management
            } else {
                Management::Implicit
            },
            encryption: match capabilities.contains(Capabilities::CRYPTO_ERASE) && !read_only {
                true => Encryption::Erasable,
                false => Encryption::None,
            },
            queries: port.queries,
        }
    }
}

/// A locally assigned NAA designator (first nibble 3) from the serial number: FNV-1a, 60 bits.
fn naa(serial: &str) -> u64 {
    let hash = serial.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    3 << 60 | hash >> 4
}
