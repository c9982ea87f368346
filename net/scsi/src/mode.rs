//! Mode pages (SPC-4 section 7.5, SBC-4 section 6.5): caching, control, recovery, informational exceptions, provisioning.

use alloc::vec;
use alloc::vec::Vec;

use crate::command::Command;
use crate::sense::{Sense, SenseFormat};
use crate::thresholds::{self, Notice, Thresholds};
use crate::unit::{Unit, WriteCache, WriteProtection};

/// What MODE SELECT may change: the same for every nexus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// D_SENSE of the control mode page.
    pub sense_format: SenseFormat,
    /// SWP of the control mode page.
    pub software_write_protect: SoftwareWriteProtect,
    /// TAS of the control mode page.
    pub task_aborted: TaskAborted,
    /// WCE of the caching mode page, where the administrator lets completed writes be in a cache.
    pub write_back: WriteBack,
    /// Thresholds of provisioning that are not the administrator's.
    pub thresholds: Option<Thresholds>,
}

/// Values of the pages that can be changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes {
    /// In force.
    pub current: Settings,
    /// In force again after a reset.
    pub saved: Settings,
}

impl Modes {
    /// After a reset or a loss of power (SPC-4 section 5.11).
    #[must_use]
    pub fn reset(self) -> Self {
        Self { current: self.saved, ..self }
    }

    /// After a MODE SELECT.
    #[must_use]
    pub fn after(self, selected: Settings, save: Save) -> Self {
        Self { current: selected, saved: if save == Save::Yes { selected } else { self.saved } }
    }
}

/// SP of MODE SELECT: whether the values outlive a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Save {
    /// They do.
    Yes,
    /// They do not.
    No,
}

/// SWP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SoftwareWriteProtect {
    /// Writes are allowed, as far as hosts go.
    #[default]
    Off,
    /// A host asked that nobody writes.
    On,
}

/// TAS: how a nexus hears that another one has ended its command (SAM-5 section 5.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskAborted {
    /// By no status; a unit attention says that commands were cleared.
    #[default]
    Attention,
    /// By the command's status, TASK ABORTED, when nothing of it is at work any more.
    Status,
}

/// Whether hosts have writes sit in a cache where they may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteBack {
    /// They do.
    #[default]
    Used,
    /// A host asked that every write be stable when it is answered.
    Off,
}

const RECOVERY: u8 = 0x01;
const DISCONNECT: u8 = 0x02;
const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const EXCEPTIONS: u8 = 0x1c;
const ALL: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;

/// Which values are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Values {
    Current,
    Changeable,
    Default,
    Saved(Settings),
}

/// The pages, by page and subpage, in the order of page 3Fh.
const PAGES: [(u8, u8); 7] = [
    (RECOVERY, 0),
    (DISCONNECT, 0),
    (CACHING, 0),
    (CONTROL, 0),
    (CONTROL, 1),
    (EXCEPTIONS, 0),
    thresholds::PAGE,
];

/// Those of a unit.
fn pages(unit: &Unit) -> impl Iterator<Item = (u8, u8)> {
    let counts = unit.counts_resources();
    PAGES.into_iter().filter(move |page| counts || *page != thresholds::PAGE)
}

/// PS: the page can be saved.
const SAVEABLE: u8 = 0x80;
const D_SENSE: u8 = 0x04;
const SWP: u8 = 0x08;
const TAS: u8 = 0x40;
const WCE: u8 = 0x04;
/// LBPERE, of the recovery page.
const REPORTING: u8 = 0x80;

fn frame(code: u8, subpage: u8) -> Vec<u8> {
    let len = match (code, subpage) {
        (CACHING, _) => 20,
        (DISCONNECT, _) => 16,
        (CONTROL, 1) => 32,
        thresholds::PAGE => thresholds::PAGE_LEN,
        _ => 12,
    };
    let mut data = vec![0; len];
    data[0] = code;
    if subpage == 0 {
        data[1] = u8::try_from(len - 2).expect("short");
    } else {
        // SPF, the subpage format.
        data[0] |= 0x40;
        data[1] = subpage;
        data[3] = u8::try_from(len - 4).expect("short");
    }
    data
}

fn page(code: u8, subpage: u8, unit: &Unit, values: Values) -> Option<Vec<u8>> {
    pages(unit).any(|page| page == (code, subpage)).then_some(())?;
    let mut data = frame(code, subpage);
    match values {
        Values::Changeable => changeable(&mut data, (code, subpage), unit),
        Values::Default => fill(&mut data, (code, subpage), unit, &Settings::default()),
        Values::Saved(saved) => fill(&mut data, (code, subpage), unit, &saved),
        Values::Current => fill(&mut data, (code, subpage), unit, &unit.settings),
    }
    let settable = match (code, subpage) {
        (CONTROL | CACHING, 0) => true,
        (RECOVERY, 0) => unit.counts_resources(),
        page => page == thresholds::PAGE,
    };
    if settable && unit.saved_settings.is_some() {
        data[0] |= SAVEABLE;
    }
    Some(data)
}

/// The bits of a page that can be changed. That writes are durable when they are answered is a decision of the administrator, which one
/// host cannot take back; where they need not be, a host may have them so.
fn changeable(data: &mut [u8], page: (u8, u8), unit: &Unit) {
    match page {
        (CONTROL, 0) => {
            data[2] = D_SENSE;
            data[4] = SWP;
            data[5] = TAS;
        }
        (CACHING, 0) if unit.write_cache == WriteCache::Enabled => data[2] = WCE,
        (RECOVERY, 0) if unit.counts_resources() => data[7] = REPORTING,
        thresholds::PAGE => Thresholds::changeable(data),
        _ => {}
    }
}

fn fill(data: &mut [u8], page: (u8, u8), unit: &Unit, settings: &Settings) {
    let thresholds = settings.thresholds.unwrap_or(unit.default_thresholds);
    match page {
        (CONTROL, 0) => {
            data[2] = if settings.sense_format == SenseFormat::Descriptor { D_SENSE } else { 0 };
            // Queue algorithm modifier: unrestricted reordering.
            data[3] = 0x10;
            data[4] = if settings.software_write_protect == SoftwareWriteProtect::On { SWP } else { 0 };
            data[5] = if settings.task_aborted == TaskAborted::Status { TAS } else { 0 };
        }
        (CACHING, 0) if (unit.write_cache, settings.write_back) == (WriteCache::Enabled, WriteBack::Used) => {
            data[2] = WCE;
        }
        (RECOVERY, 0) => {
            // AWRE and ARRE: a mirror mends what one leg cannot read.
            data[2] = 0xc0;
            if unit.counts_resources() && thresholds.reporting == Notice::On {
                data[7] = REPORTING;
            }
        }
        thresholds::PAGE => thresholds.fill(data),
        _ => {}
    }
}

/// Mode parameter data for MODE SENSE.
///
/// # Errors
/// No such page, or saved values where nothing is saved.
pub fn sense(command: &Command, unit: &Unit) -> Result<Vec<u8>, Sense> {
    let Command::ModeSense { long, page_control, page: code, subpage, no_block_descriptor, .. } = *command
    else {
        return Err(Sense::INVALID_OPCODE);
    };
    let values = match page_control {
        0 => Values::Current,
        1 => Values::Changeable,
        2 => Values::Default,
        _ => Values::Saved(unit.saved_settings.ok_or(Sense::SAVING_NOT_SUPPORTED)?),
    };
    let pages = wanted(code, subpage, unit)?;
    let pages: Vec<u8> =
        pages.into_iter().filter_map(|(code, subpage)| page(code, subpage, unit, values)).flatten().collect();
    let descriptor = if no_block_descriptor { Vec::new() } else { block_descriptor(unit) };
    Ok(assemble(long, unit, &descriptor, &pages))
}

/// The pages that a page code and a subpage code name (SPC-4 table 170).
fn wanted(code: u8, subpage: u8, unit: &Unit) -> Result<Vec<(u8, u8)>, Sense> {
    let named = |(page, sub): &(u8, u8)| match (code, subpage) {
        (ALL, 0) => *sub == 0,
        (ALL, ALL_SUBPAGES) => true,
        (_, ALL_SUBPAGES) => *page == code,
        _ => (*page, *sub) == (code, subpage),
    };
    let found: Vec<_> = pages(unit).filter(named).collect();
    let known = code == ALL || PAGES.iter().any(|(page, _)| *page == code);
    match (found.is_empty(), known) {
        (false, _) => Ok(found),
        (true, true) => Err(Sense::invalid_cdb_byte(3)),
        (true, false) => Err(Sense::invalid_cdb_byte(2)),
    }
}

fn block_descriptor(unit: &Unit) -> Vec<u8> {
    let blocks = u32::try_from(unit.blocks).unwrap_or(u32::MAX);
    [blocks.to_be_bytes(), unit.block_size.to_be_bytes()].concat()
}

fn assemble(long: bool, unit: &Unit, descriptor: &[u8], pages: &[u8]) -> Vec<u8> {
    // WP and DPOFUA.
    let protected = if unit.protection == WriteProtection::Writable { 0 } else { 0x80 };
    let device = protected | 0x10;
    let descriptor_len = u8::try_from(descriptor.len()).expect("eight or none");
    let mut data = if long {
        let len = u16::try_from(6 + descriptor.len() + pages.len()).unwrap_or(u16::MAX).to_be_bytes();
        vec![len[0], len[1], 0, device, 0, 0, 0, descriptor_len]
    } else {
        let len = u8::try_from(3 + descriptor.len() + pages.len()).unwrap_or(u8::MAX);
        vec![len, 0, device, descriptor_len]
    };
    data.extend_from_slice(descriptor);
    data.extend_from_slice(pages);
    data
}

/// The settings after a MODE SELECT parameter list: values that are as they are already, and changes of what is changeable.
///
/// # Errors
/// The first byte that would change something else, or that is not understood.
pub fn select(long: bool, list: &[u8], unit: &Unit) -> Result<Settings, Sense> {
    // The administrator's thresholds are told like any others, and stay his while nobody changes them.
    let mut settings = Settings { thresholds: Some(unit.thresholds()), ..unit.settings };
    if list.is_empty() {
        return Ok(unit.settings);
    }
    let header = if long { 8 } else { 4 };
    let descriptor_len = match (long, list.len() >= header) {
        (_, false) => return Err(Sense::PARAMETER_LENGTH),
        (true, _) => usize::from(u16::from_be_bytes([list[6], list[7]])),
        (false, _) => usize::from(list[3]),
    };
    check_descriptor(long, list, header, descriptor_len, unit)?;
    let mut at = header + descriptor_len;
    while at < list.len() {
        let subpage =
            if list[at] & 0x40 != 0 { *list.get(at + 1).ok_or(Sense::PARAMETER_LENGTH)? } else { 0 };
        at += select_page(&list[at..], (list[at] & 0x3f, subpage), at, unit, &mut settings)?;
    }
    settings.thresholds = settings.thresholds.filter(|chosen| *chosen != unit.default_thresholds);
    Ok(settings)
}

/// A block descriptor says what is so already (SBC-3 section 6.4.2): blocks are as many and as long as they are.
fn check_descriptor(long: bool, list: &[u8], header: usize, len: usize, unit: &Unit) -> Result<(), Sense> {
    const LONG_LBA: u8 = 1;
    if long && list[4] & LONG_LBA != 0 {
        return Err(Sense::invalid_parameter_byte(4));
    }
    let current = block_descriptor(unit);
    if len != 0 && len != current.len() {
        return Err(Sense::invalid_parameter_byte(if long { 6 } else { 3 }));
    }
    let given = list.get(header..header + len).ok_or(Sense::PARAMETER_LENGTH)?;
    // Zero, and all ones, are as many blocks as there are.
    let keeps_count = given.starts_with(&[0; 4]) || given.starts_with(&[0xff; 4]);
    let differs = |at: &usize| given[*at] != current[*at] && !(keeps_count && *at < 4);
    match (0..len).find(differs) {
        Some(at) => Err(Sense::invalid_parameter_byte(u16::try_from(header + at).unwrap_or(u16::MAX))),
        None => Ok(()),
    }
}

/// One page of a list, which starts `at` bytes into it; returns its length.
fn select_page(
    list: &[u8],
    (code, subpage): (u8, u8),
    at: usize,
    unit: &Unit,
    settings: &mut Settings,
) -> Result<usize, Sense> {
    let pointer =
        |offset: usize| Sense::invalid_parameter_byte(u16::try_from(at + offset).unwrap_or(u16::MAX));
    let current = page(code, subpage, unit, Values::Current).ok_or(pointer(0))?;
    let changeable = page(code, subpage, unit, Values::Changeable).ok_or(pointer(0))?;
    let given = list.get(..current.len()).ok_or(Sense::PARAMETER_LENGTH)?;
    let head = if subpage == 0 { 2 } else { 4 };
    let illegal = |(index, byte): (usize, &u8)| {
        // PS is reserved in MODE SELECT; the page's own header never changes.
        let fixed = match index {
            0 => 0x7f,
            _ if index < head => 0xff,
            _ => !changeable[index],
        };
        (byte ^ current[index]) & fixed != 0
    };
    if let Some(index) = given.iter().enumerate().position(illegal) {
        return Err(pointer(index));
    }
    let thresholds = settings.thresholds.unwrap_or(unit.default_thresholds);
    match (code, subpage) {
        (CONTROL, 0) => {
            settings.sense_format =
                if given[2] & D_SENSE != 0 { SenseFormat::Descriptor } else { SenseFormat::Fixed };
            settings.software_write_protect =
                if given[4] & SWP != 0 { SoftwareWriteProtect::On } else { SoftwareWriteProtect::Off };
            settings.task_aborted =
                if given[5] & TAS != 0 { TaskAborted::Status } else { TaskAborted::Attention };
        }
        (CACHING, 0) if unit.write_cache == WriteCache::Enabled => {
            settings.write_back = if given[2] & WCE != 0 { WriteBack::Used } else { WriteBack::Off };
        }
        (RECOVERY, 0) => {
            let reporting = if given[7] & REPORTING != 0 { Notice::On } else { Notice::Off };
            settings.thresholds = Some(Thresholds { reporting, ..thresholds });
        }
        thresholds::PAGE => settings.thresholds = Some(thresholds.read(given)),
        _ => {}
    }
    Ok(current.len())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::example::unit;
    use crate::thresholds::Threshold;
    use crate::unit::Accounting;

    /// The administrator's, or others.
    fn thresholds() -> impl Strategy<Value = Option<Thresholds>> {
        let notice = || any::<bool>().prop_map(|on| if on { Notice::On } else { Notice::Off });
        let threshold =
            move || (notice(), any::<u32>()).prop_map(|(notice, count)| Threshold { notice, count });
        let chosen = (notice(), threshold(), threshold())
            .prop_map(|(reporting, used, available)| Thresholds { reporting, used, available });
        proptest::option::of(chosen.prop_filter("others", |chosen| *chosen != unit().default_thresholds))
    }

    fn settings() -> impl Strategy<Value = Settings> {
        (any::<[bool; 4]>(), thresholds()).prop_map(|([descriptor, protect, off, status], thresholds)| {
            Settings {
                task_aborted: if status { TaskAborted::Status } else { TaskAborted::Attention },
                thresholds,
                write_back: if off { WriteBack::Off } else { WriteBack::Used },
                sense_format: if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed },
                software_write_protect: if protect {
                    SoftwareWriteProtect::On
                } else {
                    SoftwareWriteProtect::Off
                },
            }
        })
    }

    fn ask(long: bool, page_control: u8, page: u8, subpage: u8, no_block_descriptor: bool) -> Command {
        Command::ModeSense { long, page_control, page, subpage, no_block_descriptor, allocation: u32::MAX }
    }

    /// What a host sends back: the lengths of mode data are reserved in MODE SELECT.
    fn sent_back(long: bool, mut data: Vec<u8>) -> Vec<u8> {
        data[..if long { 2 } else { 1 }].fill(0);
        data
    }

    proptest! {
        #[test]
        fn what_mode_sense_tells_is_what_mode_select_understands(
            before in settings(), after in settings(), saved in settings(), long in any::<bool>(),
            bare in any::<bool>(), all in any::<bool>(),
        ) {
            // What other pages say stays what it was.
            let page = if all { (0x3f, 0xff) } else { (0x0a, 0) };
            let seen = |of: Settings| match all {
                true => of,
                false => Settings { thresholds: before.thresholds, write_back: before.write_back, ..of },
            };
            let write_cache = WriteCache::Enabled;
            let unit = |settings| Unit { settings, write_cache, saved_settings: Some(saved), ..unit() };
            let told = sense(&ask(long, 0, page.0, page.1, bare), &unit(after)).expect("pages");
            prop_assert_eq!(select(long, &sent_back(long, told), &unit(before)), Ok(seen(after)));
            let told = sense(&ask(long, 3, page.0, page.1, bare), &unit(after)).expect("saved pages");
            prop_assert_eq!(select(long, &sent_back(long, told), &unit(before)), Ok(seen(saved)));
            let told = sense(&ask(long, 2, page.0, page.1, bare), &unit(after)).expect("default pages");
            prop_assert_eq!(select(long, &sent_back(long, told), &unit(before)), Ok(seen(Settings::default())));
        }

        #[test]
        fn any_list_is_understood_or_refused(list in vec(any::<u8>(), 0..80), long in any::<bool>()) {
            let _ = select(long, &list, &unit());
        }
    }

    #[test]
    fn a_bit_can_be_set_exactly_where_it_is_changeable() {
        let unit = unit();
        let current = sense(&ask(false, 0, 0x3f, 0xff, true), &unit).expect("pages");
        let changeable = sense(&ask(false, 1, 0x3f, 0xff, true), &unit).expect("masks");
        let (mut at, mut changed) = (4, 0);
        while at < current.len() {
            let (head, len) = match current[at] & 0x40 {
                0 => (2, 2 + usize::from(current[at + 1])),
                _ => (4, 4 + usize::from(u16::from_be_bytes([current[at + 2], current[at + 3]]))),
            };
            for byte in at + head..at + len {
                for bit in (0..8).map(|bit| 1u8 << bit) {
                    let mut list = sent_back(false, current.clone());
                    list[byte] ^= bit;
                    let result = select(false, &list, &unit);
                    let expected = changeable[byte] & bit != 0;
                    changed += usize::from(expected);
                    assert_eq!(result.is_ok(), expected, "byte {byte}, bit {bit:02x}: {result:?}");
                    if !expected {
                        assert_eq!(result, Err(Sense::invalid_parameter_byte(byte as u16)));
                    }
                }
            }
            at += len;
        }
        // D_SENSE, SWP, TAS, LBPERE, and of each threshold ENABLED and its count.
        assert_eq!(changed, 4 + 2 * 33);
    }

    #[test]
    fn a_block_descriptor_changes_nothing() {
        let unit = Unit { blocks: 0x0102_0304, ..unit() };
        for (long, header, len_at) in [(false, 4, 3), (true, 8, 7)] {
            let told = sent_back(long, sense(&ask(long, 0, 0x0a, 0, false), &unit).expect("a page"));
            let given = |at: usize, byte: u8| {
                let mut list = told.clone();
                list[at] = byte;
                select(long, &list, &unit)
            };
            for (at, is) in told.iter().enumerate().skip(header).take(8) {
                assert_eq!(given(at, *is), Ok(unit.settings));
                for bit in (0..8).map(|bit| 1u8 << bit) {
                    let refused = Err(Sense::invalid_parameter_byte(at as u16));
                    assert_eq!(given(at, is ^ bit), refused, "byte {at}, bit {bit:02x}");
                }
            }
            for count in [0, 0xff] {
                let mut list = told.clone();
                list[header..header + 4].fill(count);
                assert_eq!(select(long, &list, &unit), Ok(unit.settings));
            }
            // No length but none and eight, nor one that the list is too short for.
            for len in [1, 5, 7, 9, 16] {
                let refused = Err(Sense::invalid_parameter_byte(if long { 6 } else { 3 }));
                assert_eq!(given(len_at, len), refused, "{len}");
            }
            assert_eq!(select(long, &told[..header + 7], &unit), Err(Sense::PARAMETER_LENGTH));
        }
        let mut long_lba = sent_back(true, sense(&ask(true, 0, 0x0a, 0, false), &unit).expect("a page"));
        long_lba[4] = 1;
        assert_eq!(select(true, &long_lba, &unit), Err(Sense::invalid_parameter_byte(4)));
    }

    #[test]
    fn a_write_cache_can_be_left_and_not_be_made() {
        let caches = |write_cache, write_back| {
            let settings = Settings { write_back, ..Settings::default() };
            Unit { write_cache, settings, ..unit() }
        };
        let page = |page_control, unit: &Unit| {
            let page = sense(&ask(false, page_control, 0x08, 0, true), unit).expect("a page");
            (page[4], page[6])
        };
        let select = |wce: u8, unit: &Unit| {
            let list = [&[0, 0, 0, 0, 0x08, 18, wce][..], &[0; 17]].concat();
            select(false, &list, unit).map(|settings| settings.write_back)
        };
        let allowed = caches(WriteCache::Enabled, WriteBack::Used);
        assert_eq!(
            (page(0, &allowed), page(1, &allowed), page(2, &allowed)),
            ((0x88, 4), (0x88, 4), (0x88, 4))
        );
        assert_eq!((select(0, &allowed), select(4, &allowed)), (Ok(WriteBack::Off), Ok(WriteBack::Used)));
        let left = caches(WriteCache::Enabled, WriteBack::Off);
        assert_eq!((page(0, &left), page(1, &left), page(2, &left)), ((0x88, 0), (0x88, 4), (0x88, 4)));
        let durable = caches(WriteCache::Disabled, WriteBack::Used);
        assert_eq!(
            (page(0, &durable), page(1, &durable), page(2, &durable)),
            ((0x88, 0), (0x88, 0), (0x88, 0))
        );
        assert_eq!(select(0, &durable), Ok(WriteBack::Used), "as it is");
        assert_eq!(select(4, &durable), Err(Sense::invalid_parameter_byte(6)));
    }

    #[test]
    fn without_figures_there_are_no_thresholds() {
        let uncounted = Unit { accounting: Accounting::Unknown, ..unit() };
        let code = |subpage| ask(false, 0, 0x1c, subpage, true);
        assert_eq!(sense(&code(2), &uncounted), Err(Sense::invalid_cdb_byte(3)));
        assert!(sense(&code(0), &uncounted).is_ok());
        let recovery = sense(&ask(false, 1, 0x01, 0, true), &uncounted).expect("masks");
        assert!(recovery[6..].iter().all(|byte| *byte == 0), "LBPERE cannot be changed");
        let page = sense(&code(2), &unit()).expect("the thresholds");
        assert_eq!(page[4..8], [0xdc, 0x02, 0, 28]);
        // 80 % of 512 sets are used, and what is available is not watched.
        assert_eq!(page[20..], [0x81, 2, 0, 0, 0, 0, 1, 0x99, 0, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn without_a_place_to_save_nothing_is_saved() {
        let unit = Unit { saved_settings: None, ..unit() };
        assert_eq!(sense(&ask(false, 3, 0x3f, 0, true), &unit), Err(Sense::SAVING_NOT_SUPPORTED));
        assert_eq!(sense(&ask(false, 0, 0x0a, 0, true), &unit).expect("a page")[4], 0x0a, "PS is zero");
    }
}
