//! Every PDU type with any values of its fields: what is emitted is parsed as it was meant, and what is parsed is emitted as it came.
//!
//! Where a field lies is written down here once more, from RFC 7143 section 11, so that an accessor at a wrong place shows.

use alloc::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::deframe::{Deframer, Sink, Step};
use crate::digest::{self, Digest, Trailer};
use crate::pdu::{BHS_LEN, Header, opcode};
use crate::protocol::{Body, TaskId, Transmit, Want};

/// A field of a header: where it lies, how many bytes it has, and how it is written and read.
#[derive(Clone, Copy)]
struct Field {
    at: usize,
    len: usize,
    set: fn(Header, u64) -> Header,
    get: fn(&Header) -> u64,
}

/// Fields of 32 bits by their accessors.
macro_rules! words {
    ($($name:ident = $at:expr, $get:ident, $set:ident;)*) => {
        $(const $name: Field = Field {
            at: $at,
            len: 4,
            set: |header, value| header.$set(value as u32),
            get: |header| header.$get().into(),
        };)*
    };
}

words! {
    ITT = 16, itt, with_itt;
    TTT = 20, ttt, with_ttt;
    EDTL = 20, edtl, with_edtl;
    CMD_SN = 24, cmd_sn, with_cmd_sn;
    STAT_SN = 24, stat_sn, with_stat_sn;
    EXP_STAT_SN = 28, exp_stat_sn, with_exp_stat_sn;
    EXP_CMD_SN = 28, exp_cmd_sn, with_exp_cmd_sn;
    MAX_CMD_SN = 32, max_cmd_sn, with_max_cmd_sn;
    DATA_SN = 36, data_sn, with_data_sn;
    OFFSET = 40, buffer_offset, with_buffer_offset;
    RESIDUAL = 44, residual, with_residual;
}

const LUN: Field = Field { at: 8, len: 8, set: |header, value| header.with_lun(value), get: Header::lun };

const ISID: Field = Field {
    at: 8,
    len: 6,
    set: |header, value| header.with_isid(value.to_be_bytes()[2..].try_into().expect("six bytes")),
    get: |header| header.isid().iter().fold(0, |value, byte| value << 8 | u64::from(*byte)),
};

/// The halves of a CDB.
const CDB: [Field; 2] = {
    const fn half(at: usize, set: fn(Header, u64) -> Header, get: fn(&Header) -> u64) -> Field {
        Field { at, len: 8, set, get }
    }
    [
        half(
            32,
            |header, value| {
                let mut cdb = header.cdb();
                cdb[..8].copy_from_slice(&value.to_be_bytes());
                header.with_cdb(cdb)
            },
            |header| u64::from_be_bytes(header.cdb()[..8].try_into().expect("half")),
        ),
        half(
            40,
            |header, value| {
                let mut cdb = header.cdb();
                cdb[8..].copy_from_slice(&value.to_be_bytes());
                header.with_cdb(cdb)
            },
            |header| u64::from_be_bytes(header.cdb()[8..].try_into().expect("half")),
        ),
    ]
};

/// Bytes and half words that only one type of PDU has at a place.
macro_rules! places {
    ($($name:ident = $at:expr, $len:expr;)*) => {
        $(const $name: Field = Field {
            at: $at,
            len: $len,
            set: |header, value| match $len {
                1 => header.with_byte($at, value as u8),
                _ => header.with_u16($at, value as u16),
            },
            get: |header| if $len == 1 { header.byte($at).into() } else { header.u16_at($at).into() },
        };)*
    };
}

places! {
    BYTE_2 = 2, 1;
    BYTE_3 = 3, 1;
    TSIH = 14, 2;
    CID = 20, 2;
    CLASS = 36, 1;
    DETAIL = 37, 1;
    PARAMETER_1 = 38, 2;
    PARAMETER_2 = 40, 2;
    PARAMETER_3 = 42, 2;
}

/// Whether byte 0 may ask for immediate delivery (RFC 7143 section 11.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Either,
    InOrder,
}

/// Every type of PDU with its fields, beside the flags of byte 1.
const TYPES: [(u8, Delivery, &[Field]); 18] = {
    use Delivery::{Either, InOrder};
    [
        (opcode::NOP_OUT, Either, &[LUN, ITT, TTT, CMD_SN, EXP_STAT_SN]), // 11.18
        (opcode::SCSI_COMMAND, Either, &[LUN, ITT, EDTL, CMD_SN, EXP_STAT_SN, CDB[0], CDB[1]]), // 11.3
        (opcode::TASK_MANAGEMENT, Either, &[LUN, ITT, TTT, CMD_SN, EXP_STAT_SN, MAX_CMD_SN, DATA_SN]), // 11.5
        (opcode::LOGIN, Either, &[BYTE_2, BYTE_3, ISID, TSIH, ITT, CID, CMD_SN, EXP_STAT_SN]), // 11.12
        (opcode::TEXT, Either, &[LUN, ITT, TTT, CMD_SN, EXP_STAT_SN]),    // 11.10
        (opcode::DATA_OUT, InOrder, &[LUN, ITT, TTT, EXP_STAT_SN, DATA_SN, OFFSET]), // 11.7
        (opcode::LOGOUT, Either, &[ITT, CID, CMD_SN, EXP_STAT_SN]),       // 11.14
        (opcode::SNACK, InOrder, &[LUN, ITT, TTT, EXP_STAT_SN, OFFSET, RESIDUAL]), // 11.16
        (opcode::NOP_IN, InOrder, &[LUN, ITT, TTT, STAT_SN, EXP_CMD_SN, MAX_CMD_SN]), // 11.19
        (
            opcode::SCSI_RESPONSE, // 11.4
            InOrder,
            &[BYTE_2, BYTE_3, ITT, TTT, STAT_SN, EXP_CMD_SN, MAX_CMD_SN, DATA_SN, OFFSET, RESIDUAL],
        ),
        (opcode::TASK_MANAGEMENT_RESPONSE, InOrder, &[BYTE_2, ITT, STAT_SN, EXP_CMD_SN, MAX_CMD_SN]), // 11.6
        (
            opcode::LOGIN_RESPONSE, // 11.13
            InOrder,
            &[BYTE_2, BYTE_3, ISID, TSIH, ITT, STAT_SN, EXP_CMD_SN, MAX_CMD_SN, CLASS, DETAIL],
        ),
        (opcode::TEXT_RESPONSE, InOrder, &[LUN, ITT, TTT, STAT_SN, EXP_CMD_SN, MAX_CMD_SN]), // 11.11
        (
            opcode::DATA_IN, // 11.7
            InOrder,
            &[BYTE_3, LUN, ITT, TTT, STAT_SN, EXP_CMD_SN, MAX_CMD_SN, DATA_SN, OFFSET, RESIDUAL],
        ),
        (
            opcode::LOGOUT_RESPONSE, // 11.15
            InOrder,
            &[BYTE_2, ITT, STAT_SN, EXP_CMD_SN, MAX_CMD_SN, PARAMETER_2, PARAMETER_3],
        ),
        (
            opcode::R2T, // 11.8
            InOrder,
            &[LUN, ITT, TTT, STAT_SN, EXP_CMD_SN, MAX_CMD_SN, DATA_SN, OFFSET, RESIDUAL],
        ),
        (
            opcode::ASYNC, // 11.9
            InOrder,
            &[LUN, STAT_SN, EXP_CMD_SN, MAX_CMD_SN, CLASS, DETAIL, PARAMETER_1, PARAMETER_2, PARAMETER_3],
        ),
        (opcode::REJECT, InOrder, &[BYTE_2, ITT, STAT_SN, EXP_CMD_SN, MAX_CMD_SN, DATA_SN]), // 11.17
    ]
};

/// A PDU of a type, by the accessors; and the same header as the RFC draws it.
fn build(
    (code, delivery, fields): (u8, Delivery, &[Field]),
    immediate: bool,
    flags: u8,
    values: &[u64],
) -> (Header, [u8; BHS_LEN]) {
    let immediate = immediate && delivery == Delivery::Either;
    let mut header = Header::new(code, 0).with_flags(flags);
    let mut drawn = [0; BHS_LEN];
    (drawn[0], drawn[1]) = (code, flags);
    if immediate {
        header = header.with_immediate();
        drawn[0] |= 0x40;
    }
    for (field, value) in fields.iter().zip(values) {
        header = (field.set)(header, *value);
        drawn[field.at..field.at + field.len].copy_from_slice(&value.to_be_bytes()[8 - field.len..]);
    }
    (header, drawn)
}

/// What a deframer made of bytes that came in pieces of these sizes.
#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Pdu {
        header: [u8; BHS_LEN],
        ahs: Vec<u8>,
        data: Vec<u8>,
    },
    HeaderDigestError,
    DataDigestError,
    /// It waits for more.
    Unfinished,
}

fn parse(deframer: &mut Deframer, mut bytes: &[u8], pieces: &[usize], sink: Sink) -> (Parsed, usize) {
    let whole = bytes.len();
    let mut data = Vec::new();
    let mut sizes = pieces.iter().copied().cycle();
    while !bytes.is_empty() {
        let (wanted, is_payload) = match deframer.want() {
            Want::Bytes(len) => (len, false),
            Want::Payload { len, .. } => (len, true),
            Want::Nothing => panic!("it wants nothing in the middle of a PDU"),
        };
        let (piece, rest) = bytes.split_at(wanted.min(sizes.next().expect("sizes")).min(bytes.len()));
        bytes = rest;
        if is_payload {
            data.extend_from_slice(piece);
        }
        let mut step = deframer.handle(piece);
        if step == Step::Header {
            step = deframer.accept(sink);
        }
        let parsed = match step {
            Step::More => continue,
            Step::Header => panic!("a header within a header"),
            Step::HeaderDigestError => Parsed::HeaderDigestError,
            Step::DataDigestError => Parsed::DataDigestError,
            Step::Pdu => {
                if sink == Sink::Internal {
                    data = deframer.take_data();
                }
                Parsed::Pdu { header: deframer.header().0, ahs: deframer.take_ahs(), data }
            }
        };
        return (parsed, whole - bytes.len());
    }
    (Parsed::Unfinished, whole)
}

/// Emits a PDU as a connection does; additional segments, which this product never sends, by hand.
fn emit(header: &Header, ahs: &[u8], data: &[u8], digests: (Digest, Digest)) -> Vec<u8> {
    let body = if data.is_empty() { Body::None } else { Body::Inline(data.to_vec()) };
    let transmit = Transmit::new(header, body, digests.0, digests.1);
    let mut bytes = transmit.head()[..BHS_LEN].to_vec();
    if ahs.is_empty() {
        bytes = transmit.head().to_vec();
    } else {
        bytes[4] = (ahs.len() / 4) as u8;
        bytes.extend_from_slice(ahs);
        if digests.0 == Digest::Crc32c {
            let crc = digest::append(0, &bytes);
            bytes.extend_from_slice(&crc.to_le_bytes());
        }
    }
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(Trailer::of(data, digests.1).as_bytes());
    bytes
}

fn digests() -> impl Strategy<Value = (Digest, Digest)> {
    let either = || prop_oneof![Just(Digest::None), Just(Digest::Crc32c)];
    (either(), either())
}

fn additional() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => Just(0_usize), 1 => 1_usize..=255]
        .prop_flat_map(|words| vec(any::<u8>(), words * 4..=words * 4))
}

fn deframer(digests: (Digest, Digest)) -> Deframer {
    let mut deframer = Deframer::new();
    deframer.set_digests(digests.0, digests.1);
    deframer
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1024) })]

    #[test]
    fn what_is_emitted_is_parsed_as_it_was_meant(
        type_ in 0..TYPES.len(), immediate in any::<bool>(), flags in any::<u8>(),
        values in vec(any::<u64>(), 16..=16), ahs in additional(), data in vec(any::<u8>(), 0..600),
        digests in digests(), pieces in vec(1_usize..200, 1..8), to_a_task in any::<bool>(),
    ) {
        let (header, drawn) = build(TYPES[type_], immediate, flags, &values);
        prop_assert_eq!(header.0, drawn, "where the fields lie");
        let bytes = emit(&header, &ahs, &data, digests);
        let sink = if to_a_task { Sink::Task(TaskId(7), 0) } else { Sink::Internal };
        let mut deframer = deframer(digests);
        // Another one behind it is not touched.
        let twice = [&bytes[..], &bytes[..]].concat();
        let (parsed, used) = parse(&mut deframer, &twice, &pieces, sink);
        prop_assert_eq!(used, bytes.len());
        let Parsed::Pdu { header: came, ahs: came_ahs, data: came_data } = parsed else {
            return Err(TestCaseError::fail("no PDU"));
        };
        prop_assert_eq!((&came_ahs, &came_data), (&ahs, &data));
        let came = Header(came);
        prop_assert_eq!((came.opcode(), came.flags()), (TYPES[type_].0, flags));
        prop_assert_eq!(came.is_immediate(), drawn[0] & 0x40 != 0);
        prop_assert_eq!((came.ahs_len(), came.data_len()), (ahs.len(), data.len()));
        for (field, value) in TYPES[type_].2.iter().zip(&values) {
            let mask = u64::MAX >> (64 - 8 * field.len);
            prop_assert_eq!((field.get)(&came), value & mask, "the field at byte {}", field.at);
        }
        // What was parsed is emitted as it came.
        prop_assert_eq!(emit(&came, &came_ahs, &came_data, digests), bytes);
        prop_assert!(deframer.is_between_pdus());
    }

    #[test]
    fn whatever_is_parsed_is_emitted_as_it_came(
        first in vec(any::<u8>(), 48..=48), rest in vec(any::<u8>(), 0..2000),
        digests in digests(), pieces in vec(1_usize..200, 1..8),
    ) {
        // A data segment of any length would hardly ever end.
        let mut bytes = first;
        (bytes[4], bytes[5], bytes[6]) = (bytes[4] % 8, 0, bytes[6] % 4);
        bytes.extend_from_slice(&rest);
        let ahs_len = usize::from(bytes[4]) * 4;
        let header_end = BHS_LEN + ahs_len;
        let data_len = usize::from(bytes[6]) << 8 | usize::from(bytes[7]);
        let data_at = header_end + digests.0.len();
        // The digests and the padding are made right; the rest stays what it is.
        if bytes.len() >= data_at && digests.0 == Digest::Crc32c {
            let crc = digest::append(0, &bytes[..header_end]);
            bytes[header_end..data_at].copy_from_slice(&crc.to_le_bytes());
        }
        if bytes.len() >= data_at + data_len {
            bytes.truncate(data_at + data_len);
            let trailer = Trailer::of(&bytes[data_at..], digests.1);
            bytes.extend_from_slice(trailer.as_bytes());
        }
        match parse(&mut deframer(digests), &bytes, &pieces, Sink::Internal).0 {
            Parsed::Pdu { header, ahs, data } => {
                prop_assert_eq!(emit(&Header(header), &ahs, &data, digests), bytes);
            }
            Parsed::Unfinished => prop_assert!(bytes.len() < data_at + data_len),
            other => return Err(TestCaseError::fail(alloc::format!("{other:?}"))),
        }
    }

    #[test]
    fn a_bit_that_flips_is_noticed_where_a_digest_covers_it(
        type_ in 0..TYPES.len(), values in vec(any::<u64>(), 16..=16), ahs in additional(),
        data in vec(any::<u8>(), 1..600), at in any::<prop::sample::Index>(), bit in 0_u8..8,
        pieces in vec(1_usize..200, 1..8),
    ) {
        let digests = (Digest::Crc32c, Digest::Crc32c);
        let (header, _) = build(TYPES[type_], false, 0x80, &values);
        let mut bytes = emit(&header, &ahs, &data, digests);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let header_end = BHS_LEN + ahs.len() + 4;
        let parsed = parse(&mut deframer(digests), &bytes, &pieces, Sink::Internal).0;
        match at {
            // With another length of additional headers the digest lies elsewhere.
            4 => prop_assert!(matches!(parsed, Parsed::HeaderDigestError | Parsed::Unfinished)),
            _ if at < header_end => prop_assert_eq!(parsed, Parsed::HeaderDigestError),
            _ => prop_assert_eq!(parsed, Parsed::DataDigestError),
        }
    }
}

#[test]
fn every_type_is_there_once_and_its_fields_do_not_overlap() {
    for (at, (code, _, fields)) in TYPES.iter().enumerate() {
        assert!(TYPES[..at].iter().all(|(other, ..)| other != code), "{code:#x}");
        let mut taken = [false; BHS_LEN];
        for field in *fields {
            for place in &mut taken[field.at..field.at + field.len] {
                assert!(!core::mem::replace(place, true), "{code:#x}: byte {}", field.at);
            }
        }
    }
}
