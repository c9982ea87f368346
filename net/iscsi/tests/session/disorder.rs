//! Data in another order than the sender gave them, where that was agreed on (RFC 7143 sections 13.18 and 13.19): as other
//! implementations may send them.

use std::collections::BTreeMap;

use iscsi::digest::{Digest, append};
use iscsi::keys::{Choice, DigestPreference};
use iscsi::pdu::{BHS_LEN, Header, flag, opcode};
use iscsi::{Body, Preferences, SessionParameters, TaskId, Transmit};

use crate::world::{Buffers, Damage, Prng};
use crate::{reassign, recovery, session, several};

/// A PDU on its way.
pub(crate) struct Packet {
    pub(crate) header: Header,
    header_digest: Digest,
    pub(crate) data: Vec<u8>,
    pub(crate) data_digest: Digest,
}

impl Packet {
    pub(crate) fn new(transmit: &Transmit, buffers: &Buffers) -> Self {
        let (header, digest) = transmit.head().split_at(BHS_LEN);
        let data = match &transmit.body {
            Body::None => &[][..],
            Body::Inline(bytes) => bytes,
            Body::Task { task, offset, len } => &buffers[task][*offset as usize..][..*len as usize],
        };
        Self {
            header: Header(header.try_into().expect("a header")),
            header_digest: if digest.is_empty() { Digest::None } else { Digest::Crc32c },
            data: data.to_vec(),
            data_digest: transmit.data_digest,
        }
    }

    pub(crate) fn head(&self) -> Vec<u8> {
        let digest = append(0, &self.header.0).to_le_bytes();
        [&self.header.0[..], &digest[..self.header_digest.len()]].concat()
    }

    fn is_data(&self) -> bool {
        matches!(self.header.opcode(), opcode::DATA_IN | opcode::DATA_OUT)
    }

    /// True for PDUs of one kind and one task, or one burst of it.
    fn goes_with(&self, other: &Self) -> bool {
        let of = |packet: &Self| (packet.header.opcode(), packet.header.itt());
        let ttt = |packet: &Self| (self.header.opcode() == opcode::DATA_OUT).then(|| packet.header.ttt());
        of(self) == of(other) && ttt(self) == ttt(other)
    }

    fn content(&self) -> (u32, Vec<u8>) {
        (self.header.buffer_offset(), self.data.clone())
    }

    fn set_content(&mut self, (offset, data): (u32, Vec<u8>)) {
        self.header = self.header.with_buffer_offset(offset).with_data_len(data.len());
        self.data = data;
    }
}

fn exchange(packets: &mut [Packet], a: usize, b: usize) {
    let (first, second) = (packets[a].content(), packets[b].content());
    packets[a].set_content(second);
    packets[b].set_content(first);
}

/// What was sent in another order: what comes again is what came before by that number.
#[derive(Default)]
pub(crate) struct Disorder {
    sent: BTreeMap<(TaskId, u32), (u32, Vec<u8>)>,
    /// How often what may be exchanged was, of each kind: data PDUs within a sequence, sequences, R2Ts.
    pub(crate) exchanged: [u32; 3],
}

impl Disorder {
    /// Exchanges neighbours, where both ends agreed to that.
    pub(crate) fn apply(&mut self, packets: &mut [Packet], agreed: &SessionParameters, prng: &mut Prng) {
        if !agreed.data_pdu_in_order.is_yes() {
            self.exchange_pdus(packets, prng);
        }
        if !agreed.data_sequence_in_order.is_yes() {
            self.exchange_sequences(packets, prng);
            self.exchange_r2ts(packets, prng);
        }
        for packet in packets.iter_mut().filter(|packet| packet.header.opcode() == opcode::DATA_IN) {
            let name = (TaskId(packet.header.itt()), packet.header.data_sn());
            let first = self.sent.entry(name).or_insert_with(|| packet.content()).clone();
            packet.set_content(first);
        }
    }

    fn exchange_pdus(&mut self, packets: &mut [Packet], prng: &mut Prng) {
        for at in 1..packets.len() {
            let [a, b] = [&packets[at - 1], &packets[at]];
            let same_sequence = a.is_data() && a.goes_with(b) && !a.header.has(flag::FINAL);
            if same_sequence && prng.below(2) == 0 {
                exchange(packets, at - 1, at);
                self.exchanged[0] += 1;
            }
        }
    }

    fn exchange_sequences(&mut self, packets: &mut [Packet], prng: &mut Prng) {
        let ends = |packets: &[Packet], from: usize| {
            let is_in = packets[from].header.opcode() == opcode::DATA_IN;
            let rest = &packets[from..];
            let last = rest.iter().position(|packet| packet.header.has(flag::FINAL)).filter(|_| is_in)?;
            rest[..=last].iter().all(|packet| packet.goes_with(&rest[0])).then_some(from + last + 1)
        };
        let mut from = 0;
        while from < packets.len() {
            let Some(middle) = ends(packets, from) else {
                from += 1;
                continue;
            };
            let len = middle - from;
            let end = packets.get(middle).filter(|next| next.goes_with(&packets[from]));
            let alike = end.and_then(|_| ends(packets, middle)) == Some(middle + len);
            if alike && prng.below(2) == 0 {
                (from..middle).for_each(|at| exchange(packets, at, at + len));
                self.exchanged[1] += 1;
            }
            from = middle;
        }
    }

    fn exchange_r2ts(&mut self, packets: &mut [Packet], prng: &mut Prng) {
        for at in 1..packets.len() {
            let [a, b] = [&packets[at - 1].header, &packets[at].header];
            let neighbours = a.opcode() == opcode::R2T && packets[at - 1].goes_with(&packets[at]);
            if neighbours && prng.below(2) == 0 {
                // What they ask for; their numbers stay.
                let other = |of: &Header, like: &Header| {
                    of.with_ttt(like.ttt())
                        .with_buffer_offset(like.buffer_offset())
                        .with_residual(like.residual())
                };
                (packets[at - 1].header, packets[at].header) = (other(a, b), other(b, a));
                self.exchanged[2] += 1;
            }
        }
    }
}

#[test]
fn data_arrive_whole_in_whatever_order_they_may_come() {
    let mut exchanged = [0; 3];
    for seed in 0..96 {
        let choice = |bit: u64| if seed >> bit & 1 == 0 { Choice::No } else { Choice::Yes };
        let preferences = Preferences {
            data_pdu_in_order: choice(0),
            data_sequence_in_order: choice(1),
            initial_r2t: choice(2),
            immediate_data: choice(3),
            max_recv_data_segment_length: 512,
            max_burst_length: 2048,
            first_burst_length: 2048,
            max_outstanding_r2t: 4,
            error_recovery_level: (seed / 16 % 3) as u32,
            data_digest: DigestPreference::Require,
            header_digest: if seed % 5 == 0 { DigestPreference::Require } else { DigestPreference::Never },
            default_time2retain: 20,
            ..several()
        };
        let links = 1 + seed % 3;
        let what = format!("{seed}: {preferences:?}");
        let mut world = session(links as u16, preferences, seed);
        world.disorder = Some(Disorder::default());
        world.damage = Damage(if preferences.error_recovery_level > 0 { 30 } else { 0 });
        recovery::load(&mut world, links, 12, &what);
        let disorder = world.disorder.take().expect("set");
        assert_eq!(preferences.data_pdu_in_order.is_yes(), disorder.exchanged[0] == 0, "{what}");
        assert_eq!(preferences.data_sequence_in_order.is_yes(), disorder.exchanged[1] == 0, "{what}");
        exchanged = std::array::from_fn(|kind| exchanged[kind] + disorder.exchanged[kind]);
        if world.links[0].initiator.reassigns() {
            reassign::rounds(&mut world, 2, &what);
        }
    }
    assert!(exchanged.iter().all(|count| *count > 1000), "{exchanged:?}");
}
