//! What the project's own code makes of a leg that a power cut left.

use mirror::bitmap::Bitmap;
use mirror::decide::{
    DegradedStart, Differences, HoldReason, LegAge, PeerSight, PeerVerdict, Standing, StartFacts,
    StartVerdict, Starting, SyncPlan, diverged_plan, informed, on_diverged, on_peer, on_start, peers_word,
    standing,
};
use mirror::format::layout::{BITMAP_OFFSET, LOG_LEN, LOG_OFFSET};
use mirror::format::{LegIndex, LegState, Superblock, UnitState, UnitStateHealth};
use mirror::intent_log::{Replay, replay};
use mirror::probe::{FoundLeg, HEAD_LEN, Image, LegFound, TAIL_LEN, classify};
use mirror::range::ByteRange;
use uuid::Uuid;

use super::cut::Way;
use super::disk::{DATA_OFFSET, Disk, SECTOR};
use super::replay::{DataSets, Known, Truth};
use super::unit_state::number_of;
use super::world::{ARRAY, BLOCK, LEG_BYTES};

/// A leg as it is found.
pub(crate) struct Opened {
    leg: Option<Leg>,
}

struct Leg {
    found: Box<FoundLeg>,
    log: Replay,
    bitmap: Bitmap,
    /// Number of the unit's state.
    state: u64,
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).expect("a small disk")
}

impl Opened {
    /// Reads a leg. One that is not formatted to its end is blank or refused, never half a leg.
    pub(crate) fn read(disk: &Disk, way: &Way) -> Result<Self, String> {
        let piece = |offset: u64, len: u64| {
            let mut bytes = vec![0; at(len)];
            disk.read(way, at(offset), &mut bytes);
            bytes
        };
        let leg_size = LEG_BYTES as u64;
        let (head, tail) = (piece(0, HEAD_LEN), piece(leg_size - TAIL_LEN, TAIL_LEN));
        let image = Image { leg_size, head: &head, tail: &tail };
        let LegFound::Leg(found) = classify(&image, Some(ARRAY)) else { return Ok(Self { leg: None }) };
        let layout = found.superblock.layout;
        if at(layout.data_offset) != DATA_OFFSET {
            return Err(format!("the data begin at {}", layout.data_offset));
        }
        let log = replay(&piece(LOG_OFFSET, LOG_LEN), ARRAY, &layout.log);
        if let Replay::Unreadable { newest } = log {
            return Err(format!("the log is unreadable behind transaction {newest} (I8)"));
        }
        let (bitmap, report) = Bitmap::load(ARRAY, &layout, &piece(BITMAP_OFFSET, layout.bitmap_len()));
        if report.lost != 0 {
            return Err(format!("a bitmap page is lost (I8): {report:?}"));
        }
        let unit = UnitState::newest(&head, ARRAY);
        if unit.health == UnitStateHealth::Lost {
            return Err("the unit's state is lost (I8)".to_owned());
        }
        let state = number_of(&unit.content).ok_or("the unit's state is torn (I8)")?;
        Ok(Self { leg: Some(Leg { found, log, bitmap, state }) })
    }
}

/// As its node would find it after the power came back: another boot, so a volatile cache has lost what it had.
fn rebooted(leg: &FoundLeg) -> Superblock {
    let mut superblock = leg.superblock.clone();
    let index = superblock.index.index();
    superblock.legs[index].incarnation = Uuid::from_u128(0xb007);
    superblock
}

/// Whether an image of both legs keeps what it has to.
pub(crate) fn judge(
    legs: [&Opened; 2],
    disks: &[Disk; 2],
    ways: [&Way; 2],
    truth: &Truth,
) -> Result<(), String> {
    let [Some(zero), Some(one)] = legs.map(|opened| opened.leg.as_ref()) else {
        return match truth.blocks.values().any(|known| known.acknowledged != 0) {
            false => Ok(()),
            true => Err("a leg is no leg any more (I8)".to_owned()),
        };
    };
    let legs = [zero, one];
    let generation = |leg: &Leg| leg.found.superblock.config().generation();
    let newest = if generation(zero) >= generation(one) { zero } else { one };
    let config = match &truth.arbiter {
        Some(record) => *record.current(),
        None => *newest.found.superblock.config(),
    };
    let holder = config.holder.index();
    let plan = plan(legs[holder], legs[1 - holder], truth)?;
    let state = truth.state;
    for (leg, opened) in legs.into_iter().enumerate() {
        let counts = config.in_sync.has(LegIndex::BOTH[leg]);
        let least = if counts { state.stored } else { 0 };
        if !(least..=state.sent).contains(&opened.state) {
            let there = opened.state;
            return Err(format!(
                "leg {leg} has the unit's state {there}, not of {least}..={} (I17)",
                state.sent
            ));
        }
    }
    for (block, known) in &truth.blocks {
        let mut there = [[0; BLOCK as usize]; 2];
        for leg in 0..2 {
            disks[leg].read(ways[leg], DATA_OFFSET + at(block * BLOCK), &mut there[leg]);
            if config.in_sync.has(LegIndex::BOTH[leg]) {
                kept(&there[leg], known).map_err(|why| format!("block {block} of leg {leg}: {why} (I2)"))?;
            }
        }
        let range = ByteRange::new(block * BLOCK, BLOCK);
        if there[0] != there[1] && !plan.copies(legs, range) {
            return Err(format!("the legs differ at block {block}, and nothing says so (I5)"));
        }
    }
    Ok(())
}

/// How the holder brings the legs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    /// Nothing: it says that nothing differs.
    Nothing,
    Union,
    Everything,
}

impl Copies {
    fn by(plan: SyncPlan) -> Self {
        match plan {
            SyncPlan::Delta => Self::Union,
            SyncPlan::Full(_) => Self::Everything,
        }
    }

    fn copies(self, legs: [&Leg; 2], range: ByteRange) -> bool {
        let said = |leg: &Leg| leg.bitmap.is_any_set(range) || names(leg, range);
        match self {
            Self::Nothing => false,
            Self::Union => legs.into_iter().any(said),
            Self::Everything => true,
        }
    }
}

fn names(leg: &Leg, range: ByteRange) -> bool {
    let Replay::Table(table) = &leg.log else { return true };
    let shift = leg.found.superblock.layout.log.extent_shift;
    let extent = |extent: &u32| ByteRange::new(u64::from(*extent) << shift, 1 << shift).overlaps(range);
    table.extents().iter().any(extent)
}

fn plan(own: &Leg, peer: &Leg, truth: &Truth) -> Result<Copies, String> {
    let written = rebooted(&own.found);
    let theirs = rebooted(&peer.found);
    let peer = LegFound::Leg(Box::new(FoundLeg { superblock: theirs.clone(), ..*peer.found.clone() }));
    let standing = match &truth.arbiter {
        Some(record) => standing(&written, Some(record)),
        None => peers_word(&written, &peer),
    };
    let superblock = informed(&written, &standing);
    let empty = own.log.is_empty() && own.bitmap.is_clear();
    let facts = StartFacts {
        own: &superblock,
        age: LegAge::of(&written, &standing),
        incarnation: Uuid::from_u128(0xb007),
        differences: if empty { Differences::None } else { Differences::Possible },
        peer: PeerSight::Seen(&peer),
        degraded: DegradedStart::Withheld,
    };
    match verdict(&standing, &facts) {
        StartVerdict::Serve(Starting::Both) => Ok(Copies::Nothing),
        StartVerdict::Serve(Starting::Resync(plan) | Starting::FromPeer(plan)) => Ok(Copies::by(plan)),
        StartVerdict::Serve(Starting::Alone) => Ok(Copies::Everything),
        StartVerdict::Hold(HoldReason::Split { last_shared }) if truth.data_sets == DataSets::Two => {
            Ok(Copies::by(diverged_plan(&superblock, &theirs, last_shared)))
        }
        StartVerdict::Hold(_) if truth.arbiter.is_some() => taken_over(&theirs, &own.found, truth),
        verdict => Err(format!("nobody serves any more: {verdict:?}")),
    }
}

/// The holder waits: by the arbiter's word the other node goes on, if its leg counts.
fn taken_over(written: &Superblock, holder: &FoundLeg, truth: &Truth) -> Result<Copies, String> {
    let own = informed(written, &standing(written, truth.arbiter.as_ref()));
    if !own.is_in_sync() || own.own().state == LegState::Syncing {
        return Err("neither node can serve any more".to_owned());
    }
    let holder = LegFound::Leg(Box::new(FoundLeg { superblock: rebooted(holder), ..*holder }));
    match on_peer(&own, &holder) {
        PeerVerdict::Member => Ok(Copies::Union),
        PeerVerdict::Resync(plan) => Ok(Copies::by(plan)),
        verdict => Err(format!("the old holder's leg does not come back: {verdict:?}")),
    }
}

fn verdict(standing: &Standing, facts: &StartFacts<'_>) -> StartVerdict {
    match standing {
        Standing::Diverged { line, last_shared } => on_diverged(facts.own, line.current(), *last_shared),
        _ => on_start(facts),
    }
}

/// Each sector holds what was acknowledged, or something that was sent later.
fn kept(block: &[u8], known: &Known) -> Result<(), String> {
    for sector in block.chunks_exact(SECTOR) {
        let stamp = u64::from_le_bytes(sector[..8].try_into().expect("8 bytes"));
        if stamp < known.acknowledged || (stamp != 0 && !known.sent.contains(&stamp)) {
            return Err(format!("{stamp} is there, {} was acknowledged", known.acknowledged));
        }
    }
    Ok(())
}
