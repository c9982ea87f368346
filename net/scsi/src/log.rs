//! Log pages (SPC-4 section 7.3, SBC-3 section 6.4): errors, provisioning, temperature, statistics.
//!
//! Page 0Fh (application client) is none of them: it is a place where hosts keep what they like, which would have to be kept for them,
//! and SPC-4 leaves it to the device whether there is one. Page 11h (solid state media) would be of a device's own medium.
//!
//! Nothing is saved (DS and TSD are one), and there are no thresholds. A page is parameters, a parameter is a number; what each
//! is made of is [`Counters`], which its owner counts.

use alloc::vec;
use alloc::vec::Vec;

use core::time::Duration;

use crate::sense::Sense;
use crate::thresholds::{self, Resources};
use crate::unit::Unit;

/// What a logical unit counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// READ commands that ended.
    pub reads: u64,
    /// WRITE commands that ended.
    pub writes: u64,
    /// Bytes that reads moved.
    pub read_bytes: u64,
    /// Bytes that writes moved.
    pub written_bytes: u64,
    /// Bytes that were verified.
    pub verified_bytes: u64,
    /// Time that reads took, each from its command to its status.
    pub reading: Duration,
    /// Time that writes took.
    pub writing: Duration,
    /// Reads that the medium failed.
    pub read_errors: u64,
    /// Writes that the medium failed.
    pub write_errors: u64,
    /// Verifications that the medium failed; a miscompare is none.
    pub verify_errors: u64,
    /// Commands that failed by something else than the medium.
    pub other_errors: u64,
}

/// Which values are asked for (PC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Current threshold values.
    Threshold,
    /// Current cumulative values.
    Cumulative,
    /// Default threshold values.
    DefaultThreshold,
    /// Default cumulative values.
    DefaultCumulative,
}

impl Values {
    /// The two bits of PC.
    pub fn from_page_control(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Threshold,
            1 => Self::Cumulative,
            2 => Self::DefaultThreshold,
            _ => Self::DefaultCumulative,
        }
    }
}

/// A LOG SENSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Page.
    pub page: u8,
    /// Subpage.
    pub subpage: u8,
    /// Which values.
    pub values: Values,
    /// PARAMETER POINTER: the first parameter that is asked for.
    pub first_parameter: u16,
}

const SUPPORTED: u8 = 0x00;
const WRITE_ERRORS: u8 = 0x02;
const READ_ERRORS: u8 = 0x03;
const VERIFY_ERRORS: u8 = 0x05;
const OTHER_ERRORS: u8 = 0x06;
/// Logical block provisioning.
pub const PROVISIONING: u8 = 0x0c;
const TEMPERATURE: u8 = 0x0d;
const STATISTICS: u8 = 0x19;
const EXCEPTIONS: u8 = 0x2f;
const ALL_SUBPAGES: u8 = 0xff;

/// No sensor: "unable to return a valid temperature" (SPC-4 section 7.3.21).
const NO_TEMPERATURE: u8 = 0xff;

/// The pages of a unit, in order.
fn pages(unit: &Unit) -> impl Iterator<Item = u8> {
    let counts = unit.counts_resources();
    [
        SUPPORTED,
        WRITE_ERRORS,
        READ_ERRORS,
        VERIFY_ERRORS,
        OTHER_ERRORS,
        PROVISIONING,
        TEMPERATURE,
        STATISTICS,
        EXCEPTIONS,
    ]
    .into_iter()
    .filter(move |page| counts || *page != PROVISIONING)
}

/// FORMAT AND LINKING: what a parameter is.
#[derive(Clone, Copy)]
enum Format {
    /// A counter that stops at its greatest value.
    Counter = 0,
    /// Binary data.
    Binary = 3,
}

/// TSD: it is not saved.
const NOT_SAVED: u8 = 0x20;

struct Parameter {
    code: u16,
    format: Format,
    value: Vec<u8>,
}

fn counter(code: u16, value: u64) -> Parameter {
    Parameter { code, format: Format::Counter, value: value.to_be_bytes().to_vec() }
}

fn binary(code: u16, value: Vec<u8>) -> Parameter {
    Parameter { code, format: Format::Binary, value }
}

/// Total bytes processed, and total uncorrected errors.
fn errors(bytes: u64, errors: u64) -> Vec<Parameter> {
    vec![counter(5, bytes), counter(6, errors)]
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn statistics(counters: &Counters, unit: &Unit) -> Vec<Parameter> {
    let blocks = |bytes: u64| bytes / u64::from(unit.block_size);
    let access = [
        counters.reads,
        counters.writes,
        blocks(counters.written_bytes),
        blocks(counters.read_bytes),
        micros(counters.reading),
        micros(counters.writing),
        // Weighted by command priority, which is not supported.
        0,
        0,
    ];
    // A time interval is 1 x 10^-6 s.
    let interval = [6u32.to_be_bytes(), 1u32.to_be_bytes()].concat();
    vec![binary(1, access.map(u64::to_be_bytes).concat()), binary(3, interval)]
}

fn parameters(page: u8, counters: &Counters, unit: &Unit) -> Vec<Parameter> {
    match page {
        WRITE_ERRORS => errors(counters.written_bytes, counters.write_errors),
        READ_ERRORS => errors(counters.read_bytes, counters.read_errors),
        VERIFY_ERRORS => errors(counters.verified_bytes, counters.verify_errors),
        OTHER_ERRORS => vec![counter(0, counters.other_errors)],
        TEMPERATURE => vec![binary(0, vec![0, NO_TEMPERATURE])],
        STATISTICS => statistics(counters, unit),
        // No exception is pending: there is nothing that watches the medium but the commands themselves.
        EXCEPTIONS => vec![binary(0, vec![0, 0, NO_TEMPERATURE, 0])],
        _ => Vec::new(),
    }
}

fn framed(page: u8, subpage: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    // DS: nothing is saved. SPF: a subpage.
    let spf = if subpage == 0 { 0 } else { 0x40 };
    let list = page == SUPPORTED;
    let mut data = vec![if list { page | spf } else { 0x80 | page | spf }, subpage, len[0], len[1]];
    data.extend_from_slice(payload);
    data
}

fn listed(request: &Request, unit: &Unit) -> Vec<u8> {
    match request.subpage {
        0 => framed(SUPPORTED, 0, &pages(unit).collect::<Vec<u8>>()),
        _ => {
            let pairs = core::iter::once([SUPPORTED, 0]).chain([[SUPPORTED, ALL_SUBPAGES]]);
            let others = pages(unit).skip(1).map(|page| [page, 0]);
            framed(SUPPORTED, ALL_SUBPAGES, &pairs.chain(others).flatten().collect::<Vec<u8>>())
        }
    }
}

/// Parameters from the one that is asked for on.
fn assemble(request: &Request, parameters: &[Parameter]) -> Result<Vec<u8>, Sense> {
    let wanted = parameters.iter().filter(|parameter| parameter.code >= request.first_parameter);
    let mut payload = Vec::new();
    for Parameter { code, format, value } in wanted {
        payload.extend_from_slice(&code.to_be_bytes());
        payload.push(NOT_SAVED | *format as u8);
        payload.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
        payload.extend_from_slice(value);
    }
    if payload.is_empty() && request.first_parameter > 0 {
        return Err(Sense::invalid_cdb_byte(5));
    }
    Ok(framed(request.page, request.subpage, &payload))
}

/// Whether the page's numbers are of the medium, and not of [`Counters`]: then [`provisioning`] makes it.
///
/// # Errors
/// No such page, or values that do not exist.
pub fn is_of_medium(request: &Request, unit: &Unit) -> Result<bool, Sense> {
    let known = match (request.page, request.subpage) {
        (SUPPORTED, 0 | ALL_SUBPAGES) => true,
        (page, 0) => pages(unit).any(|known| known == page),
        (page, _) if pages(unit).any(|known| known == page) => return Err(Sense::invalid_cdb_byte(3)),
        _ => false,
    };
    match (known, request.values) {
        (false, _) => Err(Sense::invalid_cdb_byte(2)),
        // There are no thresholds, but a list of pages is the same whatever is asked for.
        (true, Values::Threshold | Values::DefaultThreshold) if request.page != SUPPORTED => {
            Err(Sense::invalid_cdb_byte(2))
        }
        (true, _) => Ok(request.page == PROVISIONING),
    }
}

/// A page, not cut.
///
/// # Errors
/// No such page, or values or parameters that do not exist.
pub fn sense(request: &Request, counters: &Counters, unit: &Unit) -> Result<Vec<u8>, Sense> {
    is_of_medium(request, unit)?;
    let zero = Counters::default();
    let counters = if request.values == Values::DefaultCumulative { &zero } else { counters };
    match request.page {
        SUPPORTED => Ok(listed(request, unit)),
        page => assemble(request, &parameters(page, counters, unit)),
    }
}

/// The logical block provisioning page (SBC-4 section 6.4.6): how many threshold sets the store below can still take, and how many
/// hold blocks of the unit.
///
/// # Errors
/// Parameters that do not exist.
pub fn provisioning(request: &Request, resources: Resources, unit: &Unit) -> Result<Vec<u8>, Sense> {
    let set = 1 << thresholds::exponent(unit.blocks);
    let count = |code: u16, sets: u64, scope: Scope| {
        let sets = u32::try_from(sets).unwrap_or(u32::MAX).to_be_bytes();
        binary(code, [&sets[..], &[scope as u8, 0, 0, 0]].concat())
    };
    let available = count(1, resources.available / set, Scope::Shared);
    assemble(request, &[available, count(2, resources.used.div_ceil(set), Scope::Dedicated)])
}

/// SCOPE: whose a count is.
#[derive(Clone, Copy)]
enum Scope {
    /// The logical unit's alone.
    Dedicated = 1,
    /// Perhaps others' too.
    Shared = 2,
}

/// Refuses a LOG SELECT parameter list: no parameter can be set to a value of the host's.
///
/// # Errors
/// Where the list is wrong.
pub fn select(page: u8, subpage: u8, list: &[u8], unit: &Unit) -> Result<(), Sense> {
    if list.is_empty() {
        return Ok(());
    }
    let head = list.get(..4).ok_or(Sense::PARAMETER_LENGTH)?;
    let (code, sub) = (head[0] & 0x3f, if head[0] & 0x40 != 0 { head[1] } else { 0 });
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    // A page in the CDB is the list's only one (SPC-4 section 6.7).
    if (page, subpage) != (0, 0) && (code, sub) != (page, subpage) {
        return Err(Sense::invalid_parameter_byte(0));
    }
    if sub != 0 || !pages(unit).any(|known| known == code) {
        return Err(Sense::invalid_parameter_byte(0));
    }
    match (len, list.len() - 4) {
        (0, 0) => Ok(()),
        (0, _) => Err(Sense::invalid_parameter_byte(4)),
        (len, room) if len > room => Err(Sense::PARAMETER_LENGTH),
        _ => Err(Sense::invalid_parameter_byte(4)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::unit;
    use crate::unit::Provisioning;

    fn request(page: u8, subpage: u8, values: Values, first_parameter: u16) -> Request {
        Request { page, subpage, values, first_parameter }
    }

    /// Code, control byte and value of each parameter of a page.
    fn parse(page: &[u8]) -> Vec<(u16, u8, Vec<u8>)> {
        assert_eq!(usize::from(u16::from_be_bytes([page[2], page[3]])), page.len() - 4);
        let (mut rest, mut found) = (&page[4..], Vec::new());
        while !rest.is_empty() {
            let end = 4 + usize::from(rest[3]);
            found.push((u16::from_be_bytes([rest[0], rest[1]]), rest[2], rest[4..end].to_vec()));
            rest = &rest[end..];
        }
        found
    }

    #[test]
    fn every_page_that_is_listed_is_there_and_no_other() {
        for (provisioning, count) in [(Provisioning::Thin, 9), (Provisioning::Full, 8)] {
            let unit = Unit { provisioning, ..unit() };
            let of = |page, subpage| {
                sense(&request(page, subpage, Values::Cumulative, 0), &Counters::default(), &unit)
            };
            let list = of(0, 0).expect("the list");
            assert_eq!((list[0], list[1], list.len() - 4), (0, 0, count));
            assert!(list[4..].is_sorted());
            for page in 0..0x40 {
                let listed = list[4..].contains(&page);
                assert_eq!(of(page, 0).is_ok(), listed, "{page:x}");
                let sense = if listed { Sense::invalid_cdb_byte(3) } else { Sense::invalid_cdb_byte(2) };
                assert_eq!(of(page, 7), Err(sense), "{page:x}");
            }
            let all = of(0, 0xff).expect("the list with subpages");
            assert_eq!((all[0], all[1], all.len() - 4), (0x40, 0xff, 2 * (count + 1)));
        }
    }

    #[test]
    fn counters_are_where_the_standard_puts_them() {
        let counters = Counters {
            reads: 1,
            writes: 2,
            read_bytes: 512 * 4,
            written_bytes: 512 * 3,
            verified_bytes: 11,
            reading: Duration::from_micros(5),
            writing: Duration::from_micros(6),
            read_errors: 7,
            write_errors: 8,
            verify_errors: 9,
            other_errors: 10,
        };
        let of = |page| {
            parse(&sense(&request(page, 0, Values::Cumulative, 0), &counters, &unit()).expect("a page"))
        };
        let be = |value: u64| value.to_be_bytes().to_vec();
        assert_eq!(of(2), [(5, 0x20, be(512 * 3)), (6, 0x20, be(8))]);
        assert_eq!(of(3), [(5, 0x20, be(512 * 4)), (6, 0x20, be(7))]);
        assert_eq!(of(5), [(5, 0x20, be(11)), (6, 0x20, be(9))]);
        assert_eq!(of(6), [(0, 0x20, be(10))]);
        let access = [1, 2, 3, 4, 5, 6, 0, 0].map(u64::to_be_bytes).concat();
        assert_eq!(of(0x19), [(1, 0x23, access), (3, 0x23, vec![0, 0, 0, 6, 0, 0, 0, 1])]);
        assert_eq!(of(0x0d), [(0, 0x23, vec![0, 0xff])]);
        let from_six = sense(&request(2, 0, Values::Cumulative, 6), &counters, &unit()).expect("a page");
        assert_eq!(parse(&from_six), [(6, 0x20, be(8))]);
        let beyond = request(2, 0, Values::Cumulative, 7);
        assert_eq!(sense(&beyond, &counters, &unit()), Err(Sense::invalid_cdb_byte(5)));
        let default =
            sense(&request(2, 0, Values::DefaultCumulative, 0), &counters, &unit()).expect("a page");
        assert_eq!(parse(&default), [(5, 0x20, be(0)), (6, 0x20, be(0))]);
        let threshold = request(2, 0, Values::Threshold, 0);
        assert_eq!(sense(&threshold, &counters, &unit()), Err(Sense::invalid_cdb_byte(2)));
    }

    #[test]
    fn resources_are_counted_in_threshold_sets() {
        let whole = request(PROVISIONING, 0, Values::Cumulative, 0);
        assert_eq!(is_of_medium(&whole, &unit()), Ok(true));
        let page = provisioning(&whole, Resources { used: 2049, available: 4095 }, &unit()).expect("a page");
        let available = (1, 0x23, vec![0, 0, 0, 1, 2, 0, 0, 0]);
        let used = (2, 0x23, vec![0, 0, 0, 2, 1, 0, 0, 0]);
        assert_eq!(parse(&page), [available, used.clone()]);
        let second = Request { first_parameter: 2, ..whole };
        let page = provisioning(&second, Resources { used: 2049, available: 0 }, &unit()).expect("a page");
        assert_eq!(parse(&page), [used]);
    }

    #[test]
    fn a_log_select_list_sets_nothing() {
        let unit = unit();
        assert_eq!(select(0, 0, &[], &unit), Ok(()));
        assert_eq!(select(0, 0, &[2, 0, 0, 0], &unit), Ok(()));
        assert_eq!(select(3, 0, &[2, 0, 0, 0], &unit), Err(Sense::invalid_parameter_byte(0)));
        assert_eq!(select(0, 0, &[0x30, 0, 0, 0], &unit), Err(Sense::invalid_parameter_byte(0)));
        assert_eq!(select(0, 0, &[2, 0, 0], &unit), Err(Sense::PARAMETER_LENGTH));
        assert_eq!(select(0, 0, &[2, 0, 0, 9, 0], &unit), Err(Sense::PARAMETER_LENGTH));
        let list = [2, 0, 0, 12, 0, 6, 0x20, 8, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(select(0, 0, &list, &unit), Err(Sense::invalid_parameter_byte(4)));
    }
}
